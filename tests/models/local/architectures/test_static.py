"""Static models: the mean of tokens' vectors, by the rules of the package model2vec."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.checkpoints import VOCABULARY, endpoint, make_static
from tokenizers import Tokenizer

from models.errors import InferenceError, ModelLoadError
from models.late_chunking import late_chunking
from models.local.architectures import static
from models.local.engine.batching import TokenBatch
from models.local.model import local_model

TEXTS = ["the cat sat on the mat", "zebra cat zebra", "cats ran", "dog " * 700, "x 5 . x", "day"]


def embed(folder: Path, texts: list[str] = TEXTS, **settings: Any) -> Any:
    embedder = local_model(endpoint("text_embedding", folder, **settings)).load("cpu")
    try:
        return embedder.embed(texts, "ingest")
    finally:
        embedder.close()


def by_hand(folder: Path, text: str, window: int | None = 512, normalize: bool = True) -> np.ndarray:
    """What model2vec does, a text at a time: cut characters, tokenize, cut tokens, leave unknown ones out, average."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if window is not None:
        text = text[: window * int(np.median([len(token) for token in tokenizer.get_vocab()]))]
        tokenizer.enable_truncation(window)
    ids = [one for one in tokenizer.encode(text, add_special_tokens=False).ids if one != 1]
    from safetensors.numpy import load_file

    stored = load_file(folder / "model.safetensors")
    rows = stored["mapping"][ids] if "mapping" in stored else ids
    vectors = stored["embeddings"][rows].astype(np.float64)
    if "weights" in stored:
        vectors = vectors * stored["weights"][ids][:, None]
    mean = vectors.mean(0)
    return mean / np.linalg.norm(mean) if normalize else mean


@pytest.mark.parametrize(
    ("config", "tensors"),
    [
        ({}, {}),
        ({"normalize": False}, {}),
        ({"max_length": 5}, {}),
        ({"max_length": None}, {}),
        ({}, {"weights": np.linspace(0.1, 2, len(VOCABULARY))}),
        (
            {},
            {
                "embeddings": np.random.default_rng(2).normal(size=(7, 16)).astype(np.float16),
                "mapping": np.arange(len(VOCABULARY)) % 7,
                "weights": np.linspace(0.1, 2, len(VOCABULARY)).astype(np.float32),
            },
        ),
        ({}, {"embeddings": np.arange(len(VOCABULARY) * 4).reshape(-1, 4).astype(np.int8)}),
    ],
)
def test_embeddings_are_means_of_known_tokens(
    config: dict[str, Any], tensors: dict[str, Any], tmp_path: Path
) -> None:
    folder = make_static(tmp_path / "model", config, **tensors)
    found = embed(folder)
    window, unit = config.get("max_length", 512), config.get("normalize", True)
    expected = np.stack([by_hand(folder, text, window, unit) for text in TEXTS])
    assert np.abs(found.values - expected).max() < 1e-5 * max(1, np.abs(expected).max())


def test_cuts_and_tokens_are_told(tmp_path: Path) -> None:
    folder = make_static(tmp_path / "model", {"max_length": 5})
    found = embed(folder)
    # Characters are cut at five times the median length of a token, before tokens are.
    assert found.is_truncated.tolist() == [True, False, False, True, False, False]
    assert found.tokens.tolist()[1:3] == [1, 3]
    model = local_model(endpoint("text_embedding", folder))
    assert model.count_tokens(["zebra cat zebra", "day"]).tolist() == [3, 1]
    assert model.max_tokens == 5


def test_a_description_reads_the_files_alone(tmp_path: Path) -> None:
    model = local_model(endpoint("text_embedding", make_static(tmp_path / "model")))
    assert model.problems() == []
    assert model.model_settings["dimensions"] == 16
    assert model.max_tokens == 512
    shorter = local_model(endpoint("text_embedding", tmp_path / "model", dimensions=8))
    assert shorter.fingerprint != model.fingerprint
    assert embed(tmp_path / "model", dimensions=8).values.shape == (len(TEXTS), 8)
    (problem,) = local_model(endpoint("sparse_embedding", tmp_path / "model")).problems()
    assert "makes [text_embedding]" in problem


def test_its_tokens_know_nothing_of_each_other(tmp_path: Path) -> None:
    model = local_model(endpoint("text_embedding", make_static(tmp_path / "model")))
    with pytest.raises(InferenceError, match="is static"):
        late_chunking(model)


def test_a_text_without_known_tokens_has_no_embedding(tmp_path: Path) -> None:
    folder = make_static(tmp_path / "model")
    for text in ("", "zebra", "zebra gnu"):
        with pytest.raises(InferenceError, match="nothing to embed"):
            embed(folder, ["the cat", text])


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"embeddings": np.zeros(3, np.float32)}, r"has no matrix \[embeddings\]"),
        ({"embeddings": np.zeros((3, 4), np.float32)}, "only 3 have vectors"),
        ({"weights": np.ones(3, np.float32)}, r"and weights of \(3,\)"),
        ({"mapping": np.full(len(VOCABULARY), 99)}, "names rows that are not there"),
        ({"mapping": np.ones(len(VOCABULARY), np.float32)}, "is no list of rows"),
        ({"embeddings": np.full((len(VOCABULARY), 4), np.nan, np.float32)}, "not finite"),
    ],
)
def test_damaged_weights_are_named(tensors: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = make_static(tmp_path / "model", **tensors)
    with pytest.raises(ModelLoadError, match=message):
        embed(folder)


def test_a_mean_does_not_depend_on_its_batch() -> None:
    random = np.random.default_rng(3)
    vectors = random.normal(size=(100, 8)).astype(np.float32)
    lengths = np.array([1, 5000, 3, 2048, 2047, 1, 900], np.int64)
    ids = random.integers(0, 100, lengths.sum()).astype(np.int32)
    batch = TokenBatch(ids, lengths)
    found = static.pooled(vectors)(batch)
    expected = np.stack([vectors[ids[span]].astype(np.float64).mean(0) for span in batch.slices()])
    assert np.abs(found - expected).max() < 1e-5
