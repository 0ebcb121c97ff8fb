"""The stages of a run: timed, shown while they work, and sampled."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime

from pipeline.report.progress import progress_bar
from pipeline.report.summary import Sample, Stage
from pipeline.report.throughput import Sampler


class Stages:
    """What is known of the stages so far.

    Attributes:
        ended: the stages that have ended, in order.
        samples: throughput while documents were embedded.
        progress_folder: where workers leave their progress; None for none.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.ended: list[Stage] = []
        self.samples: list[Sample] = []
        self.progress_folder: str | None = None
        self._quiet = quiet

    @contextmanager
    def follow(self, name: str, documents: int = 0) -> Iterator[None]:
        """Time one stage and show its progress; where it works on documents, sample it too."""
        begun, started = time.perf_counter(), datetime.now(UTC)
        folder = self.progress_folder
        sampler = Sampler(folder if documents else None)
        try:
            with sampler, nullcontext() if self._quiet else progress_bar(name, documents, folder):
                yield
        finally:
            self.samples += sampler.samples
            self.ended.append(Stage(name, started.isoformat(), round(time.perf_counter() - begun, 3)))

    @property
    def timings(self) -> dict[str, float]:
        """Stage -> seconds; a stage that ran twice counts both times."""
        seconds: dict[str, float] = {}
        for stage in self.ended:
            seconds[stage.name] = round(seconds.get(stage.name, 0.0) + stage.seconds, 3)
        return seconds
