"""Sparse models against transformers and sentence-transformers on the same checkpoints."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from support.checkpoints import TEXTS, VOCABULARY, endpoint, make_masked_lm, without_special_tokens

from models.embeddings import SparseEmbeddings
from models.errors import InferenceError, ModelLoadError
from models.local.architectures import native, torch_bert
from models.local.model import local_model
from models.local.sparse import SparseRows

SPLADE = "splade-tiny"


def reference(folder: Path, texts: list[str], twice: bool = False, window: int = 64) -> np.ndarray:
    """One text at a time through transformers: log(1 + relu(logits)), the largest over the tokens."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    model = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=window)["input_ids"]
        with torch.inference_mode():
            weights = torch.log1p(torch.relu(model(input_ids=ids).logits[0]))
        weights = torch.log1p(weights) if twice else weights
        rows.append(weights.max(0).values.numpy())
    found = np.stack(rows)
    found[:, :5] = 0  # special tokens
    return found


def as_matrix(embeddings: SparseEmbeddings) -> np.ndarray:
    found = np.zeros((len(embeddings), len(embeddings.vocabulary)), np.float32)
    rows = np.repeat(np.arange(len(embeddings)), np.diff(embeddings.indptr))
    found[rows, embeddings.token_ids] = embeddings.weights
    return found


@pytest.mark.parametrize("kind", ["bert", "distilbert", "xlm-roberta"])
def test_masked_language_models_equal_transformers(kind: str, kernels: str, tmp_path: Path) -> None:
    folder = make_masked_lm(kind, tmp_path / "model")
    found = local_model(endpoint("sparse_embedding", folder)).load("cpu").embed(TEXTS, "ingest")
    np.testing.assert_allclose(as_matrix(found), reference(folder, TEXTS), atol=3e-5)
    assert found.is_truncated.tolist() == [False] * 4 + [True, False, False]


def test_rows_are_positive_sorted_and_without_special_tokens(kernels: str) -> None:
    found = (
        local_model(endpoint("sparse_embedding", SPLADE)).load("cpu").embed([*TEXTS, "naïve 東京"], "ingest")
    )
    special = {found.vocabulary.index(token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")}
    for row in range(len(found)):
        entries = slice(found.indptr[row], found.indptr[row + 1])
        weights = found.weights[entries]
        assert (weights > 0).all()
        assert (np.diff(weights) <= 0).all()
        assert not special & set(found.token_ids[entries].tolist())
    assert found.tokens.tolist()[2] == 2


@pytest.mark.parametrize("words", [31, 32, 1])
def test_a_text_without_tokens_has_no_weights(words: int, kernels: str, tmp_path: Path) -> None:
    folder = without_special_tokens(make_masked_lm("bert", tmp_path / "model"))
    model = local_model(endpoint("sparse_embedding", folder)).load("cpu")
    text = " ".join(["cat"] * words)
    found = model.embed([text, "", text, ""], "ingest")
    assert [len(found.row(row)) > 0 for row in range(4)] == [True, False, True, False]
    assert found.row(0) == found.row(2)
    assert model.embed([""], "ingest").row(0) == {}


def test_splade_equals_sentence_transformers(kernels: str) -> None:
    from sentence_transformers import SparseEncoder

    model = local_model(endpoint("sparse_embedding", SPLADE))
    texts = ["A man is eating food.", "neural sparse retrieval of documents " * 40, "x"]
    expected = SparseEncoder(str(model.opened.folder), device="cpu").encode(
        texts, convert_to_sparse_tensor=False
    )
    found = model.load("cpu").embed(texts, "ingest")
    expected = expected.numpy().copy()
    expected[:, [0, 100, 101, 102, 103]] = 0
    # AMX multiplies 16 bits of each number.
    np.testing.assert_allclose(as_matrix(found), expected, atol=1e-4 if kernels == "newest" else 3e-5)


def test_a_batch_never_has_more_logits_than_its_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = make_masked_lm("bert", tmp_path / "model")
    monkeypatch.setenv(native.DISABLING_VARIABLE, "off")
    monkeypatch.setattr(torch_bert, "CPU_LOGITS", 200)
    largest = 0
    original = torch.Tensor.__matmul__

    def watch(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        product = original(one, other)
        largest = max(largest, product.numel())
        return product

    model = local_model(endpoint("sparse_embedding", folder)).load("cpu")
    expected = reference(folder, TEXTS)
    monkeypatch.setattr(torch.Tensor, "__matmul__", watch)
    found = model.embed(TEXTS, "ingest")
    assert 0 < largest <= 200
    np.testing.assert_allclose(as_matrix(found), expected, atol=3e-5)


def test_document_side_models_weigh_queries_by_their_table(kernels: str, tmp_path: Path) -> None:
    folder = make_masked_lm("distilbert", tmp_path / "model")
    idf = {word: 1.0 + position / 10 for position, word in enumerate(VOCABULARY) if word != "mat"}
    (folder / "idf.json").write_text(json.dumps(idf))
    models = {"opensearch-neural-sparse-encoding-doc-v3-distill": {"location": str(folder)}}
    model = local_model(
        endpoint("sparse_embedding", "opensearch-neural-sparse-encoding-doc-v3-distill"), models
    )
    embedder = model.load("cpu")
    query = embedder.embed(["the cat and the mat", ""], "search")
    by_hand = {token: round(idf[token], 6) for token in ("and", "cat", "the")}
    assert {token: round(weight, 6) for token, weight in query.row(0).items()} == by_hand
    assert list(query.row(0)) == ["and", "cat", "the"]
    assert query.row(1) == {}
    found = embedder.embed(TEXTS, "ingest")
    expected = reference(
        folder, TEXTS, twice=True, window=80
    )  # the catalogue says 512, the model has 80 positions
    np.testing.assert_allclose(as_matrix(found), expected, atol=3e-5)


def test_a_document_side_model_without_its_table_says_so(tmp_path: Path) -> None:
    folder = make_masked_lm("distilbert", tmp_path / "model")
    models = {"opensearch-neural-sparse-encoding-doc-v2-distill": {"location": str(folder)}}
    model = local_model(
        endpoint("sparse_embedding", "opensearch-neural-sparse-encoding-doc-v2-distill"), models
    )
    with pytest.raises(ModelLoadError, match=r"no table of query weights: no \[idf.json\]"):
        model.load("cpu")


class Traced(torch.nn.Module):
    """Stands in for an ELSER export: counts each token, whatever its position."""

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor, positions: torch.Tensor):
        weights = torch.nn.functional.one_hot(ids, 8).float() * mask[:, :, None]
        return (weights.sum(1, keepdim=True) + (types + positions).sum() * 0,)


DEPRECATED_FORMAT = "ignore:.*torch.jit.*"  # Eland exports it, and torch still reads it


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    example = torch.ones(1, 3, dtype=torch.int64)
    with warnings.catch_warnings(action="ignore"):
        torch.jit.trace(Traced(), (example, example, example, example)).save(tmp_path / "elser.pt")
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "dog", "."])
    )
    return tmp_path


@pytest.mark.filterwarnings(DEPRECATED_FORMAT)
def test_elser_runs_from_the_owners_export_by_explicit_opt_in(exported: Path) -> None:
    settings = {"location": str(exported), "backend": "torchscript"}
    model = local_model(endpoint("sparse_embedding", ".elser_model_2"), {".elser_model_2": settings})
    assert model.problems() == []
    found = model.load("cpu").embed(["cat cat dog.", "Dog", ""], "ingest")
    assert found.row(0) == {"cat": 2.0, "dog": 1.0, "__": 1.0}
    assert found.row(1) == {"dog": 1.0}
    assert found.row(2) == {}
    assert model.describe()["revision"] == model.opened.revision


def test_elser_is_not_run_without_the_opt_in(exported: Path) -> None:
    model = local_model(endpoint("sparse_embedding", ".elser_model_2"), {"elser_model_2": str(exported)})
    assert "tokenizer.json" in model.problems()[0]
    with pytest.raises(ModelLoadError):
        model.load("cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_an_error(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = local_model(endpoint("sparse_embedding", SPLADE)).load("cpu")
    compute = embedder._compute

    def broken(batch):
        indptr, token_ids, weights = compute(batch)
        return SparseRows(indptr, token_ids, np.append(weights[:-1], np.float32(value)))

    monkeypatch.setattr(embedder, "_compute", broken)
    with pytest.raises(InferenceError, match="not finite"):
        embedder.embed(TEXTS, "ingest")


def test_no_texts_give_no_rows() -> None:
    assert len(local_model(endpoint("sparse_embedding", SPLADE)).load("cpu").embed([], "ingest")) == 0


@pytest.mark.gpu
def test_a_gpu_gives_nearly_the_same_rows() -> None:
    model = local_model(endpoint("sparse_embedding", SPLADE))
    expected = as_matrix(model.load("cpu").embed(TEXTS, "ingest"))
    found = as_matrix(model.load("cuda").embed(TEXTS, "ingest"))
    np.testing.assert_allclose(found, expected, atol=0.05)
