"""Run a graph on the runner that the config names.

The runner is always named: Beam's default one downloads a binary first.
"""

import functools
from collections.abc import Callable
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.config.run_config import RunConfig, RunnerConfig
from pipeline.errors import ConfigError, PipelineError, original_error
from pipeline.runners.dataflow import DATAFLOW
from pipeline.runners.flink import FLINK
from pipeline.runners.local import LOCAL
from pipeline.runners.prism import PRISM
from pipeline.runners.runner import Runner
from pipeline.runners.spark import SPARK

RUNNERS: dict[str, Runner] = {
    "local": LOCAL,
    "flink": FLINK,
    "spark": SPARK,
    "prism": PRISM,
    "dataflow": DATAFLOW,
}
"""`runner.name` in the config -> the runner."""


def pipeline_options(config: RunnerConfig) -> PipelineOptions:
    """Build the options of a runner; unknown ones in `runner.options` are Beam's to refuse."""
    ours = {name: value for name, value in RUNNERS[config.name].options(config).items() if value is not None}
    # `experiments` is a list that both sides add to; for all else the config has the last word.
    return PipelineOptions.from_dictionary({**ours, **config.options, **_experiments(ours)})


def _experiments(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name == "experiments"}


def execute(config: RunConfig, build: Callable[[beam.Pipeline], None], *, small: bool = False) -> None:
    """Build a graph and run it to its end.

    Args:
        config: the run config.
        build: adds the graph to a pipeline.
        small: whether the local runner does it in this process, since to start others takes longer than the work.

    Raises:
        PipelineError: the runner failed or gave up.
        OSError: a file could not be read or written.
        KeyboardInterrupt: the run was stopped; SystemExit where it was by SIGTERM.
    """
    runner = config.runner.model_copy(update={"workers": 1}) if small else config.runner
    pipeline = beam.Pipeline(runner=create_runner(runner), options=pipeline_options(runner))
    build(pipeline)
    try:
        state = _wait(pipeline.run())
    except Exception as error:
        # Beam wraps whatever a stage raises, Ctrl-C included, in an error of its own.
        original = original_error(error)
        if original is error and isinstance(error, RuntimeError) and config.runner.name != "local":
            # Of a stage's error on another engine only the text arrives: two tracebacks and, last, what it says.
            said = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise PipelineError(
                f"the {config.runner.name} runner failed; nothing was published: {said[-1]}"
            ) from None
        raise original from None
    if state != "DONE":
        raise PipelineError(f"the {config.runner.name} runner ended in state {state}; nothing was published")


def _wait(result: Any) -> str:
    """Wait for a job; a run that is stopped takes its job along instead of leaving it to the cluster."""
    try:
        return str(result.wait_until_finish())
    except (KeyboardInterrupt, SystemExit):
        result.cancel()
        raise


def create_runner(config: RunnerConfig) -> Any:
    """Return the runner to give to `beam.Pipeline`; the graphs of a run share it, and so its job server."""
    return _runner(config.name, config.workers)


@functools.cache
def _runner(name: str, workers: int) -> Any:
    return RUNNERS[name].create(workers)


def check_runner(config: RunConfig) -> None:
    """Check that the runner has what it needs and that its workers can see what the config names.

    Raises:
        ConfigError: with every problem.
    """
    problems = RUNNERS[config.runner.name].problems(config)
    if problems:
        raise ConfigError("run config", problems)
