"""Byte-level BPE by `fastokens` against the library `tokenizers`, which is right by definition."""

import json
import logging
import sys
from functools import lru_cache
from itertools import chain
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.odd_texts import CODE_POINTS, odd_text
from support.paths import ROOT
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from models.local import byte_pairs
from models.local.byte_pairs import BytePairs, cut, is_known
from models.local.tokens import Tokens

KINDS = ("qwen", "llama", "modernbert")


def template(single: str) -> Any:
    return processors.TemplateProcessing(single=single, special_tokens=[("<s>", 0), ("</s>", 1)])


def split(pattern: str) -> Any:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])


@lru_cache
def trained(kind: str) -> str:
    """A tokenizer with a small vocabulary and the parts of a large one, as JSON."""
    made = Tokenizer(models.BPE(ignore_merges=kind == "llama"))
    qwen, llama = byte_pairs._PATTERNS
    if kind != "llama":
        made.normalizer = normalizers.NFC()
    made.pre_tokenizer = {
        "qwen": split(qwen),
        "llama": split(llama),
        "modernbert": pre_tokenizers.ByteLevel(add_prefix_space=False),
    }[kind]
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>"],
        show_progress=False,
    )
    made.train_from_iterator(shipped_texts()[:300], trainer)
    made.add_tokens(
        [
            AddedToken("<mask>", lstrip=True, special=True),
            AddedToken("<r>", rstrip=True, normalized=False),
            AddedToken("word", single_word=True, normalized=False),
            AddedToken("    ", normalized=kind != "llama"),
        ]
    )
    made.post_processor = template("$A </s>" if kind == "qwen" else "<s> $A </s>")
    return made.to_str()


def shipped_texts() -> list[str]:
    paths = sorted((ROOT / "data").glob("*/corpus.jsonl"))
    return [json.loads(line)["text"] for path in paths for line in path.read_text().splitlines()]


def opened(kind: str, window: int | None, monkeypatch: pytest.MonkeyPatch) -> tuple[Tokens, Tokens]:
    """The same tokenizer twice: with `fastokens` from the first text on, and without."""
    monkeypatch.setattr(byte_pairs, "WORTH_OPENING", 0)
    fast, slow = (Tokens(Tokenizer.from_str(trained(kind)), window) for _ in range(2))
    slow._fast = None
    assert isinstance(fast._fast, BytePairs)
    fast.count(["a"])
    assert fast._fast._fast is not None
    return fast, slow


def assert_equal(fast: Tokens, slow: Tokens, texts: list[str]) -> None:
    found, expected = fast.encode(texts), slow.encode(texts)
    for name in ("ids", "lengths", "is_truncated"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert getattr(found, name).dtype == getattr(expected, name).dtype
    np.testing.assert_array_equal(fast.count(texts), slow.count(texts))


def odd_texts(count: int, seed: int) -> list[str]:
    random = Random(seed)
    words = [
        "word",
        "<mask>",
        " <r> ",
        "</s>",
        "    ",
        "'ll",
        "'ſ",
        " \n \n",
        "\r\n",
        "１2³",
        "the",
        " of ",
    ]
    return [odd_text(random, words) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [None, 3, 40])
def test_ids_are_those_of_tokenizers(kind: str, window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, slow = opened(kind, window, monkeypatch)
    assert_equal(fast, slow, shipped_texts()[::30] + odd_texts(1000, window or 0) + ["", " "])
    assert_equal(fast, slow, [])


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_every_code_point(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, slow = opened(kind, None, monkeypatch)
    for start in range(0, len(CODE_POINTS), 1 << 16):
        characters = map(chr, CODE_POINTS[start : start + (1 << 16)])
        assert_equal(fast, slow, [f"x{one}y {one}{one} 1{one}\n{one} " for one in characters])


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_many_odd_texts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, slow = opened(kind, None, monkeypatch)
    for seed in range(5):
        assert_equal(fast, slow, odd_texts(20_000, seed))


def test_little_work_is_not_worth_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_pairs, "WORTH_OPENING", 100)
    tokens = Tokens(Tokenizer.from_str(trained("qwen")), None)
    assert isinstance(tokens._fast, BytePairs)
    first = tokens.encode(["some words"]).ids.tolist()
    assert tokens._fast._fast is None
    tokens.encode(["some words" * 10])
    assert tokens._fast._fast is not None
    assert tokens.encode(["some words"]).ids.tolist() == first


def test_other_ids_are_not_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(byte_pairs, "WORTH_OPENING", 0)
    tokens = Tokens(Tokenizer.from_str(trained("qwen")), None)
    assert isinstance(tokens._fast, BytePairs)
    tokens._fast._read = trained("llama").encode
    expected = Tokenizer.from_str(trained("qwen")).encode("in 1999").ids
    with caplog.at_level(logging.WARNING):
        assert tokens.encode(["in 1999"]).ids.tolist() == expected
        assert tokens.encode(["in 1999"]).ids.tolist() == expected
    assert [record.message for record in caplog.records] == [
        "fastokens gives other ids than tokenizers; it is not used"
    ]


@pytest.mark.parametrize("missing", ["package", "part"])
def test_without_fastokens_the_library_works(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_pairs, "WORTH_OPENING", 0)
    if missing == "package":
        monkeypatch.setitem(sys.modules, "fastokens", None)
    else:
        monkeypatch.setattr(byte_pairs, "is_known", lambda tokenizer: False)
    tokens = Tokens(Tokenizer.from_str(trained("qwen")), None)
    expected = Tokenizer.from_str(trained("qwen")).encode("plain words").ids
    assert tokens.encode(["plain words"]).ids.tolist() == expected
    assert isinstance(tokens._fast, BytePairs)
    assert tokens._fast._fast is None


def test_offsets_are_the_librarys(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, slow = opened("qwen", 10, monkeypatch)
    texts = ["naïve words 123 <mask> here and there, again", "", "中文"]
    found, expected = fast.encode(texts, offsets=True), slow.encode(texts, offsets=True)
    assert found.offsets is not None
    np.testing.assert_array_equal(found.offsets, expected.offsets)
    np.testing.assert_array_equal(found.ids, fast.encode(texts).ids)


def test_half_a_surrogate_pair_is_the_librarys_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, slow = opened("qwen", 10, monkeypatch)
    with pytest.raises(TypeError) as expected:
        slow.encode(["a\ud800"])
    with pytest.raises(TypeError, match=str(expected.value).split()[0]):
        fast.encode(["a\ud800"])


def changed(kind: str, **parts: Any) -> dict[str, Any]:
    return json.loads(trained(kind)) | parts


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_compared_is_known(kind: str) -> None:
    assert is_known(changed(kind))


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


@pytest.mark.parametrize(
    "tokenizer",
    [
        {},
        changed("qwen", model={"type": "Unigram"}),
        changed("qwen", model={"type": "BPE", "dropout": 0.1}),
        changed("qwen", model={"type": "BPE", "byte_fallback": True}),
        changed("qwen", normalizer={"type": "NFKC"}),
        changed("qwen", normalizer=None),  # with added tokens of both kinds
        changed("qwen", pre_tokenizer=None),
        changed("qwen", pre_tokenizer=BYTE_LEVEL),
        changed("qwen", pre_tokenizer={"type": "Sequence", "pretokenizers": [BYTE_LEVEL]}),
        changed(
            "qwen",
            pre_tokenizer={
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": r"\w+"}, "behavior": "Isolated", "invert": False},
                    BYTE_LEVEL,
                ],
            },
        ),
        changed("qwen", post_processor={"type": "Sequence", "processors": [{"type": "RobertaProcessing"}]}),
    ],
)
def test_other_parts_stay_with_the_library(tokenizer: dict[str, Any]) -> None:
    assert not is_known(tokenizer)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=6), st.none() | st.integers(2, 8), st.integers(0, 2))
def test_cutting_keeps_the_tail(lengths: list[int], window: int | None, tail: int) -> None:
    rows = [[100 * row + place for place in range(length)] for row, length in enumerate(lengths)]
    ids = np.array(list(chain(*rows)), np.int32)
    found = cut(ids, np.array(lengths, np.int32), window, tail)
    most = 9 if window is None else window
    kept = [row if len(row) <= most else row[: most - tail] + row[len(row) - tail :] for row in rows]
    assert found.ids.tolist() == list(chain(*kept))
    assert found.lengths.tolist() == [len(row) for row in kept]
    assert found.is_truncated.tolist() == [length > most for length in lengths]
    assert (found.ids.dtype, found.lengths.dtype) == (np.int32, np.int32)
