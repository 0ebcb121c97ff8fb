"""Text in Java's terms: UTF-16 offsets, white space, and how values print."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.texts import texts

from models.text import Utf16Text, is_blank, java_string, utf16_length


def units(text):
    """The code units of a text, two bytes each."""
    return text.encode("utf-16-le", "surrogatepass")


@settings(max_examples=150, deadline=None)
@given(texts | st.text(), st.data())
@example("a😀b", None)
@example("\ud83d\ude00 parted", None)
@example("\ude00\ud83d", None)
def test_slices_are_those_of_the_code_units(text, data):
    whole = Utf16Text(text)
    assert whole.length == utf16_length(text) == len(units(text)) // 2
    assert whole.code_units().tobytes() == units(text)
    characters = len(whole.text)
    cuts = (
        [0, characters]
        if data is None
        else sorted(data.draw(st.lists(st.integers(0, characters), min_size=2)))
    )
    start, end = cuts[0], cuts[-1]
    offsets = [whole.offset(position) for position in (start, end)]
    assert offsets == [len(units(whole.text[:position])) // 2 for position in (start, end)]
    assert [whole.position(offset) for offset in offsets] == [start, end]
    assert whole.slice(*offsets) == whole.text[start:end]


def test_an_offset_inside_a_pair_is_that_of_the_pair():
    assert [Utf16Text("a😀b").position(offset) for offset in range(5)] == [0, 1, 1, 2, 3]


def test_blank_is_javas_white_space():
    assert is_blank(" \t\n\r\x0b\x0c\x1c\u2003\u2028\u3000")
    assert not is_blank("\u00a0")
    assert not is_blank("\x85")


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (13.49, "13.49"), (1.0, "1.0"), (100.0, "100.0"), (0.001, "0.001"), (0.00015, "1.5E-4"), (1e7, "1.0E7"),
        (12345678.9, "1.23456789E7"), (-2.5, "-2.5"), (-0.0, "-0.0"), (0.1 + 0.2, "0.30000000000000004"),
        (5e-324, "4.9E-324"), (float("inf"), "Infinity"), (float("nan"), "NaN"),
        (True, "true"), (75, "75"), (2**70, str(2**70)), (None, "null"), ("x", "x"), ([1, "a"], "[1, a]"),
        ({"a": 1.5}, "{a=1.5}"),
    ],
)  # fmt: skip
def test_values_are_printed_the_java_way(value, printed):
    assert java_string(value) == printed
