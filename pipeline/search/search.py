"""Search an index: rank documents by one or several kinds of evidence, and show what was found."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from models.embeddings import SparseEmbeddings
from pipeline.errors import PipelineError
from pipeline.search.explain import TokenMatch, explain_bm25, explain_sparse, highlighted, marked
from pipeline.search.filter_shape import check_filter
from pipeline.search.filters import Filter, matching, parse_filters
from pipeline.search.fusion import FusedHit, alone, linear, reciprocal_rank
from pipeline.search.open_index import Bools, FoundChunk, SearchIndex, opened
from pipeline.search.pruning import Pruning
from pipeline.search.query_embedding import embed_queries
from pipeline.search.ranking import Ranking
from pipeline.search.retrievers import Mode, Retriever, find_retrievers, retrieve, sparse_weights

RANK_WINDOW = 100
"""Documents of each ranking that a hybrid search joins, at least."""

WEIGHTS = {"bm25": 1.0, "sparse": 1.0, "dense": 1.0}
"""Weight of each kind of retriever in linear fusion."""


@dataclass(frozen=True)
class SearchOptions:
    """How to search.

    Attributes:
        mode: how to rank; `hybrid` joins all retrievers that the field has.
        field: a semantic field, or a text field; by default the first that fits the mode.
        k: number of documents.
        filter: which documents may be found, by their plain fields: an Elasticsearch query, or the short form as text
            (``year>=1970 AND kind=report``).
        fusion: how `hybrid` joins: reciprocal rank fusion, or a weighted sum of min-max scaled scores.
        weights: weight of each kind of retriever in the weighted sum.
        pruning: which tokens of a sparse query to leave out; none by default.
        explain: say of each hit which tokens met.
    """

    mode: Mode = "hybrid"
    field: str | None = None
    k: int = 10
    filter: Filter | str | None = None
    fusion: Literal["rrf", "linear"] = "rrf"
    weights: Mapping[str, float] = dataclasses.field(default_factory=lambda: WEIGHTS)
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
        parts: hybrid search: what each retriever added to the score.
        explanation: retriever -> the tokens of the query that the chunk has; only when asked for.
    """

    id: str
    score: float
    chunk: FoundChunk
    highlight: str = ""
    parts: dict[str, float] = dataclasses.field(default_factory=dict)
    explanation: dict[str, list[TokenMatch]] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The hit as the command prints it."""
        shown: dict[str, Any] = {"_id": self.id, "score": self.score, "chunk": self.chunk.to_json()}
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
    index = opened(index)
    options = replace(options or SearchOptions(), **changes)
    if options.k < 1:
        raise PipelineError(f"[k] is the number of documents to find, at least 1; got {options.k}")
    if not all(query.strip() for query in queries):
        raise PipelineError("a query is empty: there is nothing to look for")
    retrievers = find_retrievers(index, options.mode, options.field)
    allowed = allowed_documents(index, options.filter)
    # What is to be joined is ranked deeper: a document that every ranking has low may come first.
    depth = max(options.k, RANK_WINDOW) if options.mode == "hybrid" else options.k
    ranked = [
        retrieve(index, retriever, queries, depth, allowed=allowed, pruning=options.pruning)
        for retriever in retrievers
    ]
    hits = []
    for at, query in enumerate(queries):
        rankings = [of_queries[at] for of_queries in ranked]
        found = join(rankings, retrievers, options)
        hits.append([_hit(index, query, options, retrievers, rankings[one.best], one) for one in found])
    return hits


def allowed_documents(index: SearchIndex, asked: Filter | str | None) -> Bools | None:
    """Which documents a filter lets through, by number; None where there is none.

    Args:
        index: the index.
        asked: an Elasticsearch query, or the short form as text.

    Raises:
        PipelineError: the filter is not understood, or names a field that no filter can use.
    """
    query = parse_filters([asked]) if isinstance(asked, str) else asked
    if query is None:
        return None
    check_filter(query)
    return matching(index, query)


def join(
    rankings: Sequence[Ranking], retrievers: Sequence[Retriever], options: SearchOptions
) -> list[FusedHit]:
    """The documents of a search, best first: those of its one ranking, or of all rankings of a hybrid search.

    Args:
        rankings: one of each retriever.
        retrievers: the retrievers of `find_retrievers`.
        options: how to join.

    Raises:
        PipelineError: linear fusion lacks the weight of a retriever.
    """
    if options.mode != "hybrid":
        return [hit for ranking in rankings for hit in alone(ranking)]
    if options.fusion == "rrf":
        return reciprocal_rank(rankings, options.k)
    kinds = [retriever.mode for retriever in retrievers]
    missing = [kind for kind in kinds if kind not in options.weights]
    if missing:
        raise PipelineError(f"no weight for {missing[0]}; name one for each of {', '.join(kinds)}")
    return linear(rankings, [options.weights[kind] for kind in kinds], options.k)


def _hit(
    index: SearchIndex,
    query: str,
    options: SearchOptions,
    retrievers: Sequence[Retriever],
    ranking: Ranking,
    found: FusedHit,
) -> Hit:
    """Show a document by its best chunk in the ranking that added most to its score."""
    row = int(ranking.rows[np.flatnonzero(ranking.documents == found.document)[0]])
    chunk = index.chunk(ranking.unit, row)
    explanation = {}
    if options.explain:
        # Another unit has other chunks: only retrievers of this one can say something of this chunk.
        same_unit = [one for one in retrievers if one.unit is ranking.unit]
        explanation = {one.name: explain(index, one, query, row, options.pruning) for one in same_unit}
    tokens = [match.token for matches in explanation.values() for match in matches]
    highlight = marked(chunk.text, highlighted(ranking.unit, chunk.text, query, tokens))
    names = [retriever.name for retriever in retrievers] if found.parts else []
    parts = {name: part for name, part in zip(names, found.parts, strict=True) if part}
    return Hit(index.document_id(found.document), found.score, chunk, highlight, parts, explanation)


def explain(
    index: SearchIndex, retriever: Retriever, query: str, row: int, pruning: Pruning | None = None
) -> list[TokenMatch]:
    """Which tokens of a query a chunk has, by one retriever; a dense one has no tokens."""
    if retriever.mode == "bm25":
        return explain_bm25(retriever, query, row)
    if retriever.mode == "dense":
        return []
    embeddings = embed_queries(index.state, retriever.field, [query])
    assert isinstance(embeddings, SparseEmbeddings)
    return explain_sparse(index, retriever, sparse_weights(index, retriever, embeddings, 0, pruning), row)
