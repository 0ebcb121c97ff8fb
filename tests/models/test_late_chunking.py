"""Late chunking: chunks embedded within their text equal a plain computation, and groups fit the model's window."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.checkpoints import VOCABULARY, add_pooling, endpoint, local_endpoint, make_encoder
from tokenizers import Tokenizer
from tokenizers.models import BPE, Unigram
from tokenizers.pre_tokenizers import ByteLevel, Metaspace
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer, UnigramTrainer

from models.endpoints.preconfigured import preconfigured
from models.errors import InferenceError
from models.late_chunking import LateChunking, extents, fill, late_chunking
from models.local import checkpoint
from models.local.model import local_model
from models.open_model import open_model

TEXT = (
    "the cat sat on the mat and the big dog ran far away from home , red stone . blue tree by the night river"
)
SPANS = [(0, 22), (23, 61), (50, 80), (80, 81), (81, len(TEXT))]
"""Chunks that touch, that leave a blank between them, and that overlap; of one, all is a blank."""


def reference(folder: Path, prefix: str, text: str, spans: list[tuple[int, int]]) -> np.ndarray:
    """The whole text through transformers, then the mean over the tokens of each span, token by token."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    found = AutoTokenizer.from_pretrained(folder)(
        prefix + text, return_tensors="pt", return_offsets_mapping=True
    )
    with torch.inference_mode():
        hidden = model(input_ids=found["input_ids"]).last_hidden_state[0]
    last = [
        int(end) - 1 - len(prefix) for _, end in found["offset_mapping"][0]
    ]  # each token's last character
    text_tokens = [row for row, (start, end) in enumerate(found["offset_mapping"][0]) if end > len(prefix)]
    rows = []
    for start, end in spans:
        own = {row for row in text_tokens if start <= last[row] < end}
        if text_tokens[0] in own:  # with what stands before the text
            own |= set(range(text_tokens[0]))
        if text_tokens[-1] in own:  # with what stands behind it
            own |= set(range(text_tokens[-1], len(hidden)))
        row = hidden[sorted(own or range(len(hidden)))].mean(0)
        rows.append((row / row.norm()).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("prefix", ["", "blue "])
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_chunks_of_bert_equal_transformers(kind: str, prefix: str, kernels: str, tmp_path: Path) -> None:
    folder = make_encoder(kind, tmp_path / "model")
    add_pooling(folder, "mean", prompts={"document": prefix})
    check_against_transformers(folder, prefix)


@pytest.mark.parametrize("kind", ["jina_embeddings_v3", "modernbert", "eurobert"])
def test_chunks_of_other_encoders_equal_transformers(kind: str, tmp_path: Path) -> None:
    folder = make_encoder(kind, tmp_path / "model")
    add_pooling(folder, "mean", prompts={"document": "blue "})
    check_against_transformers(folder, "blue ")


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_chunks_of_other_tokenizers_equal_transformers(kind: str, tmp_path: Path) -> None:
    folder = make_encoder("modernbert", tmp_path / "model", vocab_size=400)
    train_tokenizer(folder, kind)
    add_pooling(folder, "mean", window=80, prompts={"document": "blue "})
    check_against_transformers(folder, "blue ")


def train_tokenizer(folder: Path, kind: str) -> None:
    """Give a checkpoint a tokenizer whose words begin with the blank before them: byte-level BPE, or Unigram."""
    texts = [TEXT, "naïve 😀 cats, rivers; stones and trees " * 3]
    special: dict[str, Any] = {"special_tokens": VOCABULARY[:5], "show_progress": False, "vocab_size": 400}
    if kind == "bytes":
        tokenizer = Tokenizer(BPE())
        tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
        trainer: Any = BpeTrainer(initial_alphabet=ByteLevel.alphabet(), **special)
    else:
        tokenizer = Tokenizer(Unigram())
        tokenizer.pre_tokenizer = Metaspace()
        trainer = UnigramTrainer(unk_token="[UNK]", **special)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def check_against_transformers(folder: Path, prefix: str) -> None:
    model = local_model(endpoint("text_embedding", folder)).load("cpu")
    other = "a small stone"
    done: list[tuple[int, int]] = []
    found = model.embed_spans(
        [other, TEXT, other], [[(0, 7), (7, 13)], SPANS, [(0, 13)]], lambda *batch: done.append(batch)
    )
    expected = [
        reference(folder, prefix, other, [(0, 7), (7, 13)]),
        reference(folder, prefix, TEXT, SPANS),
        reference(folder, prefix, other, [(0, 13)]),
    ]
    np.testing.assert_allclose(found.values, np.concatenate(expected), atol=1e-5)
    assert not found.is_truncated.any()
    assert sum(embeddings for embeddings, _ in done) == 8
    model.close()


def test_a_text_of_one_chunk_is_embedded_as_without(kernels: str, tmp_path: Path) -> None:
    folder = make_encoder("bert", tmp_path / "model")
    add_pooling(folder, "mean", window=16, prompts={"document": "red "})
    model = local_model(endpoint("text_embedding", folder)).load("cpu")
    texts = [TEXT, "the cat", "", "\u200b", "dog " * 100]
    plain, within = (
        model.embed(texts, "ingest"),
        model.embed_spans(texts, [[(0, len(text))] for text in texts]),
    )
    np.testing.assert_array_equal(within.values, plain.values)
    np.testing.assert_array_equal(within.is_truncated, plain.is_truncated)
    np.testing.assert_array_equal(within.tokens, plain.tokens)


def test_a_chunk_knows_its_surroundings(tmp_path: Path) -> None:
    folder = make_encoder("bert", tmp_path / "model")
    add_pooling(folder, "mean")
    model = local_model(endpoint("text_embedding", folder)).load("cpu")
    one, other = model.embed_spans(
        ["the cat sat . big dog", "the dog ran . big dog"], [[(14, 21)], [(14, 21)]]
    ).values
    assert not np.allclose(one, other)


def test_what_the_window_cuts_is_said(tmp_path: Path) -> None:
    folder = make_encoder("bert", tmp_path / "model")
    add_pooling(folder, "mean", window=6)
    model = local_model(endpoint("text_embedding", folder)).load("cpu")
    found = model.embed_spans(["cat dog cat dog cat dog"], [[(0, 7), (8, 23), (20, 23)]])
    assert found.is_truncated.tolist() == [False, True, True]
    assert found.tokens.tolist() == [
        3,
        3,
        6,
    ]  # [CLS] cat dog; cat dog [SEP]; what has no token left is the whole
    assert np.isfinite(found.values).all()


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> LateChunking:
    """A model with a window of 16 tokens, of which the special ones and the prefix take three."""
    folder = make_encoder("bert", tmp_path_factory.mktemp("late") / "model")
    add_pooling(folder, "mean", window=16, prompts={"document": "blue "})
    return late_chunking(local_model(endpoint("text_embedding", folder)))


WORDS = st.lists(st.sampled_from([*VOCABULARY[5:20], "cating", "ranned", "naïve", "😀"]), min_size=1)


@pytest.fixture(scope="module", params=["bytes", "pieces"])
def late_with_blanks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> LateChunking:
    """The same with a tokenizer that makes other tokens of a text's first word than within it."""
    folder = make_encoder("modernbert", tmp_path_factory.mktemp("late") / "model", vocab_size=400)
    train_tokenizer(folder, request.param)
    add_pooling(folder, "mean", window=16, prompts={"document": "blue "})
    return late_chunking(local_model(endpoint("text_embedding", folder)))


@given(st.lists(WORDS.map(" ".join), min_size=1, max_size=12))
def test_no_chunk_loses_a_token_by_its_neighbours(late_with_blanks: LateChunking, chunks: list[str]) -> None:
    text, spans = joined(chunks)
    (sizes,) = late_with_blanks.group([text], [spans])
    assert sum(sizes) == len(chunks)
    for start, end in extents(spans, sizes, several=True):
        assert tokens(late_with_blanks, text, start, end) <= 16


def joined(chunks: list[str]) -> tuple[str, list[tuple[int, int]]]:
    """Chunks with a blank between them, and where each is."""
    spans: list[tuple[int, int]] = []
    for chunk in chunks:
        start = spans[-1][1] + 1 if spans else 0
        spans.append((start, start + len(chunk)))
    return " ".join(chunks), spans


@given(st.lists(WORDS.map(" ".join), min_size=1, max_size=12))
def test_groups_fit_the_window_and_hold_what_they_can(late: LateChunking, chunks: list[str]) -> None:
    text, spans = joined(chunks)
    (sizes,) = late.group([text], [spans])
    assert sum(sizes) == len(chunks)
    starts = np.cumsum([0, *sizes]).tolist()
    for first, after in pairwise(starts):
        fits = tokens(late, text, spans[first][0], spans[after - 1][1]) <= 16
        assert fits or after - first == 1
        if after < len(chunks):  # the next chunk has no room
            assert tokens(late, text, spans[first][0], spans[after][1]) > 16


def tokens(late: LateChunking, text: str, start: int, end: int) -> int:
    return int(late.model.count_tokens(["blue " + text[start:end]])[0])


def test_texts_are_grouped_each_for_itself(late: LateChunking) -> None:
    assert late.group(["cat dog", "", "cat"], [[(0, 3), (4, 7)], [], [(0, 3)]]) == [[2], [], [1]]
    assert late.group([], []) == []


def test_without_a_window_all_chunks_share_one(late: LateChunking, monkeypatch) -> None:
    monkeypatch.setattr(checkpoint, "window_of", lambda *_: None)
    assert late.group(["cat " * 400, ""], [[(0, 800), (800, 1600)], []]) == [[2], []]


def test_where_words_are_cut_otherwise_groups_are_smaller(late: LateChunking, monkeypatch) -> None:
    """A tokenizer that makes two tokens more of a group than it has within the whole text."""
    kind = type(late.model.opened.tokens)
    count = kind.count
    monkeypatch.setattr(
        kind,
        "count",
        lambda self, texts: count(self, [f"{text} x x" if "cat" in text else text for text in texts]),
    )
    text = " ".join(["cat"] * 26)
    spans = [(at, at + 3) for at in range(0, len(text), 4)]
    assert late.group([text], [spans]) == [[11, 11, 4]]


def test_filling_and_extents() -> None:
    ends = np.arange(1, 11)  # a token a character
    spans = [(0, 4), (3, 6), (6, 10)]
    assert fill(ends, spans, 6) == [2, 1]
    assert fill(ends, spans, 7) == [2, 1]
    assert fill(ends, spans, 10) == [3]
    assert fill(ends, spans, 0) == [1, 1, 1]
    assert extents(spans, [2, 1]) == [(0, 6), (6, 10)]
    assert extents(spans, [2, 1], several=True) == [(0, 6)]


@pytest.mark.parametrize(
    ("inference_id", "reason"),
    [
        (".splade-tiny", "[.splade-tiny] the embeddings are sparse"),
        (".hashing-dense", "[.hashing-dense] there are none"),
    ],
)
def test_what_has_no_vectors_of_tokens_is_refused(inference_id: str, reason: str) -> None:
    with pytest.raises(InferenceError) as caught:
        late_chunking(open_model(preconfigured(inference_id)))
    assert caught.value.status == 400
    assert reason in caught.value.reason
    assert "Leave it out" in caught.value.reason


def test_a_service_is_refused() -> None:
    service = local_endpoint("text_embedding", {"model_id": "embed-1", "api_key": "env:KEY"}, "openai")
    with pytest.raises(InferenceError, match=r"\[test\] there are none"):
        late_chunking(open_model(service))


@pytest.mark.parametrize("pooling", ["cls", "last"])
def test_other_poolings_are_refused(pooling: str, tmp_path: Path) -> None:
    folder = make_encoder("bert", tmp_path / "model")
    add_pooling(folder, pooling)
    with pytest.raises(InferenceError, match=rf"only one counts: .* has the pooling \[{pooling}\]"):
        late_chunking(local_model(endpoint("text_embedding", folder)))
