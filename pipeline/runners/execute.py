"""Run a graph on the runner that the config names.

The runner is always named: Beam's default one downloads a binary first.
"""

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline.config.run_config import RunConfig, RunnerConfig
from pipeline.errors import ConfigError, PipelineError, original_error
from pipeline.memory import GRAPH_MEBIBYTES, require_address_space
from pipeline.runners.runner import Runner

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions


def runner_of(name: str) -> Runner:
    """The runner of a `runner.name`: a constant in the module of that name."""
    runner: Runner = getattr(import_module(f"pipeline.runners.{name}"), name.upper())
    return runner


def pipeline_options(config: RunnerConfig) -> "PipelineOptions":
    """Build the options of a runner; unknown ones in `runner.options` are Beam's to refuse."""
    from apache_beam.options.pipeline_options import PipelineOptions

    ours = {
        name: value for name, value in runner_of(config.name).options(config).items() if value is not None
    }
    # `experiments` is a list that both sides add to; for all else the config has the last word.
    return PipelineOptions.from_dictionary({**ours, **config.options, **_experiments(ours)})


def _experiments(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name == "experiments"}


def execute(
    config: RunConfig,
    build: Callable[["beam.Pipeline"], None],
    *,
    small: bool = False,
    on_start: Callable[[Any], None] = lambda result: None,
) -> None:
    """Build a graph and run it to its end.

    Args:
        config: the run config.
        build: adds the graph to a pipeline.
        small: whether the local runner does it in this process, since to start others takes longer than the work.
        on_start: gets Beam's result of a job that runs elsewhere, from which `embed_counts` can be asked.

    Raises:
        PipelineError: the runner failed or gave up, or too little address space is left for it.
        OSError: a file could not be read or written.
        KeyboardInterrupt: the run was stopped; SystemExit where it was by SIGTERM.
    """
    import apache_beam as beam

    require_address_space(GRAPH_MEBIBYTES)
    runner = config.runner.model_copy(update={"workers": 1}) if small else config.runner
    pipeline = beam.Pipeline(runner=create_runner(runner), options=pipeline_options(runner))
    with _labels_as_written():
        build(pipeline)
    try:
        state = _run_here(pipeline) if config.runner.name == "local" else _run_elsewhere(pipeline, on_start)
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


@contextmanager
def _labels_as_written() -> Iterator[None]:
    """Build a graph in a notebook as anywhere else.

    In IPython Beam puts the number of the cell before a graph's labels. For that it imports its own data frames, which
    pandas 3 makes impossible: they ask for methods that it no longer has (`DataFrame.first`).
    """
    from apache_beam import pipeline

    beams_own = pipeline.alter_label_if_ipython
    pipeline.alter_label_if_ipython = lambda transform, pvalueish: None
    try:
        yield
    finally:
        pipeline.alter_label_if_ipython = beams_own


def _run_here(pipeline: "beam.Pipeline") -> str:
    """Run a job in a thread, so that who waits for it can be interrupted; Beam itself waits for its threads."""
    ended: Future[str] = Future()

    def work() -> None:
        try:
            ended.set_result(str(pipeline.run().wait_until_finish()))
        except BaseException as error:
            ended.set_exception(error)

    threading.Thread(target=work, name="graph", daemon=True).start()
    return ended.result()


def _run_elsewhere(pipeline: "beam.Pipeline", on_start: Callable[[Any], None]) -> str:
    """Wait for a job; a run that is stopped takes its job along instead of leaving it to the cluster."""
    interrupt = signal.getsignal(signal.SIGINT)
    result = pipeline.run()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, interrupt)  # a job server takes the signal for itself
    on_start(result)
    try:
        return str(result.wait_until_finish())
    except (KeyboardInterrupt, SystemExit):
        result.cancel()
        raise


def embed_counts(result: Any, fields: int) -> dict[str, float]:
    """What a job that runs elsewhere has embedded so far, as far as its runner tells while it works.

    Args:
        result: Beam's result of the job.
        fields: semantic fields; each of them counts a document.
    """
    from apache_beam.metrics import MetricsFilter

    found = result.metrics().query(MetricsFilter().with_namespace("embed"))["counters"]
    counts: dict[str, float] = {}
    for metric in found:
        name = str(metric.key.metric.name).removesuffix("_embedded")
        counts[name] = counts.get(name, 0) + float(metric.attempted or metric.committed or 0)
    return {**counts, "documents": counts.get("documents", 0) / max(fields, 1)}


def create_runner(config: RunnerConfig) -> Any:
    """Return the runner to give to `beam.Pipeline`; the graphs of a run share it, and so its job server."""
    from pipeline.runners.local import choose_workers

    return _runner(config.name, choose_workers(config, 0))


@functools.cache
def _runner(name: str, workers: int) -> Any:
    return runner_of(name).create(workers)


def check_runner(config: RunConfig) -> None:
    """Check that the runner has what it needs and that its workers can see what the config names.

    Raises:
        ConfigError: with every problem.
    """
    problems = runner_of(config.runner.name).problems(config)
    if problems:
        raise ConfigError("run config", problems)
