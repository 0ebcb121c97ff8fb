"""Runners behind a job server: Flink, Spark and Prism."""

import json
import os
from typing import Any

from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions
from apache_beam.runners.portability.flink_runner import FlinkRunner
from apache_beam.runners.portability.job_server import JobServer

from pipeline.config.run_config import RunConfig, RunnerConfig
from pipeline.runners.worker_package import build_worker_package


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


def flink(config: RunnerConfig) -> dict[str, Any]:
    """Beam's options for Flink."""
    return {
        "flink_master": config.master or "[local]",
        "flink_version": config.flink_version,
        "flink_job_server_jar": config.job_server_jar,
        "parallelism": config.parallelism or 1,
        **_environment(config),
    }


def spark(config: RunnerConfig) -> dict[str, Any]:
    """Beam's options for Spark."""
    return {
        "spark_master_url": config.master or f"local[{config.parallelism or 1}]",
        "spark_job_server_jar": config.job_server_jar,
        **_environment(config),
    }


def prism(config: RunnerConfig) -> dict[str, Any]:
    """Beam's options for Prism."""
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


def portable_problems(config: RunConfig) -> list[str]:
    """Say what is wrong with a config for a runner behind a job server."""
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


def prism_problems(config: RunConfig) -> list[str]:
    """Say what is wrong with a config for Prism."""
    location = config.runner.prism_location
    if location is None:
        # Beam would download a binary and run it without checking a signature.
        return ["runner.prism_location: is required; see docs/runners.md for how to build a Prism binary"]
    if not os.path.isfile(location):
        return [f"runner.prism_location: [{location}] does not exist"]
    return portable_problems(config)
