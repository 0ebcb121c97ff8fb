"""Beam's local runner, in this process or in worker processes."""

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from models.local.engine.workers import CORES_VARIABLE, usable_cores
from pipeline.config.run_config import RunConfig, RunnerConfig
from pipeline.runners.runner import Runner


def _create(workers: int) -> Any:
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    if workers == 1:
        return FnApiRunner()
    return FnApiRunner(SubprocessSDKEnvironment.from_command_string(worker_command(workers)))


def worker_command(workers: int) -> str:
    """Shell command of a local worker process; it takes its share of the cores instead of all of them."""
    cores = os.environ.get(CORES_VARIABLE) or str(max(1, usable_cores() // workers))
    share = shlex.quote(f"{CORES_VARIABLE}={cores}")
    # Our packages, and not what lies in the working folder: a user may have a pipeline.py or a models/ of their own.
    ours = str(Path(__file__).parents[2])
    path = shlex.quote("PYTHONPATH=" + os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH")])))
    return f"exec env {share} {path} {shlex.quote(sys.executable)} -P -m pipeline.runners.local_worker"


def _options(config: RunnerConfig) -> dict[str, Any]:
    return {"direct_num_workers": config.workers, "default_sdk_harness_log_level": "WARNING"}


def _problems(config: RunConfig) -> list[str]:
    return []


LOCAL = Runner(_create, _options, _problems)
