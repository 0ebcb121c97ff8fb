"""Rank documents by one kind of evidence: BM25, the dot product of sparse weights, or similar vectors.

A document's score is that of its best chunk. All three are exact: tantivy scores every chunk that has a query term,
and vectors are compared with all vectors.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.search.open_index import Bools, OpenUnit
from transforms.index.state import CHUNK_BITS, FieldState, Ints
from transforms.index.tantivy_schema import escape_token, spaced, sparse_field

Floats = npt.NDArray[np.float64]

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

    def pairs(self) -> Iterator[tuple[int, float]]:
        """The documents with their scores."""
        return zip(self.documents.tolist(), self.scores.tolist(), strict=True)

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
            # A term that the query has twice counts twice, as in Lucene.
            boosted = query if count == 1 else tantivy.Query.boost_query(query, float(count))
            clauses.append((tantivy.Occur.Should, boosted))
    return tantivy.Query.boolean_query(clauses)


def sparse_query(unit: OpenUnit, number: int, field: FieldState, weights: dict[str, float]) -> Any:
    """Tantivy's query for a dot product of sparse weights: a constant-score clause for each bit of each token."""
    import tantivy

    name = sparse_field(number)
    clauses = []
    for token, weight in weights.items():
        safe = escape_token(token)
        # A weight is stored as a whole number of steps, and its bit b as the term `token#b`: a document that has the
        # term gets 2^b steps, and the bits that it has add up to its weight.
        for bit in range(field.bits):
            term = tantivy.Query.term_query(unit.schema, name, f"{safe}#{bit}", index_option="basic")
            score = weight * field.step * (1 << bit)
            clauses.append((tantivy.Occur.Should, tantivy.Query.const_score_query(term, score)))
    return tantivy.Query.boolean_query(clauses)


def rank_query(unit: OpenUnit, query: Any, k: int, allowed: Bools | None) -> Ranking:
    """The `k` best documents of a tantivy query, among those that `allowed` marks."""
    import tantivy

    # A narrow filter goes into the query, where it adds nothing to the score: scanned hits would hold few that pass.
    few = allowed is not None and int(allowed.sum()) <= FEW_DOCUMENTS
    if allowed is not None and few:
        wanted = tantivy.Query.term_set_query(unit.schema, "document", np.flatnonzero(allowed).tolist())
        only = tantivy.Query.const_score_query(wanted, 0.0)
        query = tantivy.Query.boolean_query([(tantivy.Occur.Must, only), (tantivy.Occur.Must, query)])
        allowed = None
    # Tantivy ranks chunks, we rank documents: where documents have several chunks, more hits are asked for, and four
    # times as many again until the k best documents are certain.
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
    # Tantivy breaks ties by its own addresses, which a merge of segments changes; we break them by number.
    order = np.lexsort((chunks, -scores))
    scores, chunks = scores[order], chunks[order]
    documents = chunks >> CHUNK_BITS  # a chunk's number is its document's, then its place in the document
    if allowed is not None:
        inside = allowed[documents]
        scores, chunks, documents = scores[inside], chunks[inside], documents[inside]
    # The first hit of a document is its best chunk, and no chunk that follows scores more: with k documents found,
    # the k best are known.
    _, first = np.unique(documents, return_index=True)
    first = np.sort(first)
    enough = len(first) >= k
    first = first[:k]
    rows = np.array([unit.row_of(int(chunk)) for chunk in chunks[first]], np.int64)
    return Ranking(unit, documents[first], scores[first], rows), enough or len(hits) < limit
