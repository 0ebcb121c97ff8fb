"""Search an index: rank documents by one or several kinds of evidence, and show what was found."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from models.embeddings import SparseEmbeddings
from pipeline.errors import PipelineError
from pipeline.search.explain import TokenMatch, explain_bm25, explain_sparse, highlighted, marked
from pipeline.search.filters import Filter, matching
from pipeline.search.fusion import FusedHit, linear, reciprocal_rank
from pipeline.search.open_index import FoundChunk, SearchIndex
from pipeline.search.pruning import Pruning
from pipeline.search.query_embedding import embed_queries
from pipeline.search.ranking import Ranking
from pipeline.search.retrievers import Leg, Mode, find_legs, rank_leg, sparse_weights

RANK_WINDOW = 100
"""Documents of each ranking that a hybrid search joins, at least."""

LEG_WEIGHTS = {"bm25": 1.0, "sparse": 1.0, "dense": 1.0}


@dataclass(frozen=True)
class SearchOptions:
    """How to search.

    Attributes:
        mode: how to rank; `hybrid` joins all rankings that the field has.
        field: a semantic field, or a text field; by default the first that fits the mode.
        k: number of documents.
        filter: which documents may be found, as an Elasticsearch query on plain fields.
        fusion: how `hybrid` joins: reciprocal rank fusion, or a weighted sum of min-max scaled scores.
        weights: weight of each kind of ranking in the weighted sum.
        pruning: which tokens of a sparse query to leave out; none by default.
        explain: say of each hit which tokens met.
    """

    mode: Mode = "hybrid"
    field: str | None = None
    k: int = 10
    filter: Filter | None = None
    fusion: Literal["rrf", "linear"] = "rrf"
    weights: Mapping[str, float] = dataclasses.field(default_factory=lambda: LEG_WEIGHTS)
    pruning: Pruning | None = None
    explain: bool = False


@dataclass(frozen=True)
class Hit:
    """A document that was found.

    Attributes:
        id: its ``_id``.
        score: its score, that of its best chunk.
        chunk: the best chunk.
        highlight: the chunk's text as HTML, with ``<em>`` around the words of the query.
        parts: hybrid search: what each ranking added to the score.
        explanation: ranking -> the tokens of the query that the chunk has; only when asked for.
    """

    id: str
    score: float
    chunk: FoundChunk
    highlight: str = ""
    parts: dict[str, float] = dataclasses.field(default_factory=dict)
    explanation: dict[str, list[TokenMatch]] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The hit as the command prints it."""
        shown: dict[str, Any] = {"_id": self.id, "score": self.score, "chunk": asdict(self.chunk)}
        shown["highlight"] = self.highlight
        if self.parts:
            shown["parts"] = self.parts
        if self.explanation:
            shown["explanation"] = {
                name: [asdict(match) for match in found] for name, found in self.explanation.items()
            }
        return shown


def search(
    index: SearchIndex | str, query: str, options: SearchOptions | None = None, **changes: Any
) -> list[Hit]:
    """Find the best documents for a query.

    Args:
        index: an open index, or its folder.
        query: what to look for.
        options: how to search.
        **changes: attributes of `SearchOptions` to set, for example ``mode="dense", k=5``.

    Raises:
        PipelineError: no index, no such field, or the field's model is another one now.
    """
    return search_many(index, [query], options, **changes)[0]


def search_many(
    index: SearchIndex | str, queries: Sequence[str], options: SearchOptions | None = None, **changes: Any
) -> list[list[Hit]]:
    """Find the best documents for each of several queries; see `search`."""
    opened = SearchIndex(index) if isinstance(index, str) else index
    options = replace(options or SearchOptions(), **changes)
    if options.k < 1:
        raise PipelineError(f"[k] is the number of documents to find, at least 1; got {options.k}")
    if not all(query.strip() for query in queries):
        raise PipelineError("a query is empty: there is nothing to look for")
    legs = find_legs(opened, options.mode, options.field)
    allowed = None if options.filter is None else matching(opened, options.filter)
    depth = max(options.k, RANK_WINDOW) if options.mode == "hybrid" else options.k
    by_leg = [rank_leg(opened, leg, queries, depth, allowed=allowed, pruning=options.pruning) for leg in legs]
    return [
        _hits(opened, query, options, legs, [rankings[at] for rankings in by_leg])
        for at, query in enumerate(queries)
    ]


def fuse(rankings: Sequence[Ranking], legs: Sequence[Leg], options: SearchOptions) -> list[FusedHit]:
    """Join the rankings of a hybrid search.

    Raises:
        PipelineError: a weight is missing.
    """
    if options.fusion == "rrf":
        return reciprocal_rank(rankings, options.k)
    missing = [leg.mode for leg in legs if leg.mode not in options.weights]
    if missing:
        raise PipelineError(
            f"no weight for {missing[0]}; name one for each of {', '.join(leg.mode for leg in legs)}"
        )
    return linear(rankings, [options.weights[leg.mode] for leg in legs], options.k)


def _hits(
    index: SearchIndex, query: str, options: SearchOptions, legs: Sequence[Leg], rankings: Sequence[Ranking]
) -> list[Hit]:
    if not legs:
        return []
    if options.mode == "hybrid":
        found = fuse(rankings, legs, options)
    else:
        pairs = zip(rankings[0].documents.tolist(), rankings[0].scores.tolist(), strict=True)
        found = [FusedHit(document, score, (), 0) for document, score in pairs]
    return [_hit(index, query, options, legs, rankings, hit) for hit in found]


def _hit(
    index: SearchIndex,
    query: str,
    options: SearchOptions,
    legs: Sequence[Leg],
    rankings: Sequence[Ranking],
    hit: FusedHit,
) -> Hit:
    ranking = rankings[hit.best]
    row = int(ranking.rows[np.flatnonzero(ranking.documents == hit.document)[0]])
    chunk = index.chunk(ranking.unit, row)
    explanation = {}
    if options.explain:
        same_unit = [leg for leg in legs if leg.unit is ranking.unit]
        explanation = {leg.name: explain(index, leg, query, row, options.pruning) for leg in same_unit}
    tokens = [match.token for found in explanation.values() for match in found]
    spans = highlighted(ranking.unit, chunk.text, query, tokens)
    parts = {leg.name: part for leg, part in zip(legs, hit.parts, strict=True) if part} if hit.parts else {}
    return Hit(
        index.document_id(hit.document), hit.score, chunk, marked(chunk.text, spans), parts, explanation
    )


def explain(
    index: SearchIndex, leg: Leg, query: str, row: int, pruning: Pruning | None = None
) -> list[TokenMatch]:
    """Which tokens of a query a chunk has, by one ranking; a dense ranking has no tokens."""
    if leg.mode == "bm25":
        return explain_bm25(leg, query, row)
    if leg.mode == "dense":
        return []
    embeddings = embed_queries(index.state, leg.field, [query])
    assert isinstance(embeddings, SparseEmbeddings)
    return explain_sparse(index, leg, sparse_weights(index, leg, embeddings, 0, pruning), row)
