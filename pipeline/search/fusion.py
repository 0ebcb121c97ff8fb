"""Join rankings of the same documents: reciprocal rank fusion, or a weighted sum of scaled scores."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.search.ranking import Ranking

RANK_CONSTANT = 60


@dataclass(frozen=True)
class FusedHit:
    """A document and what it got.

    Attributes:
        document: its number.
        score: its fused score.
        parts: what each ranking added to the score; 0 where it is not in it.
        best: position of the ranking that added most: its best chunk is shown.
    """

    document: int
    score: float
    parts: tuple[float, ...]
    best: int


def reciprocal_rank(rankings: Sequence[Ranking], k: int) -> list[FusedHit]:
    """Score a document by the sum of ``1 / (60 + rank)`` over the rankings that hold it."""
    added = [
        {int(document): 1 / (RANK_CONSTANT + rank) for rank, document in enumerate(ranking.documents, 1)}
        for ranking in rankings
    ]
    return _fuse(added, k)


def linear(rankings: Sequence[Ranking], weights: Sequence[float], k: int) -> list[FusedHit]:
    """Score a document by the weighted sum of its scores, each ranking's scaled to 0 (last) to 1 (best)."""
    added = []
    for ranking, weight in zip(rankings, weights, strict=True):
        low, high = (float(ranking.scores.min()), float(ranking.scores.max())) if len(ranking) else (0.0, 0.0)
        scaled = (ranking.scores - low) / (high - low) if high > low else ranking.scores * 0 + 1
        added.append(
            {
                int(document): weight * float(score)
                for document, score in zip(ranking.documents, scaled, strict=True)
            }
        )
    return _fuse(added, k)


def _fuse(added: Sequence[dict[int, float]], k: int) -> list[FusedHit]:
    hits = []
    for document in dict.fromkeys(document for scores in added for document in scores):
        parts = tuple(scores.get(document, 0.0) for scores in added)
        held = [at for at, scores in enumerate(added) if document in scores]
        hits.append(FusedHit(document, sum(parts), parts, max(held, key=lambda at: parts[at])))
    return sorted(hits, key=lambda hit: (-hit.score, hit.document))[:k]
