"""Copies of a model that work side by side: threads that share one set of weights."""

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

Result = TypeVar("Result")

CORES_VARIABLE = "SEMANTIC_INGEST_CORES"

GPU_COPIES = 2
"""Threads that feed one GPU: while one waits for its results, the other's batch is computed."""


@dataclass(frozen=True, slots=True)
class Allocations:
    """How many copies of a model work at once, and with how many threads each.

    Attributes:
        threads: threads of one copy.
        least: copies that are kept ready.
        most: copies that a backlog can bring about.
    """

    threads: int
    least: int
    most: int


def allocations(settings: Mapping[str, Any], device: str = "cpu", cores: int | None = None) -> Allocations:
    """Read ``num_threads``, ``num_allocations`` and ``adaptive_allocations`` of an endpoint.

    On a CPU an explicit ``num_allocations`` is kept as it is. Adaptive allocations stop where every core has a
    thread: more copies than that only take turns.

    Args:
        settings: the endpoint's ``service_settings``.
        device: a GPU has its own way to compute in parallel: one copy feeds it while another prepares. More would only
            take memory, since each has a stream of its own, and PyTorch keeps memory for each stream apart.
        cores: cores that this process may use; None finds out.
    """
    if device != "cpu":
        return Allocations(1, 1, GPU_COPIES)
    threads = int(settings.get("num_threads") or 1)
    fitting = max(1, (cores or usable_cores()) // threads)
    adaptive = settings.get("adaptive_allocations") or {}
    if adaptive.get("enabled"):
        most = min(int(adaptive.get("max_number_of_allocations") or 32), fitting)
        return Allocations(threads, min(int(adaptive.get("min_number_of_allocations") or 0), most), most)
    fixed = settings.get("num_allocations")
    return Allocations(threads, int(fixed), int(fixed)) if fixed else Allocations(threads, 1, fitting)


def usable_cores() -> int:
    """Cores for the models of this process: its share where several worker processes are on one machine.

    The share is what the environment variable `CORES_VARIABLE` says; else it is what the system allows.
    """
    share = os.environ.get(CORES_VARIABLE, "")
    if share.isdigit() and int(share) > 0:
        return int(share)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


class Workers:
    """A pool of threads that grows with its backlog.

    A copy with several threads is as many workers with one thread each: the copies share their weights, and two
    batches side by side are faster than one batch cut in two.
    """

    def __init__(self, plan: Allocations, cores: int | None = None) -> None:
        """Open the pool: the least number of copies is ready at once, the others start when work waits.

        Args:
            plan: how many threads.
            cores: cores that all pools of this process share: that many threads compute at once, whosoever they are,
                because threads that take turns on a core spoil each other's caches. None for no such limit.
        """
        self.plan = plan
        self._turn: AbstractContextManager[object] = nullcontext() if cores is None else _turns(cores)
        self._pool = ThreadPoolExecutor(plan.most * plan.threads, "model-copy")
        ready = min(plan.least, plan.most) * plan.threads
        # Each of these waits for all the others, so that none of them can take the place of two.
        self._together = threading.Barrier(max(ready, 1))
        for _ in range(ready):
            self._pool.submit(self._together.wait)

    def submit(self, work: Callable[..., Result], *arguments: object) -> "Future[Result]":
        """Hand over work; a further worker starts if all that run are busy."""
        return self._pool.submit(self._work, work, *arguments)

    def _work(self, work: Callable[..., Result], *arguments: object) -> Result:
        with self._turn:
            return work(*arguments)

    def close(self) -> None:
        """Stop all workers; work not begun is dropped."""
        self._together.abort()
        self._pool.shutdown(wait=True, cancel_futures=True)


@lru_cache(maxsize=1)
def _turns(cores: int) -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(cores)
