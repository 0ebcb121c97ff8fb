"""Join rankings of the same documents: reciprocal rank fusion, or a weighted sum of scaled scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.search.ranking import Ranking

RANK_CONSTANT = 60
"""How slowly a rank loses weight; Elasticsearch's default, and that of Cormack et al. (2009)."""


@dataclass(frozen=True)
class FusedHit:
    """A document and what it got.

    Attributes:
        document: its number.
        score: its fused score.
        parts: what each ranking added to the score, 0 where it does not hold the document; empty for one ranking.
        best: position of the ranking that added most: its best chunk is shown.
    """

    document: int
    score: float
    parts: tuple[float, ...]
    best: int


def alone(ranking: Ranking) -> list[FusedHit]:
    """The hits of a search by one ranking, which has nothing to join."""
    return [FusedHit(document, score, (), 0) for document, score in ranking.pairs()]


def reciprocal_rank(rankings: Sequence[Ranking], k: int) -> list[FusedHit]:
    """Score a document by the sum of ``1 / (60 + rank)`` over the rankings that hold it."""
    added = [
        {document: 1 / (RANK_CONSTANT + rank) for rank, document in enumerate(ranking.documents.tolist(), 1)}
        for ranking in rankings
    ]
    return _fuse(added, k)


def linear(rankings: Sequence[Ranking], weights: Sequence[float], k: int) -> list[FusedHit]:
    """Score a document by the weighted sum of its scores, each ranking's scaled to 0 (last) to 1 (best)."""
    added = []
    for ranking, weight in zip(rankings, weights, strict=True):
        low, high = (float(ranking.scores.min()), float(ranking.scores.max())) if len(ranking) else (0.0, 0.0)
        # Where all scores are equal nothing tells last from best: all are best.
        scaled = (ranking.scores - low) / (high - low) if high > low else np.ones(len(ranking))
        added.append(dict(zip(ranking.documents.tolist(), (weight * scaled).tolist(), strict=True)))
    return _fuse(added, k)


def _fuse(added: Sequence[dict[int, float]], k: int) -> list[FusedHit]:
    """Add up what each ranking gave: the `k` best documents, equal scores in order of document."""
    hits = []
    for document in dict.fromkeys(document for scores in added for document in scores):
        parts = tuple(scores.get(document, 0.0) for scores in added)
        held = [at for at, scores in enumerate(added) if document in scores]
        hits.append(FusedHit(document, sum(parts), parts, max(held, key=lambda at: parts[at])))
    return sorted(hits, key=lambda hit: (-hit.score, hit.document))[:k]
