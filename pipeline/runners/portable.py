"""What the runners behind a job server (Flink, Spark, Prism) have in common: where their workers run."""

import json
import os
from typing import Any

from pipeline.config.run_config import RunConfig, RunnerConfig
from pipeline.runners.worker_package import build_worker_package


def worker_environment(config: RunnerConfig) -> dict[str, Any]:
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
