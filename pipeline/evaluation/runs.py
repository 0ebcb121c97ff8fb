"""Rank documents for many queries, by each search mode and where wanted once more by a reranking model."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from models.reranker import Reranker
from pipeline.errors import PipelineError
from pipeline.search.fusion import FusedHit
from pipeline.search.hits.reranking import DEPTH, rerank
from pipeline.search.open_index import Bools, SearchIndex
from pipeline.search.pruning import Pruning
from pipeline.search.query_embedding import query_embedder
from pipeline.search.ranking import Ranking
from pipeline.search.retrievers import Mode, Retriever, find_retrievers, retrieve
from pipeline.search.search import RANK_WINDOW, SearchOptions, join

RANKED = 1000
"""Documents that are ranked for each query."""

BLOCK_QUERIES = 256
"""Queries that are embedded and ranked at a time."""


@dataclass(frozen=True)
class Reading:
    """What a reranking model read for all queries together.

    Attributes:
        texts: pairs of the query and a chunk.
        tokens: their tokens; 0 where a service does not say.
    """

    texts: int = 0
    tokens: int = 0

    def __add__(self, other: "Reading") -> "Reading":
        return Reading(self.texts + other.texts, self.tokens + other.tokens)


@dataclass(frozen=True)
class Reranking:
    """A further mode: one mode's best documents, ranked again.

    Attributes:
        reranker: the model.
        depth: how many documents of a query are ranked again; those after them stay as they are.
        mode: whose documents; None takes `hybrid` where it is measured, else the last mode.
    """

    reranker: Reranker
    depth: int = DEPTH
    mode: str | None = None

    def of(self, modes: Sequence[str]) -> str:
        """The mode whose documents are ranked again.

        Raises:
            PipelineError: it is not measured.
        """
        if self.mode is None:
            return "hybrid" if "hybrid" in modes else modes[-1]
        if self.mode not in modes:
            raise PipelineError(
                f"[{self.mode}] is to be reranked and is not measured; {', '.join(modes)} are"
            )
        return self.mode


@dataclass
class ModeRun:
    """The rankings of one mode.

    Attributes:
        scores: query -> document id -> score, best first.
        seconds: time of all queries.
        reranked: what a reranking read; None for a mode without one.
    """

    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: float = 0.0
    reranked: Reading | None = None


def run_modes(
    index: SearchIndex,
    queries: Mapping[str, str],
    modes: Sequence[Mode],
    field: str | None,
    depth: int,
    *,
    pruning: Pruning | None = None,
    allowed: Bools | None = None,
    reranking: Reranking | None = None,
) -> dict[str, ModeRun]:
    """Rank documents for each query, by each mode.

    Modes share retrievers: `hybrid` joins what the others have ranked already.

    Args:
        index: the index.
        queries: query -> its text.
        modes: search modes.
        field: the field to search, see `search`.
        depth: documents ranked for each query.
        pruning: which tokens of sparse queries to leave out.
        allowed: the documents that may be found; None for all.
        reranking: a further mode.
    """
    retrievers = {mode: find_retrievers(index, mode, field) for mode in modes}
    runs = {str(mode): ModeRun() for mode in modes}
    names = list(queries)
    for one in [one for found in retrievers.values() for one in found if one.mode != "bm25"]:
        query_embedder(index.state, one.field)  # loaded before the clock runs
    again = None if reranking is None else reranking.of(modes)
    if again is not None:
        runs[f"{again}, reranked"] = ModeRun(reranked=Reading())
    # Many queries at a time make one matrix product; all of them at once could take more memory than there is.
    for first in range(0, len(names), BLOCK_QUERIES):
        block = names[first : first + BLOCK_QUERIES]
        texts = [queries[name] for name in block]
        needed = dict.fromkeys(one for found in retrievers.values() for one in found)
        ranked, seconds = {}, {}
        for one in needed:
            begun = time.perf_counter()
            ranked[one] = retrieve(index, one, texts, depth, allowed=allowed, pruning=pruning)
            seconds[one] = time.perf_counter() - begun
        for mode, found in retrievers.items():
            begun = time.perf_counter() - sum(seconds[one] for one in found)
            every = [[ranked[one][at] for one in found] for at in range(len(block))]
            joined = [_joined(mode, found, rankings, depth) for rankings in every]
            for name, hits in zip(block, joined, strict=True):
                runs[mode].scores[name] = {index.ids[hit.document]: hit.score for hit in hits}
            runs[mode].seconds += time.perf_counter() - begun
            if reranking is not None and mode == again:
                run = runs[f"{again}, reranked"]
                for name, hits, rankings in zip(block, joined, every, strict=True):
                    run.scores[name] = _reranked(index, reranking, queries[name], hits, rankings, run)
                run.seconds += time.perf_counter() - begun
    return runs


def _joined(
    mode: Mode, retrievers: Sequence[Retriever], rankings: Sequence[Ranking], depth: int
) -> list[FusedHit]:
    """The documents of one query, best first."""
    if mode == "hybrid":  # joins as many documents of each ranking as a search does
        rankings = [ranking.first(RANK_WINDOW) for ranking in rankings]
    return join(rankings, retrievers, SearchOptions(mode, k=depth))


def _reranked(
    index: SearchIndex,
    reranking: Reranking,
    query: str,
    hits: Sequence[FusedHit],
    rankings: Sequence[Ranking],
    run: ModeRun,
) -> dict[str, float]:
    """Document id -> score of one query, best first: its best documents ranked again, the others behind them."""
    first, rest = hits[: reranking.depth], hits[reranking.depth :]
    ordered, relevance = rerank(index, reranking.reranker, query, first, rankings)
    run.reranked = (run.reranked or Reading()) + Reading(len(first), relevance.tokens)
    scores = {index.ids[one.hit.document]: one.score for one in ordered}
    return scores | {index.ids[hit.document]: hit.score for hit in rest}
