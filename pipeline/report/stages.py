"""The stages of a run: timed, shown while they work, and sampled."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Literal

from pipeline.report.progress import Shows, progress_bar, progress_lines
from pipeline.report.run_json import Sample, Stage
from pipeline.report.throughput import Counts, Sampler

View = Literal["bar", "lines"]
"""How progress is shown: a bar for a person at a terminal, lines for a log."""


class Stages:
    """What is known of the stages so far.

    Attributes:
        ended: the stages that have ended, in order.
        samples: throughput while documents were embedded.
        counts: what the workers have done so far; None where nobody knows.
    """

    def __init__(self, view: View | None) -> None:
        """Follow stages.

        Args:
            view: how their progress is shown; None shows nothing.
        """
        self.ended: list[Stage] = []
        self.samples: list[Sample] = []
        self.counts: Counts | None = None
        self._view = view

    @contextmanager
    def follow(self, name: str, documents: int = 0) -> Iterator[None]:
        """Time one stage and show its progress; where it works on documents, sample it too."""
        begun, started = time.perf_counter(), datetime.now(UTC)
        sampler: Sampler | None = None
        try:
            with self._shown(name, documents) as show:
                sampler = Sampler(self._counts if documents else None, documents, show)
                with sampler:
                    yield
        finally:
            self.samples += sampler.throughput.samples if sampler is not None else []
            self.ended.append(Stage(name, started.isoformat(), round(time.perf_counter() - begun, 3)))

    def _shown(self, name: str, documents: int) -> AbstractContextManager[Shows | None]:
        if self._view is None:
            return nullcontext()
        return progress_bar(name, documents) if self._view == "bar" else progress_lines(name, documents)

    def _counts(self) -> dict[str, float]:
        """What is done so far; who counts it may become known only when the graph runs."""
        return {} if self.counts is None else dict(self.counts())

    @property
    def timings(self) -> dict[str, float]:
        """Stage -> seconds; a stage that ran twice counts both times."""
        seconds: dict[str, float] = {}
        for stage in self.ended:
            seconds[stage.name] = round(seconds.get(stage.name, 0.0) + stage.seconds, 3)
        return seconds
