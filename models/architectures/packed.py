"""A batch of texts without padding: all their tokens end to end."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch


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
