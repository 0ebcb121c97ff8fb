"""What a user sees of a run: progress while it works, a summary at its end, and run.json beside the table."""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from types import TracebackType
from typing import Any, Literal

from pipeline.config.resolve import ResolvedConfig
from pipeline.logs import log
from pipeline.report.progress import progress_bar
from pipeline.report.record import keep_record, package_versions
from pipeline.report.throughput import Sampler
from pipeline.run.compare import Plan
from pipeline.table.open_runs import RunContext, now
from transforms.lengths import Histogram, add_histograms
from transforms.records import Failure, PartFile


class RunReport:
    """Follows one run: times its stages, counts its work, shows its progress, writes run.json however it ends."""

    def __init__(self, resolved: ResolvedConfig, *, quiet: bool = False) -> None:
        self.resolved = resolved
        self.quiet = quiet or not sys.stderr.isatty()
        self._begun = time.time()
        self._run: RunContext | None = None
        self._seconds: dict[str, float] = {}
        self._documents: dict[str, int] = {}
        self._work: Counter[str] = Counter()
        self._retries: dict[str, int] = {}
        self._failures: Sequence[Failure] = ()
        self._failures_path: str | None = None
        self._result: dict[str, Any] = {}
        self._lengths: dict[str, dict[str, Histogram]] = {}
        self._stages: list[dict[str, Any]] = []
        self._throughput: list[tuple[float, int, int, int]] = []

    def __enter__(self) -> "RunReport":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        """Record how the run ended; an interrupted one says how to go on."""
        if isinstance(error, KeyboardInterrupt | SystemExit):
            published = "table_version" in self._result
            log.warning(
                "stopped; the table is published, its index is not up to date. Run the same command again."
                if published
                else "stopped; nothing was published. Run the same command again: finished parts are kept."
            )
        if error is not None:
            self._write("failed", f"{kind.__name__ if kind else ''}: {error}")
        return False

    def begin(self, run: RunContext) -> None:
        """The run has its id."""
        self._run = run

    @contextmanager
    def stage(self, name: str, documents: int = 0) -> Iterator[None]:
        """Time one stage and show its progress."""
        begun, started = time.perf_counter(), now()
        folder = self._run.progress_folder if self._run is not None else None
        sampler = Sampler(folder if documents else None)
        try:
            with sampler, nullcontext() if self.quiet else progress_bar(name, documents, folder):
                yield
        finally:
            seconds = time.perf_counter() - begun
            self._throughput += sampler.samples
            self._stages.append({"name": name, "started": started.isoformat(), "seconds": round(seconds, 3)})
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def planned(self, plan: Plan) -> None:
        """The plan is made."""
        self._documents = {
            "added": plan.added,
            "changed": plan.changed,
            "unchanged": plan.unchanged,
            "deleted": len(plan.deleted),
            "failed": len(plan.unreadable),
            "duplicates": plan.duplicates,
            "adopted": len(plan.adopted),
            "held_back": plan.held_back,
        }

    def embedded(self, parts: Sequence[PartFile]) -> None:
        """The part files are written."""
        for part in parts:
            self._work.update(part.counts)
        for unit in ("token_lengths", "word_lengths"):
            of_parts = [getattr(part, unit) for part in parts]
            for name in sorted({name for one in of_parts for name in one}):
                total = add_histograms(one.get(name, {}) for one in of_parts)
                self._lengths.setdefault(name, {})[unit.replace("_lengths", "s")] = total

    def retried(self, retries: Mapping[str, int]) -> None:
        """Requests to services were tried again, by endpoint."""
        self._retries = dict(sorted(retries.items()))

    def changed(self, added: int, changed: int, rewritten_parts: int) -> None:
        """It is known what the commit will change."""
        self._documents |= {"added": added, "changed": changed}
        self._result["rewritten_parts"] = rewritten_parts

    def failed(self, failures: Sequence[Failure], path: str) -> None:
        """All failures are known."""
        self._failures = failures
        self._failures_path = path if failures else None
        self._documents["failed"] = len(failures)

    def gated(self, results: Sequence[Any]) -> None:
        """The quality gates were measured."""
        self._result["gates"] = [asdict(result) for result in results]

    def published(self, table_version: int | None) -> None:
        """The table has a new version, or the same when there was nothing to do."""
        self._result["table_version"] = table_version

    def index_updated(self, index_version: int | None) -> None:
        """The index shows this version of the table."""
        self._result["index_version"] = index_version

    def counters(self) -> dict[str, Any]:
        """What the run did so far, for the commit's metadata."""
        return {"documents": self._documents, **self._chunk_counts()}

    def _chunk_counts(self) -> dict[str, int]:
        names = ("chunks", "embedded", "reused", "tokens", "truncated", "merged")
        return {name: int(self._work[name]) for name in names}

    def finish(self) -> dict[str, Any]:
        """End the run: write run.json and return the summary."""
        return self._write("done", None)

    def _write(self, status: str, error: str | None) -> dict[str, Any]:
        seconds = time.time() - self._begun
        embedding = self._seconds.get("embed", 0.0)
        summary = {
            "status": status,
            "run_id": self._run.run_id if self._run else None,
            "documents": self._documents,
            **self._chunk_counts(),
            "seconds": round(seconds, 3),
            "tokens_per_second": round(self._work["tokens"] / embedding, 1) if embedding else 0.0,
            "table_version": None,
            "index_version": None,
            **self._result,
            "retries": sum(self._retries.values()),
            "retries_by_endpoint": self._retries,
            "failures_by_reason": dict(
                Counter(f"{one.stage}: {one.error}" for one in self._failures).most_common()
            ),
            "failures_path": self._failures_path,
            "substitutions": self.resolved.substitutions,
            **({"error": error} if error else {}),
        }
        record = {
            **summary,
            "started": self._run.started.isoformat() if self._run else None,
            "timings": {name: round(value, 3) for name, value in self._seconds.items()},
            "stages": self._stages,
            "throughput": self._throughput,
            "lengths": self._lengths,
            "versions": package_versions(),
            "config": self.resolved.config.model_dump(),
        }
        keep_record(self.resolved.config, record)
        return summary
