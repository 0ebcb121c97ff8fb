"""Cross-encoders that run here, against sentence-transformers and transformers themselves."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from support.checkpoints import VOCABULARY, endpoint, make_cross_encoder, make_encoder

from models.errors import ModelLoadError
from models.local.rerank.model import local_rerank_model
from models.open_model import open_model, open_rerank_model, usable_rerank_model

FAMILIES = ("bert", "roberta", "xlm-roberta", "distilbert", "modernbert", "deberta-v2")
QUERIES = ["the cat", "big red stone . river", "cat " * 50, ""]
TEXTS = [
    "the cat sat on the mat",
    "a big dog ran far away from home and the cat",
    "",
    "red stone . blue tree , night",
    "cats sating river " * 30,
    "day",
    "x 5 . x",
    " ".join(VOCABULARY[5:30]),
]


def rerank(folder: Path, query: str, texts: list[str] = TEXTS, **section: str) -> np.ndarray:
    definition = endpoint("rerank", folder)
    loaded = open_rerank_model(definition, {str(folder): {"location": str(folder), **section}}).load("cpu")
    try:
        return loaded.rerank(query, texts).scores
    finally:
        loaded.close()


def reference(folder: Path, query: str, texts: list[str]) -> np.ndarray:
    """What transformers' own classifier gives, one pair at a time."""
    import transformers as t

    model = t.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = t.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        pairs = [tokenizer([query], [text], truncation=True, return_tensors="pt") for text in texts]
        rows = [model(**pair).logits for pair in pairs]
    return torch.sigmoid(torch.cat(rows)[:, 0]).numpy()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    parent = tmp_path_factory.mktemp("cross-encoders")
    return {kind: make_cross_encoder(kind, parent / kind) for kind in FAMILIES}


@pytest.mark.parametrize("kind", FAMILIES)
def test_scores_are_those_of_transformers(kind: str, checkpoints: dict[str, Path], kernels: str) -> None:
    for query in QUERIES:
        found = rerank(checkpoints[kind], query)
        assert np.abs(found - reference(checkpoints[kind], query, TEXTS)).max() < 1e-5


@pytest.mark.parametrize("kind", FAMILIES)
def test_order_and_scores_are_those_of_sentence_transformers(kind: str, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    folder = make_cross_encoder(kind, tmp_path / "model")
    random = np.random.default_rng(3)
    texts = [" ".join(random.choice(VOCABULARY[5:-3], random.integers(1, 90))) for _ in range(200)]
    theirs = CrossEncoder(str(folder), device="cpu").predict([("the cat ran", text) for text in texts])
    found = rerank(folder, "the cat ran", texts)
    assert np.abs(found - theirs).max() < 1e-4
    assert np.argsort(-found, kind="stable").tolist() == np.argsort(-theirs, kind="stable").tolist()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}),
        ("config.json", {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}),
        ("config_sentence_transformers.json", {"activation_fn": "torch.nn.modules.linear.Identity"}),
    ],
)
def test_stored_logits_stay_logits(file: str, content: dict, tmp_path: Path) -> None:
    folder = make_cross_encoder("bert", tmp_path / "model")
    scaled = rerank(folder, "the cat")
    stored = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps({**stored, **content}))
    logits = rerank(folder, "the cat")
    assert np.abs(1 / (1 + np.exp(-logits.astype(np.float64))) - scaled).max() < 1e-6
    assert logits.min() < 0 or logits.max() > 1


def test_an_unknown_scale_is_refused(tmp_path: Path) -> None:
    folder = make_cross_encoder("bert", tmp_path / "model")
    (folder / "config_sentence_transformers.json").write_text('{"activation_fn": "mine.Softmax"}')
    with pytest.raises(ModelLoadError, match=r"scales its scores by \[mine.Softmax\]"):
        rerank(folder, "the cat")


def test_models_that_do_not_rerank_are_problems(tmp_path: Path) -> None:
    encoder = make_encoder("bert", tmp_path / "encoder")
    (problem,) = local_rerank_model(endpoint("rerank", encoder)).problems()
    assert "makes [text_embedding] and does not rerank" in problem
    classifier = make_cross_encoder("bert", tmp_path / "classes", labels=3)
    (problem,) = local_rerank_model(endpoint("rerank", classifier)).problems()
    assert "has one output" in problem
    assert "3 classes" in problem
    cross_encoder = make_cross_encoder("bert", tmp_path / "model")
    (problem,) = open_model(endpoint("text_embedding", cross_encoder)).problems()
    assert "makes [rerank]" in problem
    chunking = endpoint("rerank", cross_encoder, long_document_strategy="chunk")
    (problem,) = local_rerank_model(chunking).problems()
    assert "[long_document_strategy: chunk] is not known" in problem


def test_other_families_are_problems(tmp_path: Path) -> None:
    folder = make_cross_encoder("modernbert", tmp_path / "model")
    whole = {str(folder): {"location": str(folder), "dtype": "int8"}}
    (problem,) = local_rerank_model(endpoint("rerank", folder), whole).problems()
    assert "is of type [modernbert]" in problem
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "electra"}))
    (problem,) = local_rerank_model(endpoint("rerank", folder)).problems()
    assert "modernbert, deberta-v2; the one in" in problem
    assert "is of type [electra]" in problem


@pytest.mark.parametrize("kind", ["modernbert", "deberta-v2"])
def test_a_checkpoint_without_a_tensor_is_refused(kind: str, tmp_path: Path) -> None:
    folder = make_cross_encoder(kind, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    del tensors["classifier.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"has no tensor \[classifier.weight\]"):
        rerank(folder, "the cat")


def test_elastics_own_model_needs_a_stand_in(tmp_path: Path) -> None:
    definition = endpoint("rerank", ".rerank-v1")
    (problem,) = local_rerank_model(definition).problems()
    assert "[models: {rerank-v1: cross-encoder/ms-marco-MiniLM-L6-v2}]" in problem
    folder = make_cross_encoder("bert", tmp_path / "model")
    assert usable_rerank_model(definition, {".rerank-v1": str(folder)}).problems() == []


def test_other_weights_have_another_fingerprint(tmp_path: Path) -> None:
    first = local_rerank_model(endpoint("rerank", make_cross_encoder("bert", tmp_path / "a")))
    second = local_rerank_model(endpoint("rerank", make_cross_encoder("distilbert", tmp_path / "b")))
    assert first.fingerprint != second.fingerprint
    assert first.describe()["revision"] != second.describe()["revision"]


def test_many_pairs_are_many_batches(tmp_path: Path) -> None:
    folder = make_cross_encoder("bert", tmp_path / "model")
    texts = TEXTS * 40
    found = rerank(folder, "the cat", texts).reshape(40, -1)
    assert np.abs(found - found[0]).max() < 1e-6
    assert rerank(folder, "the cat", []).tolist() == []
