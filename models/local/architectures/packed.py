"""PyTorch on batches of texts without padding: all their tokens end to end."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from models.local.batching import TokenBatch

if TYPE_CHECKING:
    import torch


Output = TypeVar("Output")


class Group(NamedTuple):
    """Neighbouring texts of equal length.

    Attributes:
        start: their first token in the batch.
        texts: how many texts.
        length: tokens of each.
    """

    start: int
    texts: int
    length: int

    @property
    def tokens(self) -> slice:
        """Their tokens in the batch."""
        return slice(self.start, self.start + self.texts * self.length)


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Token ids of several texts, ordered by length.

    Attributes:
        ids: integer tensor [tokens].
        lengths: tokens of each text.
    """

    ids: "torch.Tensor"
    lengths: Sequence[int]

    def groups(self) -> Iterator[Group]:
        """Group the texts by length."""
        start = 0
        for length, same in groupby(self.lengths):
            texts = len(list(same))
            yield Group(start, texts, length)
            start += texts * length

    def positions(self) -> "torch.Tensor":
        """Each token's place in its text: int64 [tokens], on the batch's device."""
        import torch

        return torch.cat([torch.arange(length, device=self.ids.device) for length in self.lengths])

    def ends(self) -> "torch.Tensor":
        """Where each text ends, with a 0 before: int32 [texts + 1], on the batch's device."""
        import torch

        ends = torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32)
        return ends.to(self.ids.device, non_blocking=True)


class Encoder(Protocol):
    """A transformer that is ready to run."""

    def forward(self, batch: PackedBatch) -> "torch.Tensor":
        """Return the last hidden states [tokens, hidden]."""
        ...


class OnDevice(Generic[Output]):
    """A computation in PyTorch on one device. Safe to call from several threads, each of which computes alone."""

    def __init__(self, compute: Callable[[PackedBatch], Output], device: str) -> None:
        """Wrap `compute`, whose model is on `device` already."""
        self._compute, self._device = compute, device

    def __call__(self, batch: TokenBatch) -> Output:
        """Compute a batch.

        Raises:
            MemoryError: the batch does not fit into the device's memory.
        """
        import torch

        stream = self._stream()
        # Anything else would let bfloat16 into float32 products, and a table would mix embeddings of two precisions.
        if torch.get_float32_matmul_precision() != "highest":
            torch.set_float32_matmul_precision("highest")
        with torch.inference_mode(), stream:
            try:
                return self._compute(self._put(batch))
            except torch.OutOfMemoryError:
                pass
        # Outside of the handler, where the traceback no longer holds the tensors that filled the memory.
        if self._device != "cpu":
            torch.cuda.empty_cache()
        raise MemoryError(
            f"a batch of {len(batch.ids)} tokens does not fit into the memory of [{self._device}]"
        )

    def _put(self, batch: TokenBatch) -> PackedBatch:
        import torch

        ids = torch.from_numpy(batch.ids)
        if self._device != "cpu":
            ids = ids.pin_memory().to(self._device, non_blocking=True)
        return PackedBatch(ids, batch.lengths.tolist())

    def _stream(self) -> AbstractContextManager[object]:
        """On a GPU each thread has a stream of its own, so that one copies while another computes."""
        import torch

        if not hasattr(_THREAD, "streams"):
            _use_one_thread()
            _THREAD.streams = {}
        if self._device == "cpu":
            return nullcontext()
        if self._device not in _THREAD.streams:
            _THREAD.streams[self._device] = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        return torch.cuda.stream(_THREAD.streams[self._device])


_THREAD = threading.local()
_SETTING_THREADS = threading.Lock()


def _use_one_thread() -> None:
    """Let the calling thread compute alone.

    torch keeps the number of threads per thread, but a new thread takes the number that was set last anywhere. So
    another thread sets the old number again.
    """
    import torch

    with _SETTING_THREADS:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        restore = threading.Thread(target=torch.set_num_threads, args=(before,))
        restore.start()
        restore.join()


def pooled(encoder: Encoder, pooling: str, device: str) -> OnDevice[npt.NDArray[np.float32]]:
    """Reduce each text's hidden states to one row [texts, hidden], in float32.

    Args:
        encoder: on `device` already.
        pooling: ``mean``, ``cls`` or ``last``.
        device: where to compute.
    """
    reduce = _POOLINGS[pooling]

    def compute(batch: PackedBatch) -> npt.NDArray[np.float32]:
        import torch

        hidden = encoder.forward(batch)
        parts = [
            reduce(hidden[group.tokens].view(group.texts, group.length, -1).float())
            for group in batch.groups()
        ]
        rows: npt.NDArray[np.float32] = torch.cat(parts).cpu().numpy()
        return rows

    return OnDevice(compute, device)


_POOLINGS: "dict[str, Callable[[torch.Tensor], torch.Tensor]]" = {
    "mean": lambda states: states.mean(1),
    "cls": lambda states: states[:, 0],
    "last": lambda states: states[:, -1],
}
