"""How sure a measure is: confidence intervals of a mean, and whether two means differ by more than chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SAMPLES = 2_000
"""Bootstrap samples of an interval."""

PERMUTATIONS = 10_000
"""Random signs of a paired test: p values down to 0.0001."""


@dataclass(frozen=True)
class PairTest:
    """Two means over the same queries, and how often chance alone makes them differ as much.

    Attributes:
        first: name of one.
        second: name of the other.
        difference: mean of the second minus mean of the first.
        p: p value of this pair alone.
        p_holm: p value corrected for all pairs that were tested with it, see `holm`.
    """

    first: str
    second: str
    difference: float
    p: float
    p_holm: float

    def figures(self) -> dict[str, float]:
        """The difference and the p values, as answers in JSON have them."""
        return {"difference": self.difference, "p": self.p, "p_holm": self.p_holm}


def paired_tests(values: Sequence[tuple[str, Floats, str, Floats]]) -> list[PairTest]:
    """Test several pairs, and correct their p values for their number.

    Args:
        values: of each pair the first one's name and measure of each query, then the second one's.
    """
    tests = [paired_test(first, second) for _, first, _, second in values]
    corrected = holm([p for _, p in tests])
    return [
        PairTest(first, second, difference, p, p_holm)
        for (first, _, second, _), (difference, p), p_holm in zip(values, tests, corrected, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct the p values of several tests: with them, one false finding among all is as rare as one says.

    Holm's step-down method (Scandinavian Journal of Statistics, 1979): the smallest of n is multiplied by n, the next
    by n - 1 and so on, and none falls below the one before it.
    """
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values, np.float64)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(p) for p in corrected]


def bootstrap_interval(values: Floats) -> tuple[float, float]:
    """The 95 % confidence interval of a mean, by the bootstrap's percentiles.

    Args:
        values: a measure of each query.
    """
    # A sample draws as many queries as there are, with replacement; the interval holds 95 % of the samples' means.
    picks = np.random.default_rng(0).integers(0, len(values), (SAMPLES, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def paired_test(first: Floats, second: Floats) -> tuple[float, float]:
    """The difference of two means over the same queries, and how often chance alone makes one as large.

    A two-sided randomization test (Smucker et al., CIKM 2007): were the two alike, each query's difference would be as
    likely to have the other sign.

    Args:
        first: a measure of each query.
        second: the same of the same queries, measured otherwise.

    Returns:
        The difference of the means, second minus first, and its p value.
    """
    differences = second - first
    observed = float(differences.mean())
    # A row of signs is one world in which chance alone decided which of the two got which value.
    random = np.random.default_rng(0)
    signs = random.integers(0, 2, (PERMUTATIONS, len(differences)), np.int8).astype(np.float64) * 2 - 1
    chance = np.abs(signs @ differences) / len(differences)
    # What was observed is one of the worlds, so p is never 0; sums of the same numbers may differ in the last digits.
    as_large = chance >= abs(observed) - 1e-12
    return observed, float((np.sum(as_large) + 1) / (PERMUTATIONS + 1))
