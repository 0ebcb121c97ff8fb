"""Search an index: rank documents by one or several kinds of evidence, and show what was found."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from models.embeddings import SparseEmbeddings
from models.reranker import Reranker
from pipeline.errors import PipelineError
from pipeline.search.explain import TokenMatch, explain_bm25, explain_sparse, highlighted, marked
from pipeline.search.filter_shape import check_filter
from pipeline.search.filters import Filter, matching, parse_filters
from pipeline.search.fusion import FusedHit, alone, linear, reciprocal_rank
from pipeline.search.hits.chunks import ScoredRows, chunk_hits, chunk_scorer
from pipeline.search.hits.hit import ChunkHit, Hit
from pipeline.search.hits.reranking import DEPTH, best_row, rerank, reranker_of
from pipeline.search.open_index import Bools, SearchIndex, opened
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
        chunks: chunks of each hit to show.
        neighbours: chunks to show before and after each of them.
        min_score: hits that score less are left out.
        rerank: rank the best documents again: an endpoint of task type `rerank`, or its loaded model.
        depth: documents to rank again, `k` at least.
    """

    mode: Mode = "hybrid"
    field: str | None = None
    k: int = 10
    filter: Filter | str | None = None
    fusion: Literal["rrf", "linear"] = "rrf"
    weights: Mapping[str, float] = dataclasses.field(default_factory=lambda: WEIGHTS)
    pruning: Pruning | None = None
    explain: bool = False
    chunks: int = 1
    neighbours: int = 0
    min_score: float | None = None
    rerank: Reranker | str | None = None
    depth: int = DEPTH

    def problem(self) -> str | None:
        """What cannot be; None where all can."""
        if self.k < 1:
            return f"[k] is the number of documents to find, at least 1; got {self.k}"
        if self.chunks < 1 or self.neighbours < 0:
            return "[chunks] is at least 1 and [neighbours] at least 0"
        if self.rerank is not None and self.depth < self.k:
            return (
                f"[depth] is the number of documents to rank again, at least [k] ({self.k}); got {self.depth}"
            )
        return None


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
    if problem := options.problem():
        raise PipelineError(problem)
    if not all(query.strip() for query in queries):
        raise PipelineError("a query is empty: there is nothing to look for")
    retrievers = find_retrievers(index, options.mode, options.field)
    allowed = allowed_documents(index, options.filter)
    reranker = None if options.rerank is None else reranker_of(index, options.rerank)
    wanted = options.k if reranker is None else options.depth
    # What is to be joined is ranked deeper: a document that every ranking has low may come first.
    depth = max(wanted, RANK_WINDOW) if options.mode == "hybrid" else wanted
    ranked = [
        retrieve(index, retriever, queries, depth, allowed=allowed, pruning=options.pruning)
        for retriever in retrievers
    ]
    hits = []
    for at, query in enumerate(queries):
        asked = _Asked(index, query, options, retrievers, [of_queries[at] for of_queries in ranked])
        found = join(asked.rankings, retrievers, replace(options, k=wanted))
        if reranker is None:
            shown = [asked.hit(one) for one in found if _is_enough(one.score, options)]
        else:
            ordered, _ = rerank(index, reranker, query, found, asked.rankings)
            best = [one for one in ordered[: options.k] if _is_enough(one.score, options)]
            shown = [replace(asked.hit(one.hit), score=one.score, retrieved=one.before) for one in best]
        hits.append(shown)
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


def _is_enough(score: float, options: SearchOptions) -> bool:
    return options.min_score is None or score >= options.min_score


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


@dataclass(frozen=True)
class _Asked:
    """One query with what was found for it."""

    index: SearchIndex
    query: str
    options: SearchOptions
    retrievers: Sequence[Retriever]
    rankings: Sequence[Ranking]

    def hit(self, found: FusedHit) -> Hit:
        """Show a document by its best chunk in the ranking that added most to its score."""
        ranking, options = self.rankings[found.best], self.options
        row = best_row(ranking, found.document)
        chunk = self.index.chunk(ranking.unit, row)
        explanation = {}
        if options.explain:
            # Another unit has other chunks: only retrievers of this one can say something of this chunk.
            same_unit = [one for one in self.retrievers if one.unit is ranking.unit]
            explanation = {
                one.name: explain(self.index, one, self.query, row, options.pruning) for one in same_unit
            }
        tokens = [match.token for matches in explanation.values() for match in matches]
        highlight = marked(chunk.text, highlighted(ranking.unit, chunk.text, self.query, tokens))
        names = [retriever.name for retriever in self.retrievers] if found.parts else []
        parts = {name: part for name, part in zip(names, found.parts, strict=True) if part}
        name, chunks = self.index.document_id(found.document), self._chunks(found)
        return Hit(name, found.score, chunk, highlight, parts, explanation, chunks)

    def _chunks(self, found: FusedHit) -> tuple[ChunkHit, ...]:
        if self.options.chunks == 1 and self.options.neighbours == 0:
            return ()
        rows = self._scorer(found.best)(found.document)[: self.options.chunks]
        return chunk_hits(self.index, self.rankings[found.best].unit, rows, self.options.neighbours)

    def _scorer(self, number: int) -> Callable[[int], ScoredRows]:
        """What scores chunks as one of the retrievers does; made once a query, since it may embed it."""
        if number not in self._scorers:
            retriever = self.retrievers[number]
            self._scorers[number] = chunk_scorer(self.index, retriever, self.query, self.options.pruning)
        return self._scorers[number]

    _scorers: dict[int, Callable[[int], ScoredRows]] = dataclasses.field(default_factory=dict)


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
