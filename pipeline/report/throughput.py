"""How fast documents become embeddings: counts sampled while a run works, for the chart, the bar and the log."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType

from pipeline.report.run_json import Sample

MOST_SAMPLES = 240
"""When there are more, every second one is dropped and the interval doubles: any run fits one chart."""

RECENT_SECONDS = 10.0
"""The rate that is shown is that of so many last seconds."""

Counts = Callable[[], Mapping[str, float]]
"""Gives the `documents`, `chunks` and `tokens` so far; nothing before the first batch."""


@dataclass(frozen=True)
class Progress:
    """How far a stage is.

    Attributes:
        documents: documents that are embedded; one of which only some fields or chunks are counts in part.
        total: documents that there are to embed.
        chunks: chunks that have an embedding.
        tokens: tokens that the models saw.
        tokens_per_second: of the last seconds.
        chunks_per_second: of the last seconds.
        seconds_left: at the pace since the first batch; None before it is known.
    """

    documents: float
    total: int
    chunks: int
    tokens: int
    tokens_per_second: float = 0.0
    chunks_per_second: float = 0.0
    seconds_left: float | None = None


class Throughput:
    """The samples of one stage, those of the last seconds apart from the thinned ones of all its time.

    Attributes:
        samples: what was found, in order.

    Args:
        total: documents that there are to embed.
    """

    def __init__(self, total: int) -> None:
        self.samples: list[Sample] = []
        self._total = total
        self._recent: deque[Sample] = deque()
        self._first: Sample | None = None
        self._step = 0.0
        self._newest_is_extra = False

    def add(self, sample: Sample) -> None:
        """Take one more sample."""
        if sample[2] and self._first is None:
            self._first = (
                sample  # models are loaded and a batch is done: from here on the pace is that of the work
            )
        self._recent.append(sample)
        while sample[0] - self._recent[0][0] > RECENT_SECONDS:
            self._recent.popleft()
        if self._newest_is_extra:
            self.samples.pop()
        self.samples.append(sample)
        # The newest sample always stands at the end; it stays there if it is a step away from the one before.
        self._newest_is_extra = len(self.samples) > 1 and sample[0] - self.samples[-2][0] < self._step
        if len(self.samples) > MOST_SAMPLES:
            self._step = 2 * max(self._step, sample[0] / MOST_SAMPLES)
            self.samples = self.samples[1::2]

    def progress(self) -> Progress:
        """How far the stage is."""
        if not self._recent:
            return Progress(0, self._total, 0, 0)
        oldest, newest = self._recent[0], self._recent[-1]
        seconds = max(newest[0] - oldest[0], 0.001)
        rates = [(newest[column] - oldest[column]) / seconds for column in (2, 3)]
        return Progress(
            newest[1], self._total, newest[2], newest[3], rates[1], rates[0], self._seconds_left()
        )

    def _seconds_left(self) -> float | None:
        newest = self._recent[-1]
        if self._first is None or newest[1] <= self._first[1]:
            return None
        pace = (newest[0] - self._first[0]) / (newest[1] - self._first[1])
        return max(self._total - newest[1], 0.0) * pace


class Sampler:
    """Samples the counts of a stage from a thread of its own.

    Args:
        counts: what is done so far; None samples nothing.
        total: documents that there are to embed.
        on_sample: told after each sample.
        interval: seconds between samples.
    """

    def __init__(
        self,
        counts: Counts | None,
        total: int = 0,
        on_sample: Callable[[Progress], None] | None = None,
        interval: float = 0.5,
    ) -> None:
        self.throughput = Throughput(total)
        self._counts = counts
        self._on_sample = on_sample
        self._interval = interval
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="throughput", daemon=True)

    def __enter__(self) -> "Sampler":
        self._begun = time.monotonic()
        if self._counts is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._counts is not None:
            self._thread.join()
            self._sample()

    def _follow(self) -> None:
        while not self._ended.wait(self._interval):
            self._sample()

    def _sample(self) -> None:
        assert self._counts is not None
        try:
            found = self._counts()
        except (OSError, ValueError):
            return  # a file was replaced while it was read; the next sample has it
        seconds = round(time.monotonic() - self._begun, 3)
        chunks, tokens = (int(found.get(name, 0)) for name in ("chunks", "tokens"))
        self.throughput.add((seconds, round(found.get("documents", 0.0), 2), chunks, tokens))
        if self._on_sample is not None:
            self._on_sample(self.throughput.progress())
