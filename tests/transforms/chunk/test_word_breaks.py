"""The fast word boundaries against ICU's own: every pair and triple of kinds of characters, and random text."""

import random
from itertools import product

import icu
import numpy as np
import pytest
from hypothesis import given, settings
from support.texts import SEPARATORS, WORDS, texts

from models.text import Utf16Text
from transforms.chunk import word_breaks
from transforms.chunk.word_breaks import BREAK, WORD_END, mark_word_breaks, signed_boundaries

# At least one character of every class that the rules or the table tell apart.
KINDS = [
    *"aZéя1٣_.,:'’\"; \u3000\t\r\n\x85\u2028\u0301\u200d\u00ad❤\ufe0f中の゛ー가กאB߶·‿-$½ªʻ\u0600\u1680\ud800",
    *["😀", "🇩"],
]


def icu_marks(text):
    boundaries = signed_boundaries(text.text)
    marks = np.zeros(text.length + 1, np.uint8)
    marks[0] = BREAK
    marks[np.abs(boundaries)] = np.where(boundaries > 0, WORD_END, BREAK)
    return marks


def fast_marks(text, monkeypatch, block=1 << 18):
    monkeypatch.setattr(word_breaks, "SHORT", 0)
    monkeypatch.setattr(word_breaks, "_BLOCK", block)
    return mark_word_breaks(text.code_units())


def assert_same(text, monkeypatch, block=1 << 18):
    whole = Utf16Text(text)
    assert fast_marks(whole, monkeypatch, block).tolist() == icu_marks(whole).tolist()


@pytest.mark.parametrize("between", ["\n", " x ", "a "])
def test_every_triple_of_kinds(between, monkeypatch):
    assert_same(between.join(map("".join, product(KINDS, repeat=3))), monkeypatch)


def test_every_four_easy_kinds(monkeypatch):
    easy = ["a", "1", "_", ".", ",", ":", "'", " ", "\u3000", "-", "\r", "\n", "\x85", "é"]
    assert_same("\n".join(map("".join, product(easy, repeat=4))), monkeypatch)


@pytest.mark.parametrize("context", ["a{}b\n", "1{}1 ", "_{}_ ", "{}a{} \n", "中{}文 ", "กา{}กา "])
def test_every_character_of_the_basic_plane(context, monkeypatch):
    characters = [chr(code) for code in range(1 << 16) if not 0xD800 <= code < 0xE000]
    assert_same("".join(context.replace("{}", each) for each in characters), monkeypatch)


@pytest.mark.parametrize("seed", range(10))
def test_blocks_end_where_nothing_is_changed(seed, monkeypatch):
    chance = random.Random(seed)
    pool = chance.choice([KINDS, KINDS[:12], [*KINDS[:12], "中"], ["a", "b"]])
    assert_same("".join(chance.choices(pool, k=5000)), monkeypatch, block=300)


@settings(max_examples=300)
@given(texts)
def test_random_text(text):
    with pytest.MonkeyPatch.context() as patch:
        assert_same(text, patch)


def test_prose_in_many_scripts(monkeypatch):
    chance = random.Random(5)
    assert_same("".join(chance.choice(WORDS) + chance.choice(SEPARATORS) for _ in range(20_000)), monkeypatch)


def test_icu_is_new_enough():
    """ICU 77 is what Elasticsearch 9.4 has; older ones count a@b.com as one word."""
    assert int(icu.ICU_VERSION.split(".")[0]) >= 77
