"""What holds for every text: order, coverage, sizes, offsets, and agreement with the rules written down slowly."""

import random
import time
from itertools import pairwise

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import reference_chunking as reference
from support.texts import SEPARATORS, WORDS, texts

from models.chunking_settings import SEPARATOR_GROUPS, ChunkingSettings
from models.text import Utf16Text, utf16_length
from transforms.chunk.boundaries import (
    count_words,
    find_sentences,
    find_words,
    find_words_of,
    word_count_bound,
    word_count_bounds,
)
from transforms.chunk.strategies import chunk_spans, chunk_text, spans_of

SIZES = st.integers(1, 60)
many = settings(max_examples=150)
all_settings = st.one_of(
    st.builds(
        lambda size, share: ChunkingSettings("word", size, overlap=int(share * (size // 2))),
        SIZES,
        st.floats(0, 1),
    ),
    st.builds(
        lambda size, overlap: ChunkingSettings("sentence", size, sentence_overlap=overlap),
        SIZES,
        st.sampled_from([0, 1]),
    ),
    st.builds(
        lambda size, group: ChunkingSettings("recursive", size, separators=SEPARATOR_GROUPS[group]),
        SIZES,
        st.sampled_from(sorted(SEPARATOR_GROUPS)),
    ),
    st.just(ChunkingSettings("none")),
)


def spans(chunks):
    return [(chunk.start_offset, chunk.end_offset) for chunk in chunks]


@many
@given(texts, SIZES, st.floats(0, 1))
@example("", 10, 0.0)
def test_word_chunks_follow_the_rules(text, size, share):
    overlap = int(share * (size // 2))
    chunks = chunk_text(text, ChunkingSettings("word", size, overlap=overlap))
    assert spans(chunks) == [(start, end) for start, end, _ in reference.word_chunks(text, size, overlap)]


@many
@given(texts, SIZES, st.booleans())
@example("\n\n", 10, True)
def test_sentence_chunks_follow_the_rules(text, size, overlap):
    chunks = chunk_text(text, ChunkingSettings("sentence", size, sentence_overlap=int(overlap)))
    assert spans(chunks) == reference.sentence_chunks(text, size, overlap)


@many
@given(texts, SIZES)
def test_recursive_chunks_follow_the_rules(text, size):
    separators = ("\n# ", "\n", r"[.。] ?")
    patterns = [regex.compile(separator) for separator in separators]

    def matches_of(pattern):
        return lambda region: [utf16_length(region[: match.start()]) for match in pattern.finditer(region)]

    chunks = chunk_text(text, ChunkingSettings("recursive", size, separators=separators))
    assert spans(chunks) == reference.recursive_chunks(
        text, size, [matches_of(pattern) for pattern in patterns]
    )


@many
@given(texts, all_settings)
def test_offsets_are_ordered_and_slice_back(text, chosen):
    chunks = chunk_text(text, chosen)
    assert chunks
    assert spans(chunks) == sorted(spans(chunks))
    assert len(set(spans(chunks))) == len(chunks)
    for chunk in chunks:
        assert 0 <= chunk.start_offset <= chunk.end_offset <= utf16_length(text)
        assert chunk.text == reference.cut(text, chunk.start_offset, chunk.end_offset)


@many
@given(texts, all_settings)
def test_chunks_cover_the_text(text, chosen):
    chunks = chunk_text(text, chosen)
    assert chunks[0].start_offset == 0
    for before, after in pairwise(chunks):
        assert after.start_offset <= before.end_offset
    uncovered = reference.cut(text, chunks[-1].end_offset, utf16_length(text))
    # Only the word strategy may leave something out: what follows the last word of a full chunk.
    assert count_words(uncovered) == 0
    assert not uncovered or chosen.strategy == "word"


@many
@given(texts, st.integers(1, 60), st.sampled_from([0, 1]))
def test_sentence_chunks_are_never_too_large(text, size, overlap):
    chunks = chunk_text(text, ChunkingSettings("sentence", size, sentence_overlap=overlap))
    # The words of a text can be fewer than those of its parts: a cut may part what a dictionary joins.
    assert max(len(find_words(Utf16Text(chunk.text)).ends()) for chunk in chunks) <= size + dictionary_slack(
        text
    )


def dictionary_slack(text):
    """Chunks of scripts without spaces may be segmented differently on their own, by a few words."""
    return 0 if text.isascii() else 5


@many
@given(texts, all_settings)
def test_contiguous_chunks_cover_each_character_once(text, chosen):
    contiguous = ChunkingSettings(
        **{
            name: getattr(chosen, name)
            for name in ("strategy", "max_chunk_size", "overlap", "sentence_overlap", "separators")
        },
        contiguous=True,
    )
    found = spans(chunk_text(text, contiguous))
    assert found[0][0] == 0
    assert found[-1][1] == utf16_length(text)
    assert all(before[1] == after[0] for before, after in pairwise(found))
    assert all(start < end for start, end in found) or found == [(0, 0)]


@many
@given(texts, all_settings)
def test_same_text_same_chunks(text, chosen):
    assert chunk_text(text, chosen) == chunk_text(text, chosen)


@many
@given(texts)
def test_bound_is_never_below_the_count(text):
    whole = Utf16Text(text)
    ends = find_sentences(whole).tolist()
    words = find_words(whole)
    counted = sum(int(words.count(start, end)) for start, end in zip([0, *ends], ends, strict=False))
    assert counted <= word_count_bounds(["one", text, ""])[1] == word_count_bound(text)


@settings(max_examples=60)
@given(st.lists(texts, max_size=6), st.integers(0, 1))
def test_texts_have_the_same_words_together_and_alone(some, long):
    """Long: all go through the arrays, which those of a few short texts alone never do."""
    whole = [Utf16Text(text) for text in [*some, "a b. " * 400 * long]]
    for text, found in zip(whole, find_words_of(whole), strict=True):
        alone = find_words(text)
        assert found.offsets.tolist() == alone.offsets.tolist()
        assert found.counts.tolist() == alone.counts.tolist()


@settings(max_examples=60)
@given(st.lists(texts, max_size=6), all_settings)
def test_texts_are_cut_together_as_alone(some, chosen):
    whole = [Utf16Text(text) for text in [*some, "a b. " * 400]]
    assert spans_of(whole, chosen) == [chunk_spans(text, chosen) for text in whole]


@pytest.mark.parametrize("seed", range(12))
def test_long_mixed_texts_follow_the_rules(seed):
    """Long enough for the fast path of word boundaries, with hard stretches in between."""
    chance = random.Random(seed)
    words = chance.choice([WORDS, WORDS[:13], chance.sample(WORDS, 6)])
    separators = chance.choice([SEPARATORS, SEPARATORS[:12], chance.sample(SEPARATORS, 4)])
    text = "".join(chance.choice(words) + chance.choice(separators) for _ in range(900))
    for size in (10, 21, 100):
        for overlap in (0, 1):
            chunks = chunk_text(text, ChunkingSettings("sentence", size, sentence_overlap=overlap))
            assert spans(chunks) == reference.sentence_chunks(text, size, bool(overlap))
        chunks = chunk_text(text, ChunkingSettings("word", size, overlap=size // 3))
        assert spans(chunks) == [
            (start, end) for start, end, _ in reference.word_chunks(text, size, size // 3)
        ]


@pytest.mark.parametrize(
    "line", ["Every word of this line is counted once. ", "no end of a sentence here, ", "中文分词，"]
)
def test_cost_grows_with_the_length(line):
    def seconds(repeats):
        text = line * repeats
        started = time.process_time()
        chunks = chunk_text(text, ChunkingSettings("sentence", 250, sentence_overlap=1))
        assert chunks[-1].end_offset == len(text)
        return time.process_time() - started

    seconds(100)
    small, large = min(seconds(2_000) for _ in range(3)), seconds(32_000)
    assert large < 16 * small * 4
