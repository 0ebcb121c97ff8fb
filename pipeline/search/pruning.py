"""Leave out the tokens of a sparse query that cost much and say little, by Elasticsearch's rule."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Pruning:
    """Elasticsearch's ``pruning_config``.

    Attributes:
        tokens_freq_ratio_threshold: a token is frequent when it is in this many times as many chunks as the average
            token.
        tokens_weight_threshold: a token is light when its weight is at most this share of the query's heaviest.
    """

    tokens_freq_ratio_threshold: float = 5.0
    tokens_weight_threshold: float = 0.4

    def __post_init__(self) -> None:
        if not 1 <= self.tokens_freq_ratio_threshold <= 100:
            raise ValueError(
                "[tokens_freq_ratio_threshold] must be between [1] and [100], got"
                f" {self.tokens_freq_ratio_threshold}"
            )
        if not 0 <= self.tokens_weight_threshold <= 1:
            raise ValueError(
                f"[tokens_weight_threshold] must be between 0 and 1, got {self.tokens_weight_threshold}"
            )


def prune_tokens(
    weights: Mapping[str, float], counts: Mapping[str, int], chunks: int, pruning: Pruning
) -> dict[str, float]:
    """Keep the tokens that are not frequent, or not light; those that no chunk has go as well.

    Args:
        weights: token -> weight in the query.
        counts: token -> chunks that have it, for all tokens of the field.
        chunks: number of chunks.
        pruning: the thresholds.
    """
    if not weights or not counts:
        return {}
    # The share of the chunks that the average token is in.
    average_ratio = sum(counts.values()) / chunks / len(counts)
    frequent = pruning.tokens_freq_ratio_threshold * average_ratio
    light = pruning.tokens_weight_threshold * max(weights.values())
    return {
        token: weight
        for token, weight in weights.items()
        if counts.get(token) and (counts[token] / chunks < frequent or weight > light)
    }
