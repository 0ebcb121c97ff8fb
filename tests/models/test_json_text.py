"""JSON from outside is bounded, and what is wrong with it is a sentence."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.json_text import MAX_DEPTH, check_depth, parse_json


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested deeper"),
        ('{"a":' * 500 + "1" + "}" * 500, "nested deeper"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "nested deeper"),
        ("{", "at line 1, column 2"),
        (b"\xff", "UTF-8|line 1"),
        ("9" * 10_000, "digits"),
    ],
)
def test_what_is_no_json_is_a_sentence(text, said):
    with pytest.raises(ValueError, match=said):
        parse_json(text)


def test_ordinary_depth_is_fine():
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_json(text)
    with pytest.raises(ValueError, match="nested deeper"):
        check_depth([[[1]]], 1)


@given(st.text())
def test_any_text_is_a_value_or_a_sentence(text):
    with suppress(ValueError):
        parse_json(text)
