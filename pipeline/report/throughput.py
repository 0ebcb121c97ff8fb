"""Throughput over time: what the workers' progress files say, sampled while a run works."""

import threading
import time
from types import TracebackType

from pipeline.report.summary import Sample
from transforms.handover.progress import read_progress

MOST_SAMPLES = 240
"""When there are more, every second one is dropped and the interval doubles: any run fits one chart."""


class Sampler:
    """Samples the progress of a stage from a thread of its own.

    Attributes:
        samples: what was found, in order.

    Args:
        folder: where the workers leave their progress; None samples nothing.
        interval: seconds between samples, at first.
    """

    def __init__(self, folder: str | None, interval: float = 0.5) -> None:
        self.samples: list[Sample] = []
        self._folder = folder
        self._interval = interval
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="throughput", daemon=True)

    def __enter__(self) -> "Sampler":
        self._begun = time.monotonic()
        if self._folder is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._folder is not None:
            self._thread.join()
            self._sample()

    def _follow(self) -> None:
        while not self._ended.wait(self._interval):
            self._sample()

    def _sample(self) -> None:
        assert self._folder is not None
        try:
            totals = read_progress(self._folder)
        except (OSError, ValueError):
            return  # a file was replaced while it was read; the next sample has it
        counts = (int(totals[name]) for name in ("documents", "chunks", "tokens"))
        documents, chunks, tokens = counts
        self.samples.append((round(time.monotonic() - self._begun, 3), documents, chunks, tokens))
        if len(self.samples) > MOST_SAMPLES:
            self.samples = self.samples[1::2]
            self._interval *= 2
