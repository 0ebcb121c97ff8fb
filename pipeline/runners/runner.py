"""What a runner is to a run: how it is made, which of Beam's options it gets, and what must be right for it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.config.run_config import RunConfig, RunnerConfig


@dataclass(frozen=True)
class Runner:
    """One way to run the graphs.

    Attributes:
        create: makes what `beam.Pipeline` takes as its runner, for a number of local worker processes.
        options: Beam's options for a config; None leaves an option to Beam.
        problems: what is wrong with a config for this runner, each a sentence with its place in the config.
    """

    create: Callable[[int], Any]
    options: Callable[[RunnerConfig], dict[str, Any]]
    problems: Callable[[RunConfig], list[str]]
