"""What a user sees of a run: progress while it works, a summary at its end, and run.json beside the table."""

import json
import platform
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Any, Literal

from pipeline.graph import RunContext
from pipeline.layout import ResolvedConfig
from pipeline.logs import log
from pipeline.open_runs import now
from pipeline.plan import Plan
from pipeline.run_record import keep_record
from pipeline.throughput import Sampler
from transforms.measure import Histogram, add_histograms
from transforms.progress import read_progress
from transforms.records import Failure, PartFile

PACKAGES = (
    "semantic-ingest",
    "apache-beam",
    "deltalake",
    "pyarrow",
    "tantivy",
    "tokenizers",
    "torch",
    "transformers",
)
"""Packages whose versions a run records."""


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
            with sampler, nullcontext() if self.quiet else _progress(name, documents, folder):
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


@contextmanager
def _progress(name: str, documents: int, folder: str | None) -> Iterator[None]:
    """Show a bar with documents, chunks, tokens per second, elapsed and remaining time."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = [
        SpinnerColumn(),
        TextColumn("{task.description:<8}"),
        BarColumn(),
        TextColumn("{task.fields[counts]}"),
    ]
    timing = [TimeElapsedColumn(), TimeRemainingColumn()]
    with Progress(*columns, *timing, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=documents or None, counts="")
        ended = threading.Event()

        def follow() -> None:
            begun = time.monotonic()
            while not ended.wait(0.5):
                totals = read_progress(folder) if folder and documents else Counter()
                rate = totals["tokens"] / max(time.monotonic() - begun, 0.001)
                counts = f"{totals['documents']:,}/{documents:,} documents · {totals['chunks']:,} chunks"
                counts = f"{counts} · {rate:,.0f} tokens/s" if documents else ""
                bar.update(task, completed=totals["documents"], counts=counts)

        follower = threading.Thread(target=follow, name="progress", daemon=True)
        follower.start()
        try:
            yield
        finally:
            ended.set()
            follower.join()


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter to a run's results."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def print_summary(summary: dict[str, Any], output: Literal["table", "json"]) -> None:
    """Print the summary of a run to stdout."""
    if output == "json":
        print(json.dumps(summary, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    documents = summary["documents"]
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    rows = {
        "documents": ", ".join(
            f"{count:,} {name.replace('_', ' ')}" for name, count in documents.items() if count
        )
        or "none",
        "chunks": f"{summary['chunks']:,} ({summary['embedded']:,} embedded, {summary['reused']:,} reused)",
        "tokens": f"{summary['tokens']:,}",
        "truncated": f"{summary['truncated']:,} chunks were cut at the model's window",
        "time": f"{summary['seconds']:.1f} s, {summary['tokens_per_second']:,.0f} tokens/s while embedding",
        "table": _version(summary["table_version"]),
        "index": _version(summary["index_version"]),
    }
    for asked, used in summary["substitutions"].items():
        rows[f"{asked}"] = f"substituted by {used}"
    if summary["retries"]:
        rows["retries"] = f"{summary['retries']:,} requests were tried again {summary['retries_by_endpoint']}"
    for gate in summary.get("gates", []):
        verdict = "; ".join(gate["problems"]) or "passed"
        rows[f"gate {gate['measure']}"] = f"{gate['value']:.4f}, {verdict}"
    if summary["failures_path"]:
        rows["failures"] = f"{summary['failures_path']} {summary['failures_by_reason']}"
    if documents.get("held_back"):
        rows["held back"] = f"{documents['held_back']:,} deletions wait until the whole source can be read"
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)


def _version(number: int | None) -> str:
    return "none" if number is None else f"version {number}"
