"""A migration whose processes are killed while another process searches; `support.moving` does it."""

from pathlib import Path

import pytest
from support.moving import Move, move_under_fire


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_killed_five_times_while_searched(tmp_path):
    move = Move(
        tmp_path,
        Path("data/xquad/corpus.jsonl").resolve(),
        ["career sacks", "Who won?"],
        ".minilm-l6-v2",
        ".hashing-dense",
    )
    outcome = move_under_fire(move, {"--to": 3, "--switch": 1, "--drop-old": 1})
    assert outcome.wrong == []
    assert outcome.answers > 10
    assert outcome.embedded == outcome.expected
    assert outcome.same_chunks
    assert outcome.largest_difference < 1e-6
