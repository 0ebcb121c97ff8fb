"""The progress of a run while it works: a bar in a terminal, a line every half a minute in a log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

from pipeline.logs import log
from pipeline.report.throughput import Progress

SECONDS_BETWEEN_LINES = 30.0

Shows = Callable[[Progress], None]
"""Shows how far a stage is."""


def progress_text(progress: Progress) -> str:
    """How far a stage is, without the time left."""
    if not progress.chunks and not progress.documents:
        return f"loading models · {progress.total:,} documents"
    # Services do not tell their tokens.
    rate = f"{progress.tokens_per_second:,.0f} tokens/s"
    rate = rate if progress.tokens else f"{progress.chunks_per_second:,.1f} chunks/s"
    done = min(int(progress.documents), progress.total)
    return f"{done:,}/{progress.total:,} documents · {progress.chunks:,} chunks · {rate}"


def time_text(seconds: float | None) -> str:
    """A time as hours, minutes and seconds; dashes where it is not known."""
    if seconds is None:
        return "-:--:--"
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"


@contextmanager
def progress_bar(name: str, documents: int) -> Iterator[Shows]:
    """Show a bar on stderr with documents, chunks, tokens a second, elapsed time and time left.

    Args:
        name: the stage.
        documents: how many it works on; 0 where it does not count them.

    Yields:
        What shows each progress.
    """
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = [
        SpinnerColumn(),
        TextColumn("{task.description:<7}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[counts]}"),
    ]
    timing = [TimeElapsedColumn(), TextColumn("{task.fields[left]}")]
    with Bar(*columns, *timing, console=Console(stderr=True), transient=True) as bar:
        counts = progress_text(Progress(0, documents, 0, 0)) if documents else ""
        task = bar.add_task(name, total=documents or None, counts=counts, left="")

        def show(progress: Progress) -> None:
            left = f"{time_text(progress.seconds_left)} left"
            bar.update(task, completed=progress.documents, counts=progress_text(progress), left=left)

        yield show


@contextmanager
def progress_lines(name: str, documents: int, clock: Callable[[], float] = time.monotonic) -> Iterator[Shows]:
    """Write a line to the log every half a minute, and its numbers as fields of the JSON log."""
    last = clock()

    def show(progress: Progress) -> None:
        nonlocal last
        if clock() - last < SECONDS_BETWEEN_LINES:
            return
        last = clock()
        text = f"{progress_text(progress)} · {time_text(progress.seconds_left)} left"
        log.info("%s: %s", name, text, extra={"fields": {"stage": name, **asdict(progress)}})

    yield show
