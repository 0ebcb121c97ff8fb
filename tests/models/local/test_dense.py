"""Dense models against transformers and sentence-transformers on the same checkpoints."""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import TEXTS, add_pooling, endpoint, make_encoder, without_special_tokens
from support.fresh_process import run_in_fresh_process

from models.errors import InferenceError, ModelLoadError
from models.local.architectures import bert, native
from models.local.engine.batching import TokenBatch
from models.local.model import local_model
from models.local.vectors import encode_elements, shorten

MINILM = "all-minilm-l6-v2"


def reference(folder: Path, texts: list[str], pooling: str, window: int = 64) -> np.ndarray:
    """One text at a time through transformers, pooled by hand."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=window)["input_ids"]
        with torch.inference_mode():
            hidden = model(input_ids=ids).last_hidden_state[0]
        row = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pooling]
        rows.append((row / row.norm()).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "distilbert"])
def test_encoders_equal_transformers(kind: str, pooling: str, kernels: str, tmp_path: Path) -> None:
    folder = make_encoder(kind, tmp_path / "model")
    add_pooling(folder, pooling)
    with_model = local_model(endpoint("text_embedding", folder)).load("cpu")
    found = with_model.embed(TEXTS, "ingest")
    np.testing.assert_allclose(found.values, reference(folder, TEXTS, pooling), atol=2e-5)
    assert found.is_truncated.tolist() == [False] * 4 + [True, False, False]
    assert found.tokens[4] == 64
    with_model.close()


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [("qwen3", "last"), ("eurobert", "last"), ("jina_embeddings_v3", "mean"), ("modernbert", "mean")],
)
def test_other_encoders_run_through_transformers(kind: str, pooling: str, tmp_path: Path) -> None:
    folder = make_encoder(kind, tmp_path / "model")
    add_pooling(folder, pooling)
    found = local_model(endpoint("text_embedding", folder)).load("cpu").embed(TEXTS, "ingest")
    np.testing.assert_allclose(found.values, reference(folder, TEXTS, pooling), atol=2e-5)


@pytest.mark.parametrize(
    "shape",
    [
        {"hidden_size": 64, "num_attention_heads": 2},  # heads of 32
        {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 544},  # heads of 64
        {"hidden_size": 96, "num_attention_heads": 12},  # heads of 8
        {"hidden_size": 80, "num_attention_heads": 4},  # heads of 20, strips and panels with a rest
        {"hidden_size": 128, "num_attention_heads": 1, "intermediate_size": 500},
        {"hidden_act": "relu"},
        {"hidden_act": "gelu_new"},
    ],
)
def test_unusual_shapes_and_activations(shape: dict, kernels: str, tmp_path: Path) -> None:
    folder = make_encoder("bert", tmp_path / "model", **shape)
    found = local_model(endpoint("text_embedding", folder)).load("cpu").embed(TEXTS, "ingest").values
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    np.testing.assert_allclose(found, reference(folder, TEXTS, "mean"), atol=2e-5)


def test_a_text_has_the_same_embedding_in_any_company(kernels: str) -> None:
    model = local_model(endpoint("text_embedding", MINILM)).load("cpu")
    texts = [
        " ".join(f"word{n * k % 97}" for n in range(k)) for k in (1, 2, 31, 33, 64, 100, 150, 300, 7, 15, 16)
    ]
    alone = np.concatenate([model.embed([text], "ingest").values for text in texts])
    together = model.embed(texts * 3, "ingest").values
    np.testing.assert_allclose(together, np.tile(alone, (3, 1)), atol=1e-6)


def test_minilm_equals_sentence_transformers(kernels: str) -> None:
    from sentence_transformers import SentenceTransformer

    description = local_model(endpoint("text_embedding", MINILM))
    texts = [
        *TEXTS,
        "Microtubules drive transport of mitochondria; see [CLS] Table 2 (p < 0.05)." * 9,
        "naïve café 東京",
    ]
    expected = SentenceTransformer(str(description.opened.folder), device="cpu").encode(
        texts, normalize_embeddings=True
    )
    found = description.load("cpu").embed(texts, "ingest")
    assert (found.values * expected).sum(1).min() >= 0.99999


def test_prompts_of_the_checkpoint_follow_the_input_type(tmp_path: Path) -> None:
    folder = make_encoder("xlm-roberta", tmp_path / "model")
    add_pooling(folder, "mean", prompts={"query": "red ", "document": "blue "})
    model = local_model(endpoint("text_embedding", folder)).load("cpu")
    for input_type, prefix in (("ingest", "blue "), ("search", "red "), ("clustering", "")):
        expected = reference(folder, [prefix + text for text in TEXTS], "mean")
        np.testing.assert_allclose(model.embed(TEXTS, input_type).values, expected, atol=2e-5)


def test_e5_prefixes_come_from_the_catalogue(tmp_path: Path) -> None:
    folder = make_encoder("xlm-roberta", tmp_path / "model")
    models = {"multilingual-e5-small": {"location": str(folder)}}
    model = local_model(endpoint("text_embedding", ".multilingual-e5-small", dimensions=64), models)
    assert model.describe()["model_id"] == "multilingual-e5-small"
    expected = reference(folder, ["query: the cat"], "mean")
    np.testing.assert_allclose(model.load("cpu").embed(["the cat"], "search").values, expected, atol=2e-5)


def test_dimensions_cut_and_normalize_again(tmp_path: Path) -> None:
    folder = make_encoder("bert", tmp_path / "model")
    add_pooling(folder, "mean")
    full = local_model(endpoint("text_embedding", folder)).load("cpu").embed(TEXTS, "ingest").values
    short = local_model(endpoint("text_embedding", folder, dimensions=16))
    expected = full[:, :16] / np.linalg.norm(full[:, :16], axis=1, keepdims=True)
    np.testing.assert_allclose(short.load("cpu").embed(TEXTS, "ingest").values, expected, atol=1e-6)
    assert short.model_settings["dimensions"] == 16


def test_bytes_use_their_whole_range_under_cosine_and_one_scale_otherwise() -> None:
    values = np.array([[0.6, -0.8, 0.0], [0.1, 0.0, -0.05]], np.float32)
    assert encode_elements(values, "byte").tolist() == [[95, -127, 0], [127, 0, -64]]
    assert encode_elements(values, "byte", "dot_product").tolist() == [[76, -102, 0], [13, 0, -6]]


def test_bits_are_signs_high_bit_first_as_signed_bytes() -> None:
    values = np.array([[1, -1, -1, -1, -1, -1, -1, 2, -1, 1, 1, 1, 1, 1, 1, 1]], np.float32)
    assert encode_elements(values, "bit").tolist() == [[-127, 127]]


def test_shorten_leaves_embeddings_alone_that_have_no_unit_length() -> None:
    values = np.array([[3.0, 4.0, 5.0]], np.float32)
    assert shorten(values, 2, unit=False).tolist() == [[3.0, 4.0]]
    np.testing.assert_allclose(shorten(values, 2, unit=True), [[0.6, 0.8]])


@pytest.mark.parametrize(
    ("dtype", "variant", "message"),
    [
        ("float16", "", "needs a GPU"),
        ("bfloat16", "avx512", "a processor with AMX"),
        ("int8", "off", "needs the compiled kernels"),
    ],
)
def test_a_dtype_without_instructions_for_it_is_a_mistake_in_the_config(
    dtype: str, variant: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(native.DISABLING_VARIABLE, variant)
    model = local_model(endpoint("text_embedding", MINILM), {MINILM: {"dtype": dtype}})
    with pytest.raises(ModelLoadError, match=rf"\[dtype: {dtype}\].*{message}"):
        model.load("cpu")


HAS_AMX = native.kernels((), "bfloat16") is not None


@pytest.mark.skipif(not HAS_AMX, reason="needs a processor with AMX")
def test_bfloat16_on_a_cpu_is_close_to_float32() -> None:
    texts = [" ".join(f"word{n * k % 97}" for n in range(k)) for k in (1, 2, 31, 33, 64, 150, 300)]
    found, expected = (
        local_model(endpoint("text_embedding", MINILM), {MINILM: {"dtype": dtype}})
        .load("cpu")
        .embed(texts, "ingest")
        for dtype in ("bfloat16", "float32")
    )
    cosines = (found.values * expected.values).sum(1)
    assert 0.9998 < cosines.min() < 0.9999999


@pytest.mark.skipif(not HAS_AMX, reason="needs a processor with AMX")
@pytest.mark.parametrize("kind", ["xlm-roberta", "qwen3"])
def test_bfloat16_on_a_cpu_where_the_kernels_do_not_fit(kind: str, tmp_path: Path) -> None:
    folder = make_encoder(kind, tmp_path / "model")
    add_pooling(folder, "mean")
    model = local_model(
        endpoint("text_embedding", "own"), {"own": {"location": str(folder), "dtype": "bfloat16"}}
    )
    found = model.load("cpu").embed(TEXTS, "ingest").values
    assert (found * reference(folder, TEXTS, "mean")).sum(1).min() > 0.999


def test_matmul_precision_settings_change_nothing(kernels: str) -> None:
    model = local_model(endpoint("text_embedding", MINILM)).load("cpu")
    before = model.embed(TEXTS, "ingest").values
    torch.set_float32_matmul_precision("medium")
    try:
        after = model.embed(TEXTS, "ingest").values
    finally:
        torch.set_float32_matmul_precision("highest")
    np.testing.assert_allclose(after, before, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_precision_are_computed_with_in_float32(
    dtype: torch.dtype, kernels: str, tmp_path: Path
) -> None:
    folder = make_encoder("bert", tmp_path / "model")
    path = folder / "model.safetensors"
    stored = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    save_file({**stored, "embeddings.position_ids": torch.arange(4)}, path)
    add_pooling(folder, "mean")
    found = local_model(endpoint("text_embedding", folder)).load("cpu").embed(TEXTS, "ingest")
    np.testing.assert_allclose(found.values, reference(folder, TEXTS, "mean"), atol=2e-5)


@pytest.mark.kernels
@pytest.mark.parametrize(("ids", "positions"), [([3, 10, 1], 4), ([3] * 5, 4), ([3, 4], 1)])
def test_a_tokenizer_of_another_checkpoint_is_an_error(ids: list[int], positions: int) -> None:
    norm = (np.ones(32, np.float32), np.zeros(32, np.float32))
    matrix = (np.zeros((32, 32), np.float32), norm[1])
    layer = bert.Layer(
        (np.zeros((96, 32), np.float32), np.zeros(96, np.float32)), matrix, norm, matrix, matrix, norm
    )
    words, places = np.zeros((10, 32), np.float32), np.zeros((positions, 32), np.float32)
    weights = bert.BertWeights(words, places, norm, [layer], 1, 1e-12, "gelu")
    found = native.kernels_for(weights, "float32")
    assert found is not None
    with pytest.raises(InferenceError, match=f"10 tokens and {positions} positions have weights"):
        native.NativeEncoder(weights, found).forward(
            TokenBatch(np.array(ids, np.int32), np.array([len(ids)]))
        )


@pytest.mark.kernels
def test_with_kernels_torch_is_never_imported() -> None:
    """Importing it takes seconds, longer than a search or a small run does otherwise."""
    code = """
import sys
from models.local import load
from models.endpoints.registry import Registry
from models.open_model import open_model
load._GPU_DRIVERS = ()
for name in (".minilm-l6-v2", ".splade-tiny"):
    assert len(open_model(Registry().get(name)).load().embed(["a b", "c"], "search")) == 2
assert not {"torch", "transformers"} & sys.modules.keys()
"""
    run_in_fresh_process(code)


@pytest.mark.kernels
def test_kernels_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """They stay behind when the source is updated without installing it again, and calling them would crash."""

    class Later(native.Kernels):
        _fields_ = (("more", ctypes.c_int64),)

    monkeypatch.setattr(native, "Kernels", Later)
    with pytest.raises(ModelLoadError, match="belong to another version of the package; install it again"):
        native._load.__wrapped__(3)


def test_a_text_without_tokens_is_an_error(kernels: str, tmp_path: Path) -> None:
    folder = without_special_tokens(make_encoder("bert", tmp_path / "model"))
    model = local_model(endpoint("text_embedding", folder)).load("cpu")
    assert len(model.embed(["cat"], "ingest")) == 1
    with pytest.raises(InferenceError, match="leaves no token of it"):
        model.embed(["cat", ""], "ingest")


def test_several_threads_may_embed_at_once(kernels: str) -> None:
    model = local_model(endpoint("text_embedding", MINILM)).load("cpu")
    batches = [[f"{text} {n}" for text in TEXTS] for n in range(6)]
    expected = [model.embed(batch, "ingest").values for batch in batches]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda batch: model.embed(batch, "ingest").values, batches * 2))
    for one, other in zip(found, expected * 2, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_no_texts_give_no_embeddings_of_the_right_length() -> None:
    found = local_model(endpoint("text_embedding", MINILM)).load("cpu").embed([], "ingest")
    assert found.values.shape == (0, 384)


@pytest.mark.gpu
def test_half_precision_on_a_gpu_is_close_to_float32_on_the_cpu() -> None:
    model = local_model(endpoint("text_embedding", MINILM))
    expected = model.load("cpu").embed(TEXTS * 40, "ingest").values
    found = model.load("cuda").embed(TEXTS * 40, "ingest").values
    assert (found * expected).sum(1).min() >= 0.999
