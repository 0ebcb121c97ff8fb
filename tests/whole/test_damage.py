"""Sixty flipped bits in part files, index and log: what changes data is found, no answer is wrong, all is healed."""

import pytest
from support.damage import WAYS, flips, small_table, trial


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_flipped_bit_goes_unnoticed(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    job = small_table(tmp_path / "run")
    wrong = {}
    for number, flip in enumerate(flips(job, 60, seed=14)):
        found = trial(job, flip, WAYS[number // 10 % 3] if number % 10 == 0 else "")
        if found:
            wrong[flip] = found
    assert wrong == {}
