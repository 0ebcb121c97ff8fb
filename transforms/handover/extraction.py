"""What extraction took, left by the workers in the run's folder: documents, pages, processor time, the slowest files.

A split leaves one small file. Documents of a split that the runner repeats count again: they were extracted again.
"""

import heapq
import uuid
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import orjson

from transforms import files

SLOWEST = 5


@dataclass
class ExtractionTotals:
    """What extraction took.

    Attributes:
        documents: documents extracted.
        pages: their pages, of formats that have pages.
        characters: their text.
        seconds: processor time.
        slowest: the slowest files and their seconds, the slowest first.
    """

    documents: int = 0
    pages: int = 0
    characters: int = 0
    seconds: float = 0.0
    slowest: list[tuple[float, str]] = field(default_factory=list)


class ExtractionFile:
    """The account of one split; several threads may add to it.

    Args:
        folder: the run's folder; None keeps the account to itself.
    """

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._lock = Lock()
        self.totals = ExtractionTotals()

    def add(self, path: str, seconds: float, pages: int, characters: int) -> None:
        """Count one document."""
        totals = self.totals
        with self._lock:
            totals.documents += 1
            totals.pages += pages
            totals.characters += characters
            totals.seconds += seconds
            totals.slowest = heapq.nlargest(SLOWEST, [*totals.slowest, (seconds, path)])

    def write(self) -> None:
        """Leave the account for the launcher."""
        if self._folder is not None and self.totals.documents:
            with files.create(files.join(self._folder, f"extraction-{uuid.uuid4().hex}.json")) as handle:
                handle.write(orjson.dumps(self.totals))


def read_extraction(folder: str) -> ExtractionTotals:
    """Add up what all workers left."""
    total = ExtractionTotals()
    for path, _ in files.list_files(folder, "extraction-*.json"):
        with files.open_read(path) as handle:
            one: dict[str, Any] = orjson.loads(handle.read())
        total.documents += one["documents"]
        total.pages += one["pages"]
        total.characters += one["characters"]
        total.seconds += one["seconds"]
        slowest = [*total.slowest, *((seconds, name) for seconds, name in one["slowest"])]
        total.slowest = heapq.nlargest(SLOWEST, slowest)
    return total
