"""Sizes in tokens: no chunk exceeds them, whatever the tokenizer does."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.texts import texts

from models.chunking_settings import parse_chunking_settings
from models.errors import InferenceError
from models.text import utf16_length
from transforms.chunk.strategies import chunk_text

SPECIAL = 2
STRATEGIES = [
    {"strategy": "word", "overlap": 3},
    {"strategy": "word", "overlap": 0},
    {"strategy": "sentence", "sentence_overlap": 1},
    {"strategy": "sentence", "sentence_overlap": 0},
    {"strategy": "recursive", "separator_group": "markdown"},
]


def count_tokens(texts):
    """A subword tokenizer: up to four characters of a word a token, and a token more where words meet a digit."""
    counts = [
        SPECIAL + sum(-(-len(word) // 4) for word in text.split()) + sum(each.isdigit() for each in text[:-1])
        for text in texts
    ]
    return np.array(counts, np.int32)


def chunks_in_tokens(text, size, **raw):
    chosen = parse_chunking_settings({"max_chunk_size": size, "size_unit": "tokens", **raw})
    return chunk_text(text, chosen, count_tokens)


@settings(max_examples=60)
@given(texts, st.integers(20, 60), st.sampled_from(STRATEGIES))
def test_no_chunk_exceeds_the_size(text, size, raw):
    chunks = chunks_in_tokens(text, size, **raw)
    assert max(count_tokens([chunk.text for chunk in chunks])) <= size
    assert chunks[0].start_offset == 0
    assert chunks[-1].end_offset == utf16_length(text)
    for before, after in pairwise(chunks):
        assert before.start_offset < after.start_offset <= before.end_offset < after.end_offset


def test_special_tokens_count():
    chunks = chunks_in_tokens("abcd " * 40, 12, strategy="word", overlap=0)
    assert [len(chunk.text.split()) for chunk in chunks] == [10] * 4


def test_words_are_repeated_up_to_the_overlap():
    chunks = chunks_in_tokens(
        "aaaa bbbb cccc dddd eeee ffff gggg hhhh iiii jjjj", 10, strategy="word", overlap=2
    )
    words = [chunk.text.split() for chunk in chunks]
    assert [len(each) for each in words] == [8, 4]
    assert words[0][-2:] == words[1][:2]


def test_the_previous_sentence_is_repeated_where_it_fits():
    text = "Aaaa bbbb cccc. Dddd eeee ffff. Gggg hhhh iiii. Jjjj kkkk llll. Mmmm nnnn oooo. "
    chunks = chunks_in_tokens(text, 20, strategy="sentence", sentence_overlap=1)
    assert len(chunks) > 1
    for before, after in pairwise(chunks):
        assert before.end_offset - after.start_offset == 16


def test_a_word_longer_than_a_chunk_is_cut():
    chunks = chunks_in_tokens("x" * 1000, 20, strategy="sentence", sentence_overlap=0)
    assert "".join(chunk.text for chunk in chunks) == "x" * 1000
    assert all(len(chunk.text) <= 72 for chunk in chunks)


def test_estimates_that_are_too_low_are_corrected():
    """A tokenizer that finds more in a whole than in its parts."""

    def grudging(texts):
        return np.array([len(text.split()) + (5 if "  " in text else 0) for text in texts], np.int32)

    chosen = parse_chunking_settings(
        {"strategy": "word", "max_chunk_size": 10, "overlap": 0, "size_unit": "tokens"}
    )
    chunks = chunk_text("a  b " * 50, chosen, grudging)
    assert max(grudging([chunk.text for chunk in chunks])) <= 10
    assert "".join(chunk.text for chunk in chunks) == "a  b " * 50


def test_a_size_without_room_is_refused():
    def verbose(texts):
        return np.array([30 + len(text) for text in texts], np.int32)

    chosen = parse_chunking_settings({"strategy": "sentence", "max_chunk_size": 20, "size_unit": "tokens"})
    with pytest.raises(InferenceError, match=r"max_chunk_size \[20\] leaves no room for text"):
        chunk_text("text", chosen, verbose)


def test_tokens_need_a_tokenizer():
    chosen = parse_chunking_settings({"strategy": "sentence", "max_chunk_size": 20, "size_unit": "tokens"})
    with pytest.raises(InferenceError, match="needs the tokenizer of an endpoint"):
        chunk_text("text", chosen)
