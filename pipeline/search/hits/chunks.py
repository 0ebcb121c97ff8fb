"""Several chunks of a document that was found, each with the chunks around it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from models.embeddings import DenseEmbeddings
from pipeline.search.dense import chunk_scores
from pipeline.search.hits.hit import ChunkHit
from pipeline.search.open_index import OpenUnit, SearchIndex
from pipeline.search.pruning import Pruning
from pipeline.search.query_embedding import embed_queries
from pipeline.search.ranking import bm25_query, sparse_query
from pipeline.search.retrievers import Retriever, dense_field, sparse_weights

ScoredRows = list[tuple[int, float]]
"""Rows of chunks with their scores, best first."""


def chunk_scorer(
    index: SearchIndex, retriever: Retriever, query: str, pruning: Pruning | None = None
) -> Callable[[int], ScoredRows]:
    """Return what scores the chunks of one document for a query: document number -> its chunks, best first.

    Args:
        index: the index.
        retriever: by which evidence.
        query: what is looked for.
        pruning: which tokens of a sparse query to leave out.
    """
    unit = retriever.unit
    if retriever.mode == "bm25":
        return lambda document: _matching(unit, bm25_query(unit, query, retriever.sources), document)
    embeddings = embed_queries(index.state, retriever.field, [query])
    if isinstance(embeddings, DenseEmbeddings):
        field, vector = dense_field(index, retriever.field), embeddings.values[0]
        return lambda document: _sorted(
            unit.rows_of(document).start, chunk_scores(field, unit.rows_of(document), vector)
        )
    weights = sparse_weights(index, retriever, embeddings, 0, pruning)
    number = index.state.field_number(retriever.field)
    asked = sparse_query(unit, number, index.fields[retriever.field], weights)
    return lambda document: _matching(unit, asked, document)


def _sorted(first: int, scores: Any) -> ScoredRows:
    order = np.argsort(-scores, kind="stable")
    return [(first + at, float(scores[at])) for at in order.tolist()]


def _matching(unit: OpenUnit, query: Any, document: int) -> ScoredRows:
    """The chunks of a document that a tantivy query finds."""
    import tantivy

    wanted = tantivy.Query.term_set_query(unit.schema, "document", [document])
    only = tantivy.Query.const_score_query(wanted, 0.0)
    both = tantivy.Query.boolean_query([(tantivy.Occur.Must, only), (tantivy.Occur.Must, query)])
    rows = unit.rows_of(document)
    hits = unit.searcher.search(both, rows.stop - rows.start, count=False).hits
    chunks = unit.searcher.fast_field_values("chunk", [address for _, address in hits])
    found = [(unit.row_of(int(chunk)), score) for chunk, (score, _) in zip(chunks, hits, strict=True)]
    return sorted(found, key=lambda one: (-one[1], one[0]))


def chunk_hits(index: SearchIndex, unit: OpenUnit, rows: ScoredRows, neighbours: int) -> tuple[ChunkHit, ...]:
    """Show chunks with those around them.

    Args:
        index: the index.
        unit: the unit of the chunks.
        rows: the chunks.
        neighbours: how many chunks to show before and after each; those of other documents never.
    """
    found = []
    for row, score in rows:
        whole = unit.rows_of(int(unit.documents[row]))
        before = range(max(whole.start, row - neighbours), row)
        after = range(row + 1, min(whole.stop, row + 1 + neighbours))
        around = (tuple(index.chunk(unit, one) for one in span) for span in (before, after))
        found.append(ChunkHit(score, index.chunk(unit, row), *around))
    return tuple(found)
