"""Follow a run: its summary grows as things become known, and is kept beside the table however the run ends."""

import sys
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from pipeline.config.resolve import ResolvedConfig
from pipeline.errors import PipelineError
from pipeline.logs import log, logs_json
from pipeline.report.record import keep_record, package_versions
from pipeline.report.run_json import RunSummary
from pipeline.report.stages import Stages
from pipeline.stop import Work
from pipeline.table.open_runs import RunContext
from transforms.handover.progress import read_progress

if TYPE_CHECKING:
    from pipeline.report.throughput import Counts


class RunReport:
    """Follows one run.

    Attributes:
        summary: what is known of it so far.
    """

    def __init__(self, resolved: ResolvedConfig, *, quiet: bool = False) -> None:
        self.summary = RunSummary()
        self._resolved = resolved
        self._begun = time.time()
        is_read_live = sys.stderr.isatty() and not logs_json()
        self._stages = Stages(None if quiet else "bar" if is_read_live else "lines")
        self._ending = threading.Lock()
        self._is_kept = False

    def __enter__(self) -> "RunReport":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        """Record how the run ended; an interrupted one says how to go on."""
        if isinstance(error, KeyboardInterrupt | SystemExit):
            log.warning(
                "stopped. Run the same command again: it goes on with what is finished."
                if self.summary.table_version is None
                else "stopped; the table is published, its index is not up to date. Run the same command again."
            )
            self.finish("stopped")
        elif error is not None:
            # What we raise is a sentence; of others the name says what the words leave out.
            said = str(error) if isinstance(error, PipelineError) else f"{type(error).__name__}: {error}"
            self.finish("failed", said)
        return False

    @property
    def work(self) -> Work:
        """This run, as something that a person can stop."""
        return Work(
            say=lambda: log.warning("stopping; finished work is kept"),
            record=self._stopped,
        )

    def _stopped(self) -> None:
        self.finish("stopped")

    def begin(self, run: RunContext) -> None:
        """The run has its id, and a folder where workers leave their progress."""
        folder = run.progress_folder
        self._stages.counts = None if folder is None else lambda: read_progress(folder)
        self.add(run_id=run.run_id, started=run.started.isoformat())

    def count_by(self, counts: "Counts") -> None:
        """Take the counts from the runner, where the workers do not share the run's folder with this machine."""
        if self._stages.counts is None:
            self._stages.counts = counts

    def add(self, **known: Any) -> None:
        """Put into the summary what has become known; the names are the summary's."""
        self.summary = replace(self.summary, **known)

    def stage(self, name: str, documents: int = 0) -> AbstractContextManager[None]:
        """Time one stage and show its progress."""
        return self._stages.follow(name, documents)

    def finish(
        self, status: Literal["done", "failed", "stopped"] = "done", error: str | None = None
    ) -> RunSummary:
        """End the run: complete the summary and keep it, once; what ends later finds it ended."""
        with self._ending:
            if not self._is_kept:
                self._is_kept = True
                self._complete(status, error)
                keep_record(self._resolved.config, self.summary)
        return self.summary

    def _complete(self, status: str, error: str | None) -> None:
        timings = self._stages.timings
        embedding = timings.get("embed", 0.0)
        self.add(
            status=status,
            error=error,
            seconds=round(time.time() - self._begun, 3),
            tokens_per_second=round(self.summary.tokens / embedding, 1) if embedding else 0.0,
            substitutions=self._resolved.substitutions,
            timings=timings,
            stages=tuple(self._stages.ended),
            throughput=tuple(self._stages.samples),
            versions=package_versions(),
            config=self._resolved.config.model_dump(),
        )
