"""Rank documents by one kind of evidence: BM25, the dot product of sparse weights, or similar vectors.

A document's score is that of its best chunk. All three are exact: tantivy scores every chunk that has a query term,
and vectors are compared with all vectors.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.search_index import Bools, OpenUnit
from transforms.index_files import CHUNK_BITS, FieldState, Ints, escape_token, spaced, sparse_field

Floats = npt.NDArray[np.float64]
BLOCK_SCORES = 1 << 22
FEW_DOCUMENTS = 1_000
"""A filter that lets so few documents through is part of tantivy's query; a wider one is applied to its hits."""


@dataclass(frozen=True)
class Ranking:
    """Documents in order of their scores, best first; equal scores in order of document.

    Attributes:
        unit: the unit that was searched.
        documents: document numbers.
        scores: their scores.
        rows: row of each document's best chunk in the unit.
    """

    unit: OpenUnit
    documents: Ints
    scores: Floats
    rows: Ints

    def __len__(self) -> int:
        return len(self.documents)

    def first(self, k: int) -> "Ranking":
        """The `k` best documents."""
        return Ranking(self.unit, self.documents[:k], self.scores[:k], self.rows[:k])


def bm25_terms(unit: OpenUnit, text: str) -> dict[str, int]:
    """The terms of a query and how often each occurs."""
    return dict(Counter(unit.analyzer.analyze(spaced(text))))


def bm25_query(unit: OpenUnit, text: str, sources: Sequence[str]) -> Any:
    """Tantivy's query for a text in some source fields of a unit."""
    import tantivy

    clauses = []
    for source in sources:
        name = f"text{unit.state.sources.index(source)}"
        for term, count in bm25_terms(unit, text).items():
            query = tantivy.Query.term_query(unit.schema, name, term, index_option="freq")
            clauses.append(
                (
                    tantivy.Occur.Should,
                    query if count == 1 else tantivy.Query.boost_query(query, float(count)),
                )
            )
    return tantivy.Query.boolean_query(clauses)


def sparse_query(unit: OpenUnit, number: int, field: FieldState, weights: dict[str, float]) -> Any:
    """Tantivy's query for a dot product of sparse weights: a constant-score clause for each bit of each token."""
    import tantivy

    name = sparse_field(number)
    clauses = []
    for token, weight in weights.items():
        safe = escape_token(token)
        for bit in range(field.bits):
            term = tantivy.Query.term_query(unit.schema, name, f"{safe}#{bit}", index_option="basic")
            score = weight * field.step * (1 << bit)
            clauses.append((tantivy.Occur.Should, tantivy.Query.const_score_query(term, score)))
    return tantivy.Query.boolean_query(clauses)


def rank_query(unit: OpenUnit, query: Any, k: int, allowed: Bools | None) -> Ranking:
    """The `k` best documents of a tantivy query, among those that `allowed` marks."""
    import tantivy

    few = allowed is not None and int(allowed.sum()) <= FEW_DOCUMENTS
    if allowed is not None and few:
        wanted = tantivy.Query.term_set_query(unit.schema, "document", np.flatnonzero(allowed).tolist())
        only = tantivy.Query.const_score_query(wanted, 0.0)
        query = tantivy.Query.boolean_query([(tantivy.Occur.Must, only), (tantivy.Occur.Must, query)])
        allowed = None
    chunks = max(1, int(unit.searcher.num_docs))
    limit = min(chunks, k + 10 if chunks == len(unit.firsts) else 4 * k + 10)
    while True:
        ranking, complete = _top(unit, query, limit, k, allowed)
        if complete or limit >= chunks:
            return ranking
        limit = min(chunks, limit * 4)


def _top(unit: OpenUnit, query: Any, limit: int, k: int, allowed: Bools | None) -> tuple[Ranking, bool]:
    """Rank by the `limit` best chunks; also says whether more chunks could change the `k` best documents."""
    hits = unit.searcher.search(query, limit, count=False).hits
    scores = np.array([score for score, _ in hits], np.float64)
    chunks = np.array(unit.searcher.fast_field_values("chunk", [address for _, address in hits]), np.int64)
    order = np.lexsort((chunks, -scores))
    scores, chunks = scores[order], chunks[order]
    documents = chunks >> CHUNK_BITS
    if allowed is not None:
        inside = allowed[documents]
        scores, chunks, documents = scores[inside], chunks[inside], documents[inside]
    _, first = np.unique(documents, return_index=True)
    first = np.sort(first)
    enough = len(first) >= k
    first = first[:k]
    rows = np.array([unit.row_of(int(chunk)) for chunk in chunks[first]], np.int64)
    return Ranking(unit, documents[first], scores[first], rows), enough or len(hits) < limit


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
    """The `k` best documents of each query vector, compared with all chunks' vectors, a block at a time."""
    best_scores = np.full((len(queries), 0), -np.inf, np.float32)
    best_documents = np.zeros((len(queries), 0), np.int64)
    # Some more than k are kept, so that rounding in the blocks does not decide who is in.
    keep = k + 10
    prepared = _prepare(field.state, queries)
    for begin, end, firsts in _blocks(unit, len(queries)):
        scores = similarity_scores(field, slice(begin, end), prepared)
        per_document = np.maximum.reduceat(scores, firsts - begin, axis=0).T
        documents = unit.documents[firsts]
        per_document[:, ~allowed[documents]] = -np.inf
        best_scores = np.concatenate([best_scores, per_document], axis=1)
        best_documents = np.concatenate(
            [best_documents, np.broadcast_to(documents, per_document.shape)], axis=1
        )
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
    size = max(1024, BLOCK_SCORES // max(queries, 1))
    blocks, at, rows = [], 0, len(unit.documents)
    while at < len(unit.firsts):
        begin = int(unit.firsts[at])
        after = max(at + 1, int(np.searchsorted(unit.firsts, begin + size)))
        end = int(unit.firsts[after]) if after < len(unit.firsts) else rows
        blocks.append((begin, end, unit.firsts[at:after]))
        at = after
    return blocks


def _prepare(state: FieldState, queries: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if state.element_type == "bit":
        return queries.astype(np.int8)
    queries = queries.astype(np.float32)
    if state.similarity == "cosine":
        queries = queries / np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-30)
    return queries


def similarity_scores(field: DenseField, rows: slice, queries: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Elasticsearch's score of each row for each prepared query: higher is nearer."""
    state = field.state
    vectors = field.vectors[rows]
    if state.element_type == "bit":
        differing = np.bitwise_count((vectors[:, None, :] ^ queries[None, :, :]).view(np.uint8)).sum(axis=2)
        return ((state.dimensions - differing) / state.dimensions).astype(np.float32)
    kind = np.float64 if queries.dtype == np.float64 else np.float32
    products = vectors.astype(kind, copy=False) @ queries.T
    norms = field.norms[rows].astype(kind)[:, None]
    if state.similarity == "cosine":
        return (1 + products / np.maximum(norms, 1e-30)) / 2
    if state.similarity == "l2_norm":
        squares = norms**2 - 2 * products + (queries**2).sum(axis=1)
        return 1 / (1 + np.maximum(squares, 0))
    if state.similarity == "max_inner_product":
        return np.where(products < 0, 1 / (1 - products), products + 1)
    scale = 1 if state.element_type == "float" else state.dimensions * (1 << 14)
    return (1 + products / scale) / 2


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
    order = np.lexsort((documents, -scores))[:k]
    return Ranking(unit, documents[order], scores[order], rows[order])
