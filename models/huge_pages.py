"""Memory in pages of 2 MB, where the system has them.

A model's weights are read from end to end for every batch. In pages of 4 KB, finding the pages takes a good part of the
time (docs/performance.md).
"""

import mmap
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_PAGE = 1 << 21
_LINE = 64


def zeros(size: int) -> "torch.Tensor":
    """Return `size` zeros, float32."""
    import torch

    return _allocate(4 * size)[: 4 * size].view(torch.float32)


def moved(tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
    """Return copies of tensors, one behind the other, each beginning a cache line."""
    sizes = [-(-tensor.nbytes // _LINE) * _LINE for tensor in tensors]
    memory, copies, start = _allocate(sum(sizes)), [], 0
    for tensor, size in zip(tensors, sizes, strict=True):
        place = memory[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        copies.append(place.copy_(tensor))
        start += size
    return copies


def _allocate(size: int) -> "torch.Tensor":
    """Return `size` zero bytes; they are given back with the last tensor that looks at them."""
    import torch

    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(size, dtype=torch.uint8)
    # One page more, since the first may begin anywhere.
    memory = mmap.mmap(-1, size + _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a system that has no such pages has the others
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)
