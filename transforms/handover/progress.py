"""Progress of the workers, visible to the launcher while a run is going on.

Runners report counters late or not at all while they work. So each worker keeps one tiny file of running totals in
the run's folder, replaced about twice a second, and the launcher adds the files up. It works for threads, processes
and machines that share the folder; on an object store nothing is written, and the runner's counters show progress.
"""

import os
import threading
import time
import uuid
from pathlib import Path

import orjson

from transforms import files

SECONDS_BETWEEN_WRITES = 0.5
STOP = "stop"
"""Name of the file by which the launcher asks the workers to stop."""


class RunStopped(Exception):
    """The launcher has asked to stop."""


class ProgressFile:
    """Running totals of one worker. Safe to use from several threads.

    Attributes:
        is_stopped: whether the launcher has asked to stop, as far as it was looked for.

    Args:
        folder: where the file goes; None, or a URL, writes none.
    """

    def __init__(self, folder: str | None) -> None:
        self.is_stopped = False
        self._folder = folder if folder is not None and files.is_local(folder) else None
        self._name = f"progress-{uuid.uuid4().hex[:12]}.json"
        self._totals = {"documents": 0.0, "chunks": 0, "tokens": 0}
        self._written = 0.0
        self._lock = threading.Lock()

    def add(self, *, documents: float = 0, chunks: int = 0, tokens: int = 0) -> None:
        """Count what was done.

        Args:
            documents: documents, or the share of their work that is done.
            chunks: chunks that have an embedding.
            tokens: tokens that the model saw.
        """
        with self._lock:
            self._totals["documents"] += documents
            self._totals["chunks"] += chunks
            self._totals["tokens"] += tokens
            if time.monotonic() - self._written > SECONDS_BETWEEN_WRITES:
                self._write()

    def flush(self) -> None:
        """Write the totals now."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        """Replace the file. A missing folder only costs the progress display, never the run."""
        self._written = time.monotonic()
        if self._folder is None:
            return
        path = os.path.join(self._folder, self._name)
        try:
            with open(f"{path}.tmp", "wb") as handle:
                handle.write(orjson.dumps(self._totals))
            os.replace(f"{path}.tmp", path)
            self.is_stopped = os.path.exists(os.path.join(self._folder, STOP))
        except OSError:
            self._folder = None


class CallProgress:
    """Counts what one call of a model does, batch by batch, and never more than there is.

    Args:
        progress: where it counts.
        documents: documents of the call, times the share of their work that it does.
        texts: chunks that the model embeds.
        reused: chunks that keep the embedding they have.
    """

    def __init__(self, progress: ProgressFile, documents: float, texts: int, reused: int) -> None:
        self._progress = progress
        self._documents_a_text = documents / texts if texts else 0.0
        # What no batch tells of: documents without new chunks, and chunks that were embedded before.
        self._rest = 0.0 if texts else documents
        self._texts_left = texts
        self._reused = reused
        self._lock = threading.Lock()

    def on_batch(self, texts: int, tokens: int) -> None:
        """A batch is done; where some of its texts are embedded again, to find one to blame, they count once."""
        with self._lock:
            new = min(texts, self._texts_left)
            self._texts_left -= new
        self._progress.add(documents=new * self._documents_a_text, chunks=new, tokens=tokens)

    def finish(self) -> None:
        """The call has ended, and with it all that no batch told of."""
        with self._lock:
            left, self._texts_left = self._texts_left, 0
        documents = self._rest + left * self._documents_a_text
        self._progress.add(documents=documents, chunks=self._reused)


def read_progress(folder: str) -> dict[str, float]:
    """Add up the totals of all workers: `documents`, `chunks` and `tokens`; nothing where none has begun."""
    totals: dict[str, float] = {}
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if name.startswith("progress-") and name.endswith(".json"):
            with open(os.path.join(folder, name), "rb") as handle:
                for count, value in orjson.loads(handle.read()).items():
                    totals[count] = totals.get(count, 0) + value
    return totals


def ask_to_stop(folder: str) -> None:
    """Ask the workers of a run to stop; those that do not see its folder are stopped by their runner."""
    if files.is_local(folder) and os.path.isdir(folder):
        Path(folder, STOP).touch()
