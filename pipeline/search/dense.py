"""Exact ranking of dense embeddings by blocked matrix products."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.search.open_index import Bools, OpenUnit
from pipeline.search.ranking import Ranking
from transforms.index.state import FieldState, Ints

BLOCK_SCORES = 1 << 22
"""Scores that are computed at a time: 16 MiB of float32, so that a block and its vectors stay near the caches."""


@dataclass(frozen=True)
class DenseField:
    """What ranking by vectors needs of a field.

    Attributes:
        state: similarity and element type.
        vectors: one row a chunk.
        norms: their lengths.
    """

    state: FieldState
    vectors: Any
    norms: Any


def rank_dense(
    unit: OpenUnit, field: DenseField, queries: npt.NDArray[Any], k: int, allowed: Bools
) -> list[Ranking]:
    """The `k` best documents of each query vector, compared with all chunks' vectors, a block at a time.

    Args:
        unit: the unit whose chunks are compared.
        field: their vectors.
        queries: one row a query, as embedded.
        k: number of documents.
        allowed: which documents may be found, by number.
    """
    # The best of the blocks so far, a row a query; -inf marks what may not be found.
    best_scores = np.full((len(queries), 0), -np.inf, np.float32)
    best_documents = np.zeros((len(queries), 0), np.int64)
    # Blocks are scored in single precision. Some more than k are kept, so that its rounding does not decide who is in.
    keep = k + 10
    prepared = _prepare(field.state, queries)
    for begin, end, firsts in _blocks(unit, len(queries)):
        scores = similarity_scores(field, slice(begin, end), prepared)
        # A document's chunks are neighbours: the maximum from each first row to the next is its best chunk's score.
        per_document = np.maximum.reduceat(scores, firsts - begin, axis=0).T
        documents = unit.documents[firsts]
        per_document[:, ~allowed[documents]] = -np.inf
        best_scores = np.concatenate([best_scores, per_document], axis=1)
        best_documents = np.concatenate(
            [best_documents, np.broadcast_to(documents, per_document.shape)], axis=1
        )
        # Nobody asks for the order yet, so the best are set apart in linear time instead of sorted.
        if best_scores.shape[1] > keep:
            top = np.argpartition(-best_scores, keep - 1, axis=1)[:, :keep]
            best_scores = np.take_along_axis(best_scores, top, axis=1)
            best_documents = np.take_along_axis(best_documents, top, axis=1)
    return [
        _exact(unit, field, query, documents[np.isfinite(scores)], k)
        for query, documents, scores in zip(queries, best_documents, best_scores, strict=True)
    ]


def _blocks(unit: OpenUnit, queries: int) -> list[tuple[int, int, Ints]]:
    """Cut the rows between documents: (first row, row after the last, first row of each document)."""
    # The more queries, the fewer rows: a block has about BLOCK_SCORES scores. Few rows would waste the matrix product.
    size = max(1024, BLOCK_SCORES // max(queries, 1))
    blocks, at, rows = [], 0, len(unit.documents)
    while at < len(unit.firsts):
        begin = int(unit.firsts[at])
        # The last document that begins within `size` rows ends the block; one that is longer makes a block alone.
        after = max(at + 1, int(np.searchsorted(unit.firsts, begin + size)))
        end = int(unit.firsts[after]) if after < len(unit.firsts) else rows
        blocks.append((begin, end, unit.firsts[at:after]))
        at = after
    return blocks


def _prepare(state: FieldState, queries: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Bring query vectors to the type that they are compared in, and to length 1 where only angles count."""
    if state.element_type == "bit":
        return queries.astype(np.int8)
    queries = queries.astype(np.float32)
    if state.similarity == "cosine":
        queries = queries / np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-30)
    return queries


def similarity_scores(field: DenseField, rows: slice, queries: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Elasticsearch's score of each row for each prepared query: higher is nearer.

    Args:
        field: the vectors, with similarity and element type.
        rows: which of them.
        queries: one row a query, from `_prepare`; float64 asks for double precision.

    Returns:
        One row a vector, one column a query.
    """
    state = field.state
    vectors = field.vectors[rows]
    if state.element_type == "bit":
        # Eight bits lie in each byte; those that differ are the ones of the exclusive or.
        differing = np.bitwise_count((vectors[:, None, :] ^ queries[None, :, :]).view(np.uint8)).sum(axis=2)
        return ((state.dimensions - differing) / state.dimensions).astype(np.float32)
    kind = np.float64 if queries.dtype == np.float64 else np.float32
    products = vectors.astype(kind, copy=False) @ queries.T
    norms = field.norms[rows].astype(kind)[:, None]
    if state.similarity == "cosine":
        return (1 + products / np.maximum(norms, 1e-30)) / 2
    if state.similarity == "l2_norm":
        # |v - q|^2 without the difference itself, which would take a block for each query; rounding may go below 0.
        squares = norms**2 - 2 * products + (queries**2).sum(axis=1)
        return 1 / (1 + np.maximum(squares, 0))
    if state.similarity == "max_inner_product":
        return np.where(products < 0, 1 / (1 - products), products + 1)
    # A byte is at most 2^7, so the product of two bytes 2^14 and that of two vectors `dimensions` times as much.
    scale = 1 if state.element_type == "float" else state.dimensions * (1 << 14)
    return (1 + products / scale) / 2


def chunk_scores(field: DenseField, rows: slice, query: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Score some chunks for one query vector, in double precision.

    Args:
        field: the vectors.
        rows: which chunks.
        query: the vector, as embedded.
    """
    prepared = _prepare(field.state, query[None])
    if field.state.element_type != "bit":
        prepared = prepared.astype(np.float64)
    found: npt.NDArray[Any] = similarity_scores(field, rows, prepared)[:, 0]
    return found


def _exact(unit: OpenUnit, field: DenseField, query: npt.NDArray[Any], documents: Ints, k: int) -> Ranking:
    """Score the chunks of some documents again in double precision, and rank the documents."""
    prepared = _prepare(field.state, query[None])
    if field.state.element_type != "bit":
        prepared = prepared.astype(np.float64)
    scores, rows = np.zeros(len(documents)), np.zeros(len(documents), np.int64)
    for at, document in enumerate(documents.tolist()):
        span = unit.rows_of(document)
        chunk_scores = similarity_scores(field, span, prepared)[:, 0]
        best = int(chunk_scores.argmax())
        scores[at], rows[at] = chunk_scores[best], span.start + best
    # By score, then by number: equal scores come in the same order whatever the blocks were.
    order = np.lexsort((documents, -scores))[:k]
    return Ranking(unit, documents[order], scores[order], rows[order])
