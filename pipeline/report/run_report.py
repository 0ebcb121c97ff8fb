"""Follow a run: its summary grows as things become known, and is kept beside the table however the run ends."""

import sys
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal

from pipeline.config.resolve import ResolvedConfig
from pipeline.logs import log
from pipeline.report.record import keep_record, package_versions
from pipeline.report.stages import Stages
from pipeline.report.summary import RunSummary
from pipeline.table.open_runs import RunContext


class RunReport:
    """Follows one run.

    Attributes:
        summary: what is known of it so far.
    """

    def __init__(self, resolved: ResolvedConfig, *, quiet: bool = False) -> None:
        self.summary = RunSummary()
        self._resolved = resolved
        self._begun = time.time()
        self._stages = Stages(quiet=quiet or not sys.stderr.isatty())

    def __enter__(self) -> "RunReport":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        """Record how the run ended; an interrupted one says how to go on."""
        if isinstance(error, KeyboardInterrupt | SystemExit):
            log.warning(
                "stopped; nothing was published. Run the same command again: finished parts are kept."
                if self.summary.table_version is None
                else "stopped; the table is published, its index is not up to date. Run the same command again."
            )
        if error is not None:
            self.finish("failed", f"{type(error).__name__}: {error}")
        return False

    def begin(self, run: RunContext) -> None:
        """The run has its id, and a folder where workers leave their progress."""
        self._stages.progress_folder = run.progress_folder
        self.add(run_id=run.run_id, started=run.started.isoformat())

    def add(self, **known: Any) -> None:
        """Put into the summary what has become known; the names are the summary's."""
        self.summary = replace(self.summary, **known)

    def stage(self, name: str, documents: int = 0) -> AbstractContextManager[None]:
        """Time one stage and show its progress."""
        return self._stages.follow(name, documents)

    def finish(self, status: Literal["done", "failed"] = "done", error: str | None = None) -> RunSummary:
        """End the run: complete the summary and keep it."""
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
        keep_record(self._resolved.config, self.summary)
        return self.summary
