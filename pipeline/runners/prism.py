"""Prism, Beam's own portable runner: one binary on this machine."""

import os
from typing import Any

from pipeline.config.run_config import RunConfig, RunnerConfig
from pipeline.runners.portable import portable_problems, worker_environment
from pipeline.runners.runner import Runner


def _options(config: RunnerConfig) -> dict[str, Any]:
    return {
        "prism_location": config.prism_location,
        "prism_log_level": "warn",
        **worker_environment(config),
    }


def _problems(config: RunConfig) -> list[str]:
    location = config.runner.prism_location
    if location is None:
        # Beam would download a binary and run it without checking a signature.
        return ["runner.prism_location: is required; see docs/runners.md for how to build a Prism binary"]
    if not os.path.isfile(location):
        return [f"runner.prism_location: [{location}] does not exist"]
    return portable_problems(config)


PRISM = Runner(lambda workers: "PrismRunner", _options, _problems)
