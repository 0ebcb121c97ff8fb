"""Beam's local runner, in this process or in worker processes."""

import os
import shlex
import sys
from typing import Any

from models.local.workers import CORES_VARIABLE, usable_cores
from pipeline.config.run_config import RunConfig, RunnerConfig


def worker_command(workers: int) -> str:
    """Shell command of a local worker process; it takes its share of the cores instead of all of them."""
    cores = os.environ.get(CORES_VARIABLE) or str(max(1, usable_cores() // workers))
    share = shlex.quote(f"{CORES_VARIABLE}={cores}")
    return f"exec env {share} {shlex.quote(sys.executable)} -m pipeline.runners.local_worker"


def local(config: RunnerConfig) -> dict[str, Any]:
    """Beam's options for the local runner."""
    return {"direct_num_workers": config.workers, "default_sdk_harness_log_level": "WARNING"}


def local_problems(config: RunConfig) -> list[str]:
    """Nothing can be wrong with the local runner."""
    return []
