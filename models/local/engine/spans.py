"""Which tokens of a text are those of a part of it, so that the part can be pooled within its surroundings."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from models.embeddings import Span
from models.local.engine.batching import TokenizedTexts, TokenSpans


def with_spans(tokenized: TokenizedTexts, spans: Sequence[Sequence[Span]], prefix: int) -> TokenizedTexts:
    """Find the tokens of parts of texts.

    Args:
        tokenized: the texts, each with its prefix, and the offsets of their tokens.
        spans: the parts of each text, in characters without the prefix.
        prefix: characters of the prefix.
    """
    assert tokenized.offsets is not None
    starts, counts = tokenized.starts(), np.array([len(own) for own in spans], np.int64)
    bounds, cut = np.zeros((counts.sum(), 2), np.int64), np.zeros(counts.sum(), np.bool_)
    place = 0
    for row, own in enumerate(spans):
        ends = tokenized.offsets[starts[row] : starts[row] + tokenized.lengths[row], 1]
        found = slice(place, place := place + len(own))
        bounds[found], is_beyond = _tokens_of(ends, np.array(own, np.int64).reshape(-1, 2), prefix)
        cut[found] = is_beyond & tokenized.is_truncated[row]
    return replace(tokenized, spans=TokenSpans(bounds, counts, cut))


def _tokens_of(
    ends: npt.NDArray[np.int32], spans: npt.NDArray[np.int64], prefix: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The first token of each part and the one after the last, and whether the part ends beyond the last token.

    A token belongs to the parts in which its last character lies: a word may begin with the blank before it. What
    stands before the text, a special token or a prefix, belongs to the part that begins with the text, and the special
    tokens behind it to those that end with its last word, as in the paper (Günther et al., 2024, section 4.1): so a
    part that is the whole text is embedded as the text is. A part without a token is the whole text too.

    Args:
        ends: where each token ends in text and prefix; 0 for special tokens.
        spans: the parts.
        prefix: characters of the prefix.
    """
    reached = np.maximum.accumulate(ends)
    first = np.searchsorted(reached, spans[:, 0] + prefix, side="right")
    after = np.searchsorted(reached, spans[:, 1] + prefix, side="right")
    first[(spans[:, 0] == 0) & (first < after)] = 0
    without = first >= after
    first[without], after[without] = 0, len(ends)
    return np.stack([first, after], 1), spans[:, 1] + prefix > reached[-1:].sum()
