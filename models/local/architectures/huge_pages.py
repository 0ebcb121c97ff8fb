"""Memory in pages of 2 MB, where the system has them.

A model's weights are read from end to end for every batch. In pages of 4 KB, finding the pages takes a good part of the
time (docs/performance.md).
"""

import mmap
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

_PAGE = 1 << 21
_LINE = 64


def zeros(size: int) -> npt.NDArray[np.float32]:
    """Return `size` zeros."""
    return _allocate(4 * size)[: 4 * size].view(np.float32)


def moved(arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """Return copies of arrays, one behind the other, each beginning a cache line."""
    sizes = [-(-array.nbytes // _LINE) * _LINE for array in arrays]
    memory, copies, start = _allocate(sum(sizes)), [], 0
    for array, size in zip(arrays, sizes, strict=True):
        place = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        place[...] = array
        copies.append(place)
        start += size
    return copies


def _allocate(size: int) -> npt.NDArray[np.uint8]:
    """Return `size` zero bytes; they are given back with the last array that looks at them."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.zeros(size, np.uint8)
    # One page more, since the first may begin anywhere.
    try:
        memory = mmap.mmap(-1, size + _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"{size} bytes are not to be had") from error
    with suppress(OSError):  # a system that has no such pages has the others
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)
