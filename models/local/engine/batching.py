"""Texts as token ids, and which of them go through the model together: batches of like length within a budget."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CPU_TOKENS, GPU_TOKENS = 1024, 65_536
"""Tokens of a batch: on a CPU what lies in the caches, on a GPU what fills it."""


@dataclass(frozen=True, slots=True)
class TokenSpans:
    """Parts of n texts that get an embedding each, text by text.

    Attributes:
        bounds: int64 [spans, 2]; a part's first token in its text and the one after the last.
        counts: int64 [n]; parts of each text.
        is_truncated: bool [spans]; whether the window cut tokens of the part.
    """

    bounds: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    is_truncated: npt.NDArray[np.bool_]

    def places(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
        """Which parts are those of some texts."""
        return ranges((np.cumsum(self.counts) - self.counts)[rows], self.counts[rows])

    def within(self, rows: npt.NDArray[np.intp], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The bounds of some texts' parts where the tokens of these texts lie end to end; `lengths` are theirs."""
        starts = np.cumsum(lengths) - lengths
        return self.bounds[self.places(rows)] + np.repeat(starts, self.counts[rows])[:, None]


@dataclass(frozen=True, slots=True)
class TokenizedTexts:
    """Token ids of n texts, end to end in one array.

    Attributes:
        ids: int32 [tokens]; cut to the window, special tokens included.
        lengths: int32 [n]; tokens of each text in `ids`.
        is_truncated: bool [n].
        offsets: int32 [tokens, 2]; first character of each token in its text and the one after the last, 0 and 0 for
            the special tokens around it. None where not asked for.
        spans: the parts of the texts that get an embedding each; None where each text gets one.
    """

    ids: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]
    is_truncated: npt.NDArray[np.bool_]
    offsets: npt.NDArray[np.int32] | None = None
    spans: TokenSpans | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def starts(self) -> npt.NDArray[np.int64]:
        """Where each text's ids begin (int64 [n])."""
        return np.cumsum(self.lengths, dtype=np.int64) - self.lengths

    def replaced(self, rows: npt.NDArray[np.intp], others: "TokenizedTexts") -> "TokenizedTexts":
        """Put `others` in the place of some texts."""
        lengths, is_truncated, starts = self.lengths.copy(), self.is_truncated.copy(), self.starts()
        lengths[rows], is_truncated[rows] = others.lengths, others.is_truncated
        starts[rows] = len(self.ids) + others.starts()

        every = np.arange(len(lengths))

        def joined(mine: npt.NDArray[np.int32], theirs: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
            return gather(np.concatenate([mine, theirs]), starts, lengths.astype(np.int64), every)

        offsets = None
        if self.offsets is not None and others.offsets is not None:
            offsets = joined(self.offsets, others.offsets)
        return TokenizedTexts(joined(self.ids, others.ids), lengths, is_truncated, offsets)


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Token ids of several texts end to end, without padding; texts of equal length lie side by side.

    Attributes:
        ids: int32 [tokens].
        lengths: int64 [texts]; tokens of each text.
        spans: int64 [embeddings, 2]; first token of each embedding and the one after the last, where several are
            made of a text. None where each text gets one.
    """

    ids: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int64]
    spans: npt.NDArray[np.int64] | None = None

    def slices(self) -> list[slice]:
        """Where each text's tokens are."""
        ends = np.cumsum(self.lengths)
        return [slice(*bounds) for bounds in zip((ends - self.lengths).tolist(), ends.tolist(), strict=True)]

    def segments(self) -> list[slice]:
        """Where the tokens of each embedding are."""
        return self.slices() if self.spans is None else [slice(*bounds) for bounds in self.spans.tolist()]


def plan_batches(lengths: npt.NDArray[np.int32], token_budget: int) -> list[npt.NDArray[np.intp]]:
    """Split texts into batches of at most `token_budget` tokens, about equal in size, longest texts first.

    Texts of equal length come to lie side by side. A text longer than the budget gets a batch of its own.
    Full batches would leave a last one of a few texts, which costs a GPU nearly as much as a full one.
    The longest come first so that a batch that does not fit into memory fails at the start of the work.

    Args:
        lengths: tokens of each text.
        token_budget: tokens of a batch; batches are packed, so that there is no padding to count.

    Returns:
        Row numbers of each batch.
    """
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order], dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    # An equal share of as few batches as there must be, and half a text more for what does not come out even.
    count = max(1, -(-total // token_budget))
    share = min(token_budget, -(-total // count) + int(lengths.max(initial=0)) // 2)
    batches = []
    start = 0
    while start < len(order):
        begin = ends[start] - lengths[order[start]]  # tokens of all batches before
        # `ends` grows, so that the last text that still fits is found by halving.
        end = max(start + 1, int(np.searchsorted(ends, begin + share, side="right")))
        batches.append(order[start:end])
        start = end
    return batches


def gather(
    ids: npt.NDArray[np.int32],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    rows: npt.NDArray[np.intp],
) -> npt.NDArray[np.int32]:
    """Copy the tokens of `rows` end to end.

    Args:
        ids: of all texts.
        starts: where each text's ids begin.
        lengths: of the texts to copy.
        rows: which texts to copy.
    """
    return ids[ranges(starts[rows], lengths)]


def ranges(starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The numbers of several ranges one after the other, each from its start on."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    # A number is its own place plus a shift that is the same for its whole range: where the range starts, less where it
    # begins here.
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total)
