"""The progress of a run in the terminal."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from transforms.handover.progress import read_progress


@contextmanager
def progress_bar(name: str, documents: int, folder: str | None) -> Iterator[None]:
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
