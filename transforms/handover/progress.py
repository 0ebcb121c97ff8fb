"""Progress of the workers, visible to the launcher while a run is going on.

Runners report counters late or not at all while they work. So each worker keeps one tiny file of running totals in
the run's folder, replaced about once a second, and the launcher adds the files up. It works for threads, processes
and machines that share the folder; on an object store nothing is written, and the runner's own page shows progress.
"""

import os
import time
import uuid
from collections import Counter

import orjson

from transforms import files

SECONDS_BETWEEN_WRITES = 0.5


class ProgressFile:
    """Running totals of one worker.

    Args:
        folder: where the file goes; None, or a URL, writes none.
    """

    def __init__(self, folder: str | None) -> None:
        local = folder is not None and files.is_local(folder)
        self._path = (
            os.path.join(folder, f"progress-{uuid.uuid4().hex[:12]}.json") if local and folder else None
        )
        self._totals: Counter[str] = Counter()
        self._written = 0.0

    def add(self, counts: dict[str, int]) -> None:
        """Count one more document and what was done for it."""
        self._totals.update(counts)
        self._totals["documents"] += 1
        if time.monotonic() - self._written > SECONDS_BETWEEN_WRITES:
            self.flush()

    def flush(self) -> None:
        """Write the totals now. A missing folder only costs the progress display, never the run."""
        self._written = time.monotonic()
        if self._path is None:
            return
        temporary = f"{self._path}.tmp"
        try:
            with open(temporary, "wb") as handle:
                handle.write(orjson.dumps(dict(self._totals)))
            os.replace(temporary, self._path)
        except OSError:
            self._path = None


def read_progress(folder: str) -> Counter[str]:
    """Add up the totals of all workers."""
    totals: Counter[str] = Counter()
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if name.startswith("progress-") and name.endswith(".json"):
            with open(os.path.join(folder, name), "rb") as handle:
                totals.update(orjson.loads(handle.read()))
    return totals
