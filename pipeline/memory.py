"""Limits of memory: what `ulimit -v` leaves is looked at before libraries run out of it, and told in a sentence."""

import os
import resource
from pathlib import Path

from pipeline.errors import PipelineError

MEBIBYTE = 1 << 20

START_MEBIBYTES = 2800
"""What the thread pools of Arrow, Delta Lake and tantivy reserve: 2.6 GB on two cores, of which little is used."""

GRAPH_MEBIBYTES = 768
"""What Beam and its threads reserve for a graph in this process: 500 MB, with room."""

_OUT_OF_MEMORY = (
    "can't start new thread",
    "failed to map segment",
    "Cannot allocate memory",
    "memory allocation",
)


def require_address_space(mebibytes: int) -> None:
    """Refuse to go on where too little address space is left.

    Libraries below Python end in a crash where it runs out, or wait for ever for a thread that could not start.

    Args:
        mebibytes: so much is needed.

    Raises:
        PipelineError: a limit leaves less.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    left = (limit - _address_space()) // MEBIBYTE
    if limit != resource.RLIM_INFINITY and left < mebibytes:
        raise PipelineError(
            f"there is not enough memory: ulimit -v [{limit // 1024}] leaves {max(left, 0):,} MiB of address space and "
            f"{mebibytes:,} MiB more are needed; raise it to {limit // 1024 + (mebibytes - left) * 1024} or more"
        )


def _address_space() -> int:
    """Bytes of address space that this process has; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, says that there is not enough memory, as it does under ``ulimit -v``."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        if isinstance(error, RuntimeError | ImportError) and any(
            text in str(error) for text in _OUT_OF_MEMORY
        ):
            return True
        error = error.__cause__ or error.__context__
    return False
