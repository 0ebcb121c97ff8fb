"""Runner name -> Beam runner and options. The runner is always named: Beam's default one downloads a binary first."""

import functools
import json
import os
import shlex
import sys
from collections.abc import Callable
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions
from apache_beam.runners.portability.flink_runner import FlinkRunner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.job_server import JobServer
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from models.workers import CORES_VARIABLE, usable_cores
from pipeline.config import RunConfig, RunnerConfig
from pipeline.errors import ConfigError, PipelineError, original_error
from pipeline.worker_package import build_worker_package
from transforms import files


def pipeline_options(config: RunnerConfig) -> PipelineOptions:
    """Build the options of a runner; unknown ones in `runner.options` are Beam's to refuse."""
    ours = {name: value for name, value in _OPTIONS[config.name](config).items() if value is not None}
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
    if name == "local" and workers > 1:
        return FnApiRunner(SubprocessSDKEnvironment.from_command_string(_worker_command(workers)))
    return _RUNNERS[name]()


def _worker_command(workers: int) -> str:
    """Shell command of a local worker process; it takes its share of the cores instead of all of them."""
    cores = os.environ.get(CORES_VARIABLE) or str(max(1, usable_cores() // workers))
    share = shlex.quote(f"{CORES_VARIABLE}={cores}")
    return f"exec env {share} {shlex.quote(sys.executable)} -m transforms.local_worker"


class SharedJobServerFlinkRunner(FlinkRunner):
    """Keeps its job server for all graphs of a run; it stops when the program ends."""

    def __init__(self) -> None:
        super().__init__()
        self._servers: dict[tuple[str | None, str], JobServer] = {}

    def default_job_server(self, options: PipelineOptions) -> JobServer:
        """Start a job server, or return the one that is running."""
        values = options.view_as(FlinkRunnerOptions)
        key = (values.flink_job_server_jar, values.flink_master)
        if key not in self._servers:
            self._servers[key] = super().default_job_server(options)
        return self._servers[key]


def _local(config: RunnerConfig) -> dict[str, Any]:
    return {"direct_num_workers": config.workers, "default_sdk_harness_log_level": "WARNING"}


def _flink(config: RunnerConfig) -> dict[str, Any]:
    return {
        "flink_master": config.master or "[local]",
        "flink_version": config.flink_version,
        "flink_job_server_jar": config.job_server_jar,
        "parallelism": config.parallelism or 1,
        **_environment(config),
    }


def _spark(config: RunnerConfig) -> dict[str, Any]:
    return {
        "spark_master_url": config.master or f"local[{config.parallelism or 1}]",
        "spark_job_server_jar": config.job_server_jar,
        **_environment(config),
    }


def _prism(config: RunnerConfig) -> dict[str, Any]:
    return {"prism_location": config.prism_location, "prism_log_level": "warn", **_environment(config)}


def _environment(config: RunnerConfig) -> dict[str, Any]:
    """Where a portable runner's workers run, and our code for those that start from an image."""
    environment = config.environment or ("LOOPBACK" if _is_embedded(config) else "DOCKER")
    in_docker = environment == "DOCKER"
    return {
        "environment_type": environment,
        "environment_config": config.environment_config or (config.worker_image if in_docker else None),
        "extra_packages": [build_worker_package()] if in_docker else None,
    }


def _is_embedded(config: RunnerConfig) -> bool:
    """Whether the engine runs on this machine, inside its job server."""
    return config.name == "prism" or (config.master or "[local]").startswith(("[", "local"))


def _dataflow(config: RunnerConfig) -> dict[str, Any]:
    experiments = config.options.get("experiments") or []
    experiments = [experiments] if isinstance(experiments, str) else list(experiments)
    if config.accelerator:
        # One SDK process a machine, so that its GPU holds one copy of each model.
        experiments.append("no_use_multiple_sdk_containers")
    return {
        "project": config.project,
        "region": config.region,
        "temp_location": config.temp_location,
        "staging_location": config.staging_location,
        "machine_type": config.machine_type,
        "max_num_workers": config.max_workers,
        "sdk_container_image": config.worker_image,
        "extra_packages": [build_worker_package()],
        "experiments": experiments or None,
    }


def check_runner(config: RunConfig) -> None:
    """Check that the runner has what it needs and that its workers can see what the config names.

    Raises:
        ConfigError: with every problem.
    """
    problems = _PROBLEMS[config.runner.name](config)
    if problems:
        raise ConfigError("run config", problems)


def _local_problems(config: RunConfig) -> list[str]:
    return []


def _portable_problems(config: RunConfig) -> list[str]:
    runner = config.runner
    problems = []
    jar = runner.job_server_jar
    if jar is not None and "://" not in jar and not os.path.isfile(jar):
        problems.append(
            f"runner.job_server_jar: [{jar}] does not exist; see docs/runners.md for how to get it"
        )
    if runner.environment == "EXTERNAL" and not runner.environment_config:
        problems.append("runner.environment_config: EXTERNAL needs the address of the worker pool, host:port")
    if runner.environment == "PROCESS" and not _has_command(runner.environment_config):
        problems.append(
            'runner.environment_config: PROCESS needs JSON like {"command": "/opt/apache/beam/boot"}'
        )
    if runner.environment == "LOOPBACK" and not _is_embedded(runner):
        problems.append(
            f"runner.environment: LOOPBACK workers are part of this process, and the cluster [{runner.master}] may "
            "not reach it; use EXTERNAL, PROCESS or DOCKER"
        )
    return problems


def _has_command(environment_config: str | None) -> bool:
    try:
        return "command" in json.loads(environment_config or "")
    except (ValueError, TypeError):
        return False


def _prism_problems(config: RunConfig) -> list[str]:
    location = config.runner.prism_location
    if location is None:
        # Beam would download a binary and run it without checking a signature.
        return ["runner.prism_location: is required; see docs/runners.md for how to build a Prism binary"]
    if not os.path.isfile(location):
        return [f"runner.prism_location: [{location}] does not exist"]
    return _portable_problems(config)


def _dataflow_problems(config: RunConfig) -> list[str]:
    runner = config.runner
    problems = [
        f"runner.{name}: is required by Dataflow"
        for name in ("project", "region", "temp_location")
        if getattr(runner, name) is None
    ]
    places = {"table.path": [config.table.path], "source.path": config.source.paths}
    problems += [
        f"{name}: [{path}] is a local path, which Dataflow's workers cannot see; use gs://"
        for name, paths in places.items()
        for path in paths
        if files.is_local(path)
    ]
    service_options = str(runner.options.get("dataflow_service_options") or "")
    if runner.accelerator and "worker_accelerator" in service_options:
        problems.append(
            "runner.accelerator: is a resource hint of the embed stage and cannot be combined with worker_accelerator "
            "in runner.options.dataflow_service_options, which puts the device into every worker; keep one of them"
        )
    if runner.accelerator and runner.options.get("flexrs_goal"):
        problems.append("runner.accelerator: cannot be combined with runner.options.flexrs_goal")
    if runner.accelerator and runner.worker_image is None:
        problems.append("runner.worker_image: a GPU needs an image with CUDA; see the Dockerfile")
    return problems


_OPTIONS: dict[str, Callable[[RunnerConfig], dict[str, Any]]] = {
    "local": _local,
    "flink": _flink,
    "spark": _spark,
    "prism": _prism,
    "dataflow": _dataflow,
}

_RUNNERS: dict[str, Callable[[], Any]] = {
    "local": FnApiRunner,
    "flink": SharedJobServerFlinkRunner,
    "spark": lambda: "SparkRunner",
    "prism": lambda: "PrismRunner",
    "dataflow": lambda: "DataflowRunner",
}

_PROBLEMS: dict[str, Callable[[RunConfig], list[str]]] = {
    "local": _local_problems,
    "flink": _portable_problems,
    "spark": _portable_problems,
    "prism": _prism_problems,
    "dataflow": _dataflow_problems,
}
