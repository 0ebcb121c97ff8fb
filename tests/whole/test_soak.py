"""Nights in which things go wrong; the short version of `benchmarks/soak.py` runs with the other tests."""

import pytest
from support.soak import (
    corrupt_source,
    flapping_service,
    full_disk,
    killed_at_a_point,
    run_nights,
)


@pytest.mark.timeout(600)
def test_a_few_nights(tmp_path):
    troubles = [killed_at_a_point, corrupt_source, flapping_service, full_disk]
    soak = run_nights(tmp_path, len(troubles), seed=4, troubles=troubles)
    assert soak.survived == soak.injected
    assert len(soak.injected) >= 4, soak.injected


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_thirty_nights(tmp_path):
    soak = run_nights(tmp_path, 30, seed=30)
    assert soak.survived == soak.injected
    assert sum(soak.injected.values()) > 40
