"""Beam's local runner, in this process or in worker processes."""

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from models.local.device import gpu_count
from models.local.engine.workers import CORES_VARIABLE, usable_cores
from pipeline.config.run_config import RunConfig, RunnerConfig
from pipeline.runners.runner import Runner
from transforms.parent import LAUNCHER_VARIABLE


def _create(workers: int) -> Any:
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    if workers == 1:
        return FnApiRunner()
    return FnApiRunner(SubprocessSDKEnvironment.from_command_string(worker_command(workers)))


def worker_command(workers: int) -> str:
    """Shell command of a local worker process; it takes its share of the cores instead of all of them."""
    cores = os.environ.get(CORES_VARIABLE) or str(max(1, usable_cores() // workers))
    # The shell asks for its parent, since this process may be forked before it starts a worker.
    share = f"{shlex.quote(f'{CORES_VARIABLE}={cores}')} {LAUNCHER_VARIABLE}=$PPID"
    # Our packages, and not what lies in the working folder: a user may have a pipeline.py or a models/ of their own.
    ours = str(Path(__file__).parents[2])
    path = shlex.quote("PYTHONPATH=" + os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH")])))
    return f"exec env {share} {path} {shlex.quote(sys.executable)} -P -m pipeline.runners.local_worker"


LARGE_WEIGHTS = 1 << 30
"""Bytes of weights from which on a model keeps a GPU busy alone: 0.3 billion parameters and more."""

CORES_A_WORKER, WORKERS_A_GPU = 2, 8
"""Cores that a worker for a GPU needs to read, chunk and write, and workers beyond which a GPU gains nothing."""


def choose_workers(config: RunnerConfig, weight_bytes: int) -> int:
    """The number of worker processes that the config asks for.

    Args:
        config: where ``workers: auto`` asks for as many as are of use.
        weight_bytes: of the largest model.
    """
    if config.workers != "auto":
        return config.workers
    gpus = 0 if config.device == "cpu" else gpu_count()
    if not gpus:
        return 1  # which uses all cores
    if config.device not in (None, "cuda"):
        gpus = 1
    if weight_bytes >= LARGE_WEIGHTS:
        return gpus
    return max(gpus, min(usable_cores() // CORES_A_WORKER, WORKERS_A_GPU * gpus))


def _options(config: RunnerConfig) -> dict[str, Any]:
    return {"direct_num_workers": choose_workers(config, 0), "default_sdk_harness_log_level": "WARNING"}


def _problems(config: RunConfig) -> list[str]:
    return []


LOCAL = Runner(_create, _options, _problems)
