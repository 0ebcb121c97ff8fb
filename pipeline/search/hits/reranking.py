"""Rank the documents of a search again, with a model that reads the query and each one's best chunk together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.endpoints.registry import Registry
from models.errors import InferenceError
from models.open_model import usable_rerank_model
from models.reranker import Relevance, Reranker
from pipeline.errors import PipelineError
from pipeline.search.fusion import FusedHit
from pipeline.search.hits.hit import Retrieved
from pipeline.search.loaded import loaded
from pipeline.search.open_index import SearchIndex
from pipeline.search.ranking import Ranking

DEPTH = 100
"""Documents of a ranking that are ranked again."""


@dataclass(frozen=True)
class Reranked:
    """A document with its new score.

    Attributes:
        hit: the document, as it was found.
        score: its relevance.
        before: its place among those that were found.
    """

    hit: FusedHit
    score: float
    before: Retrieved


def open_reranker(inference_id: str, endpoints: str | None, models: Mapping[str, Any]) -> Reranker:
    """Load the model of an endpoint that reranks, once a process.

    Args:
        inference_id: the endpoint.
        endpoints: folder of the definitions.
        models: where weights lie, as in a run config.

    Raises:
        PipelineError: there is no such endpoint, or its model cannot be used.
    """
    try:
        model = usable_rerank_model(Registry(endpoints).get(inference_id), models)
        return loaded(model)
    except InferenceError as error:
        problem = error.reason
    raise PipelineError(f"[{inference_id}] cannot rerank: {problem}")


def reranker_of(index: SearchIndex, reranker: Reranker | str) -> Reranker:
    """A reranker as it is, or that of an endpoint that the index's table knows."""
    if not isinstance(reranker, str):
        return reranker
    metadata = index.state.metadata
    return open_reranker(reranker, metadata.get("endpoints_path"), metadata.get("models") or {})


def best_row(ranking: Ranking, document: int) -> int:
    """The row of a document's best chunk in a ranking that holds it."""
    return int(ranking.rows[np.flatnonzero(ranking.documents == document)[0]])


def rerank(
    index: SearchIndex,
    reranker: Reranker,
    query: str,
    found: Sequence[FusedHit],
    rankings: Sequence[Ranking],
) -> tuple[list[Reranked], Relevance]:
    """Rank documents again by their best chunks; equal scores stay in the order in which they were found.

    Args:
        index: the index.
        reranker: the model.
        query: what is looked for.
        found: the documents to rank again, best first.
        rankings: where each one's best chunk is.

    Returns:
        The documents, best first, and what the model gave.
    """
    texts = []
    for hit in found:
        ranking = rankings[hit.best]
        texts.append(index.chunk(ranking.unit, best_row(ranking, hit.document)).text)
    relevance = reranker.rerank(query, texts)
    scores = relevance.scores.astype(np.float64).tolist()
    ordered = [
        Reranked(found[at], scores[at], Retrieved(at + 1, found[at].score))
        for at in relevance.order().tolist()
    ]
    return ordered, relevance
