"""Fold the chunks of a value that has more than 512 of them, as Elasticsearch does before it stores them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.embeddings import DenseEmbeddings, Embeddings, SparseEmbeddings
from transforms.records import Chunk

MAX_CHUNKS = 512
"""Most chunks that a single value keeps."""


def merge_chunks(chunks: Sequence[Chunk], embeddings: Embeddings) -> tuple[tuple[Chunk, ...], Embeddings]:
    """Fold the chunks of every value with more than 512 of them into 512.

    Chunk i of n goes to place ``i * 512 // n``. A folded chunk reaches from the start of its first member to the end
    of its last. Its sparse weights are the largest of its members, its dense values their mean, not normalised again
    (rounded for bytes); it is truncated if a member is.

    Args:
        chunks: the chunks of one semantic field, value by value, in order.
        embeddings: their embeddings, row by row.

    Returns:
        The chunks and embeddings; the same objects where nothing is folded.
    """
    places = _places(chunks)
    if places is None:
        return tuple(chunks), embeddings
    firsts = np.flatnonzero(np.diff(places, prepend=-1))
    lasts = np.append(firsts[1:], len(chunks)) - 1
    folded = tuple(_span(chunks[first], chunks[last]) for first, last in zip(firsts, lasts, strict=True))
    if isinstance(embeddings, DenseEmbeddings):
        return folded, _fold_dense(embeddings, firsts)
    return folded, _fold_sparse(embeddings, places, len(folded), firsts)


def _places(chunks: Sequence[Chunk]) -> npt.NDArray[np.int64] | None:
    """Place of each chunk after folding; None where no value has too many."""
    if len(chunks) <= MAX_CHUNKS:
        return None
    keys = [(chunk.source_field, chunk.value) for chunk in chunks]
    starts = [index for index in range(len(keys)) if index == 0 or keys[index] != keys[index - 1]]
    sizes = np.diff([*starts, len(keys)])
    if sizes.max() <= MAX_CHUNKS:
        return None
    places, base = [], 0
    for size in sizes.tolist():
        kept = min(size, MAX_CHUNKS)
        places.append(base + np.arange(size, dtype=np.int64) * kept // size)
        base += kept
    return np.concatenate(places)


def _span(first: Chunk, last: Chunk) -> Chunk:
    """One chunk from the start of `first` to the end of `last`; its text is not needed any more."""
    text = first.text if first is last else ""
    return first._replace(end_offset=last.end_offset, text=text)


def _fold_dense(embeddings: DenseEmbeddings, firsts: npt.NDArray[np.intp]) -> DenseEmbeddings:
    counts = np.diff(np.append(firsts, len(embeddings)))
    means = np.add.reduceat(embeddings.values.astype(np.float64), firsts) / counts[:, None]
    is_float = embeddings.values.dtype == np.float32
    values = means if is_float else np.floor(means + 0.5)
    return DenseEmbeddings(
        values.astype(embeddings.values.dtype),
        np.logical_or.reduceat(embeddings.is_truncated, firsts),
        np.add.reduceat(embeddings.tokens, firsts).astype(np.int32),
    )


def _fold_sparse(
    embeddings: SparseEmbeddings, places: npt.NDArray[np.int64], count: int, firsts: npt.NDArray[np.intp]
) -> SparseEmbeddings:
    rows = np.repeat(places, np.diff(embeddings.indptr))
    order = np.lexsort((-embeddings.weights, embeddings.token_ids, rows))
    rows, tokens = rows[order], embeddings.token_ids[order]
    largest = np.ones(len(order), bool)
    largest[1:] = (rows[1:] != rows[:-1]) | (tokens[1:] != tokens[:-1])
    rows, tokens, weights = rows[largest], tokens[largest], embeddings.weights[order][largest]
    by_weight = np.lexsort((-weights, rows))
    indptr = np.searchsorted(rows, np.arange(count + 1)).astype(np.int64)
    return SparseEmbeddings(
        indptr,
        tokens[by_weight],
        weights[by_weight],
        embeddings.vocabulary,
        np.logical_or.reduceat(embeddings.is_truncated, firsts),
        np.add.reduceat(embeddings.tokens, firsts).astype(np.int32),
    )
