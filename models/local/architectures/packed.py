"""PyTorch on batches of texts without padding: all their tokens end to end."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from models.local.engine.batching import TokenBatch, ranges

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
    """Token ids of several texts on a device, ordered by length, and all that a model must know of where they are.

    Attributes:
        ids: int32 tensor [tokens].
        positions: int32 tensor [tokens]; each token's place in its text.
        ends: int32 tensor [texts + 1]; where each text ends, with a 0 before.
        lengths: int64 array [texts], on the host; tokens of each text.
        spans: int64 array [embeddings, 2], on the host; see `TokenBatch`.
    """

    ids: "torch.Tensor"
    positions: "torch.Tensor"
    ends: "torch.Tensor"
    lengths: npt.NDArray[np.int64]
    spans: npt.NDArray[np.int64] | None = None

    @classmethod
    def put(cls, batch: TokenBatch, device: str) -> "PackedBatch":
        """Put a batch on a device: one array, and so one copy, which the host does not wait for."""
        import torch

        tokens, ends = len(batch.ids), np.cumsum(batch.lengths)
        host = np.zeros(2 * tokens + len(ends) + 1, np.int32)
        host[:tokens] = batch.ids
        # A token's place in its text is its place among all, less where its text begins.
        host[tokens : 2 * tokens] = np.arange(tokens) - np.repeat(ends - batch.lengths, batch.lengths)
        host[2 * tokens + 1 :] = ends
        packed = torch.from_numpy(host)
        if device != "cpu":
            packed = packed.pin_memory().to(device, non_blocking=True)
        ids, positions, bounds = packed[:tokens], packed[tokens : 2 * tokens], packed[2 * tokens :]
        return cls(ids, positions, bounds, batch.lengths, batch.spans)

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return int(self.lengths.max(initial=0))

    def padded(self) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
        """The texts as rows.

        Padding stands on the right, where neither a causal model nor a position embedding can see it.

        Returns:
            Token ids int64 [texts, longest], zeros behind each text; which of them are of a text, of the same shape;
            and where each token of the batch is among all of them, row by row [tokens].
        """
        import torch

        texts, longest, device = len(self.lengths), self.longest, self.ids.device
        lengths = self.ends.diff()
        mask = torch.arange(longest, device=device) < lengths[:, None]
        rows = torch.arange(texts, device=device)
        places = rows.repeat_interleave(lengths, output_size=len(self.ids)) * longest + self.positions
        ids = torch.zeros(texts * longest, dtype=torch.int64, device=device)
        ids[places] = self.ids.long()
        return ids.view(texts, longest), mask.long(), places

    def groups(self) -> Iterator[Group]:
        """Group the texts by length."""
        start = 0
        for length, same in groupby(self.lengths.tolist()):
            texts = len(list(same))
            yield Group(start, texts, length)
            start += texts * length


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
                return self._compute(PackedBatch.put(batch, self._device))
            except torch.OutOfMemoryError:
                pass
        # Outside of the handler, where the traceback no longer holds the tensors that filled the memory.
        if self._device != "cpu":
            torch.cuda.empty_cache()
        raise MemoryError(
            f"a batch of {len(batch.ids)} tokens does not fit into the memory of [{self._device}]"
        )

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
    """Reduce the hidden states of each embedding's tokens to one row [embeddings, hidden], in float32.

    Args:
        encoder: on `device` already.
        pooling: ``mean``, ``cls`` or ``last``.
        device: where to compute.
    """
    reduce = _POOLINGS[pooling]

    def compute(batch: PackedBatch) -> npt.NDArray[np.float32]:
        rows: npt.NDArray[np.float32] = reduce(encoder.forward(batch), batch).float().cpu().numpy()
        return rows

    return OnDevice(compute, device)


def _mean(hidden: "torch.Tensor", batch: PackedBatch) -> "torch.Tensor":
    if batch.spans is not None:
        return mean_of_spans(hidden.float(), batch.spans)
    return over_texts(hidden.float(), batch, "mean")


def mean_of_spans(values: "torch.Tensor", spans: npt.NDArray[np.int64]) -> "torch.Tensor":
    """The mean of [tokens, columns] over the tokens of each span; spans may share tokens, and none is empty."""
    import torch

    lengths = spans[:, 1] - spans[:, 0]
    tokens, sizes = (
        torch.from_numpy(part).to(values.device) for part in (ranges(spans[:, 0], lengths), lengths)
    )
    return torch.segment_reduce(values[tokens], "mean", lengths=sizes, axis=0, unsafe=True)


def over_texts(values: "torch.Tensor", batch: PackedBatch, reduce: str) -> "torch.Tensor":
    """Reduce [tokens, columns] to one row a text.

    Args:
        values: one row a token.
        batch: where the texts are.
        reduce: ``mean``, or ``max``, which gives minus infinity for a text without tokens.
    """
    # A GPU is kept busy by one kernel for all lengths; on a CPU that one is ten times slower than neat blocks.
    return by_segment(values, batch, reduce) if values.is_cuda else by_length(values, batch, reduce)


def by_segment(values: "torch.Tensor", batch: PackedBatch, reduce: str) -> "torch.Tensor":
    """Reduce all texts in one kernel; see `over_texts`."""
    import torch

    # `unsafe` leaves out a check of the offsets, for which the host would wait.
    return torch.segment_reduce(values, reduce, offsets=batch.ends.long(), axis=0, unsafe=True)


def by_length(values: "torch.Tensor", batch: PackedBatch, reduce: str) -> "torch.Tensor":
    """Reduce the texts of each length together; see `over_texts`."""
    import torch

    found = values.new_full((len(batch.lengths), values.shape[1]), float("-inf"))
    first = 0
    for group in batch.groups():
        if group.length:
            block = values[group.tokens].view(group.texts, group.length, -1)
            rows = found[first : first + group.texts]
            _ = torch.amax(block, 1, out=rows) if reduce == "max" else torch.mean(block, 1, out=rows)
        first += group.texts
    return found


_POOLINGS: "dict[str, Callable[[torch.Tensor, PackedBatch], torch.Tensor]]" = {
    "mean": _mean,
    "cls": lambda hidden, batch: hidden[batch.ends[:-1]],
    "last": lambda hidden, batch: hidden[batch.ends[1:] - 1],
}
