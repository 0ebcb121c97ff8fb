"""Late chunking: which models can embed chunks within their document, and which chunks share a window.

The tokens of a document's value go through the model together, as many as its window holds, and each chunk's embedding
is the mean of its own tokens' vectors, which know of all in the window (Günther et al., "Late Chunking", 2024,
arXiv:2409.04701).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.embeddings import Span
from models.errors import InferenceError
from models.model import Model

if TYPE_CHECKING:
    from models.local.model import LocalModel


@dataclass(frozen=True)
class LateChunking:
    """Groups the chunks of texts by the window of a model, of which only the tokenizer is used.

    Attributes:
        model: one that `late_chunking` found fit.
    """

    model: "LocalModel"

    def group(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> list[list[int]]:
        """Tell how many chunks, from the first one on, go through the model together.

        Neighbours do as long as the text from the first one's start to the last one's end fits into the window, with
        the special tokens and the prefix. A chunk that does not fit alone is a group of its own, and cut.

        Args:
            texts: whole values.
            spans: the chunks of each, in order.

        Returns:
            The number of chunks in each group of each text.
        """
        found = self.model.opened.tokens.whole.encode(texts, True)
        assert found.offsets is not None
        ends = np.split(found.offsets[:, 1], np.cumsum(found.lengths))[:-1]  # behind the last text is nothing
        return [self._group(*one) for one in zip(texts, ends, spans, strict=True)]

    def _group(self, text: str, ends: npt.NDArray[np.int32], spans: Sequence[Span]) -> list[int]:
        opened = self.model.opened
        if opened.window is None:
            return [len(spans)] if spans else []
        prefix = (opened.recipe.prefixes or {}).get("ingest", "")
        ends = np.maximum.accumulate(ends[ends > 0])  # special tokens end at 0
        room = opened.window - int(opened.tokens.count([prefix])[0])
        while True:
            sizes = fill(ends, spans, room)
            shared = [prefix + text[slice(*one)] for one in extents(spans, sizes, several=True)]
            over = int(opened.tokens.count(shared).max(initial=0)) - opened.window
            if over <= 0:
                return sizes
            # Where a group begins, a tokenizer may cut words otherwise than within the whole text.
            room -= over


def fill(ends: npt.NDArray[np.int32], spans: Sequence[Span], room: int) -> list[int]:
    """Put neighbours together while they have room.

    Args:
        ends: where each token of the text ends, in rising order.
        spans: the chunks in order; each begins and ends no earlier than the one before.
        room: most tokens from the start of a group to its end.
    """
    before = np.searchsorted(ends, np.array(spans, np.int64).reshape(-1, 2), side="right").tolist()
    sizes: list[int] = []
    start = 0
    for first, last in before:
        if sizes and last - start <= room:
            sizes[-1] += 1
        else:
            sizes.append(1)
            start = first
    return sizes


def extents(spans: Sequence[Span], sizes: Sequence[int], *, several: bool = False) -> list[Span]:
    """From where to where the groups reach; of those with `several` chunks only, where asked for."""
    ends = np.cumsum(sizes).tolist()
    return [
        (spans[end - size][0], spans[end - 1][1])
        for end, size in zip(ends, sizes, strict=True)
        if size > 1 or not several
    ]


def late_chunking(model: Model) -> LateChunking:
    """Take a model for late chunking.

    Raises:
        InferenceError: it cannot embed a chunk within its document, and why (status 400).
    """
    from models.local.model import LocalModel  # here, since a config of services alone never wants it

    if isinstance(model, LocalModel):
        reason = _unfit(model)
        if reason is None:
            return LateChunking(model)
    else:
        reason = "there are none: it gives whole texts an embedding"
    raise InferenceError(
        f"[late_chunking] needs the vectors of a text's tokens, and of [{model.endpoint.inference_id}] {reason}."
        " Leave it out, or name a dense endpoint whose model runs here and takes the mean over the tokens, such as"
        " .minilm-l6-v2",
        status=400,
    )


def _unfit(model: "LocalModel") -> str | None:
    if model.endpoint.is_sparse:
        return "the embeddings are sparse"
    opened = model.opened
    if opened.is_static:
        return f"they know nothing of each other: [{opened.checkpoint.model_id}] is static"
    pooling = opened.recipe.pooling or "mean"
    if pooling != "mean":
        return f"only one counts: [{opened.checkpoint.model_id}] has the pooling [{pooling}]"
    return None
