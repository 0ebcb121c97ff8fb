"""Histograms of lengths, which add up over workers."""

from collections import Counter
from collections.abc import Iterable

Histogram = dict[str, int]
"""Length, as a string because JSON's keys are strings -> number of chunks."""


def histogram(lengths: Iterable[int]) -> Histogram:
    """Count how often each length occurs."""
    return {str(length): count for length, count in sorted(Counter(lengths).items())}


def add_histograms(histograms: Iterable[Histogram]) -> Histogram:
    """Add histograms up."""
    total: Counter[int] = Counter()
    for one in histograms:
        total.update({int(length): count for length, count in one.items()})
    return {str(length): count for length, count in sorted(total.items())}


def percentile(lengths: Histogram, share: float) -> int:
    """The length that `share` of the chunks do not exceed; 0 where there are none."""
    wanted = share * sum(lengths.values())
    passed = 0
    for length, count in lengths.items():
        passed += count
        if passed >= wanted:
            return int(length)
    return 0
