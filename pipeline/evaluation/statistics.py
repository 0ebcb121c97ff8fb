"""How sure a measure is: confidence intervals of a mean, and whether two means differ by more than chance."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SAMPLES = 2_000
"""Bootstrap samples of an interval."""

PERMUTATIONS = 10_000
"""Random signs of a paired test: p values down to 0.0001."""


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
        The difference of the means, second less first, and its p value.
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
