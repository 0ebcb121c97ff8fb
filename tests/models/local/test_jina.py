"""jina's models: bases, task adapters, prefixes and Matryoshka lengths, against transformers with adapters by hand."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import TEXTS, endpoint, make_encoder

from models.errors import ModelLoadError, ValidationError
from models.local.model import local_model
from models.model import Model

V3, SMALL, NANO = "jina-embeddings-v3", "jina-embeddings-v5-text-small", "jina-embeddings-v5-text-nano"
RANK, ALPHA = 2, 3


def add_adapter(folder: Path, modules: dict[str, tuple[int, int]], seed: int, **config: Any) -> None:
    """Write an adapter as PEFT does; `modules` has the shape of each weight that it adapts."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (rows, columns) in modules.items():
        down, up = (
            torch.randn(RANK, columns, generator=generator),
            torch.randn(rows, RANK, generator=generator),
        )
        if name.endswith("embeddings"):  # of an embedding, PEFT stores the factors of the transposed weight
            tensors[f"base_model.model.{name}.lora_embedding_A"] = up.T.contiguous()
            tensors[f"base_model.model.{name}.lora_embedding_B"] = down.T.contiguous()
        else:
            tensors[f"base_model.model.{name}.lora_A.weight"] = down
            tensors[f"base_model.model.{name}.lora_B.weight"] = up
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))


def reference(folder: Path, adapter: Path | None, texts: list[str], pooling: str) -> np.ndarray:
    """One text at a time through transformers, W + alpha/r B A done by hand."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tensors = load_file(adapter / "adapter_model.safetensors") if adapter else {}
    with torch.no_grad():
        for key, factor in tensors.items():
            name = key.removeprefix("base_model.model.")
            if name.endswith(".lora_A.weight"):
                update = tensors[key.replace("lora_A", "lora_B")] @ factor
                model.get_submodule(name.removesuffix(".lora_A.weight")).weight += ALPHA / RANK * update
            elif name.endswith(".lora_embedding_A"):
                update = factor.T @ tensors[key.replace("_A", "_B")].T
                model.get_submodule(name.removesuffix(".lora_embedding_A")).weight += ALPHA / RANK * update
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=80)["input_ids"]
        with torch.inference_mode():
            hidden = model(input_ids=ids).last_hidden_state[0]
        row = hidden.mean(0) if pooling == "mean" else hidden[-1]
        rows.append((row / row.norm()).numpy())
    return np.stack(rows)


def jina(name: str, folder: Path, settings: dict[str, Any] | None = None, **changes: Any) -> Model:
    wanted = {"dimensions": 64, **changes}
    return local_model(
        endpoint("text_embedding", name, **wanted), {name: {"location": str(folder), **(settings or {})}}
    )


def test_jina_v3_takes_the_prefix_and_the_adapter_of_each_input_type(tmp_path: Path) -> None:
    folder = make_encoder("jina_embeddings_v3", tmp_path / "model")
    words = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    modules = {
        "embeddings.word_embeddings": (words, 64),
        "layers.0.self_attn.q_proj": (64, 64),
        "layers.1.mlp.fc1": (96, 64),
    }
    names = ["retrieval_passage", "retrieval_query", "classification", "separation"]
    for seed, name in enumerate(names):
        add_adapter(folder / name, modules, seed)
    model = jina(V3, folder)
    assert model.problems() == []
    assert model.describe()["merged_adapter"] is None
    embedder = model.load("cpu")
    cases = [
        ("ingest", "retrieval_passage", "Represent the document for retrieval: "),
        ("search", "retrieval_query", "Represent the query for retrieving evidence documents: "),
        ("classification", "classification", ""),
        ("clustering", "separation", ""),
    ]
    for input_type, adapter, prefix in cases:
        expected = reference(folder, folder / adapter, [prefix + text for text in TEXTS], "mean")
        np.testing.assert_allclose(embedder.embed(TEXTS, input_type).values, expected, atol=2e-5)
    passages = reference(folder, folder / "retrieval_passage", [cases[0][2] + text for text in TEXTS], "mean")
    short = passages[:, :32] / np.linalg.norm(passages[:, :32], axis=1, keepdims=True)
    found = jina(V3, folder, dimensions=32).load("cpu").embed(TEXTS, "ingest").values
    np.testing.assert_allclose(found, short, atol=2e-5)


def wrap(folder: Path, plain: Path, **changes: Any) -> None:
    """Make a checkpoint's config what jina-v5's repositories hold: a type of their own, around a known base."""
    shutil.copytree(plain, folder)
    config = json.loads((plain / "config.json").read_text())
    config |= {
        "model_type": "jina_embeddings_v5",
        "architectures": ["JinaEmbeddingsV5Model"],
        "auto_map": {"AutoModel": "modeling_jina_embeddings_v5.JinaEmbeddingsV5Model"},
        "task_names": ["retrieval", "text-matching", "clustering", "classification"],
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("name", "base", "changes"), [(SMALL, "qwen3", {}), (NANO, "eurobert", {"is_decoder": False})]
)
def test_jina_v5_is_its_base_with_an_adapter_and_the_last_token(
    name: str, base: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}
    plain = make_encoder(base, tmp_path / "plain", **rope)
    folder = tmp_path / "model"
    wrap(folder, plain, **changes)
    modules = {
        "layers.0.self_attn.v_proj": (64 if base == "eurobert" else 32, 64),
        "layers.1.mlp.up_proj": (96, 64),
    }
    for seed, task in enumerate(["retrieval", "clustering", "classification"]):
        add_adapter(folder / "adapters" / task, modules, seed)
    model = jina(name, folder)
    assert model.problems() == []
    embedder = model.load("cpu")
    for input_type, task, prefix in (
        ("ingest", "retrieval", "Document: "),
        ("search", "retrieval", "Query: "),
        ("clustering", "clustering", "Document: "),
    ):
        texts = [prefix + text for text in TEXTS]
        expected = reference(plain, folder / "adapters" / task, texts, "last")
        np.testing.assert_allclose(embedder.embed(TEXTS, input_type).values, expected, atol=2e-5)
    other = reference(plain, None, ["Document: " + text for text in TEXTS], "last")
    assert not np.allclose(embedder.embed(TEXTS, "ingest").values, other, atol=1e-2)


def test_settings_of_rotary_positions_in_the_old_spelling_count(tmp_path: Path) -> None:
    plain = make_encoder(
        "qwen3", tmp_path / "plain", rope_parameters={"rope_type": "default", "rope_theta": 50.0}
    )
    folder = tmp_path / "model"
    wrap(folder, plain, rope_theta=50.0)
    config = json.loads((folder / "config.json").read_text())
    del config["rope_parameters"]
    (folder / "config.json").write_text(json.dumps(config))
    add_adapter(folder / "adapters" / "retrieval", {"layers.0.mlp.up_proj": (96, 64)}, 0)
    expected = reference(
        plain, folder / "adapters" / "retrieval", ["Query: " + text for text in TEXTS], "last"
    )
    found = jina(SMALL, folder).load("cpu").embed(TEXTS, "search").values
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(("name", "kind"), [(V3, "jina_embeddings_v3"), (SMALL, "qwen3"), (NANO, "eurobert")])
def test_a_checkpoint_without_its_adapters_is_an_error(name: str, kind: str, tmp_path: Path) -> None:
    folder = make_encoder(kind, tmp_path / "model")
    model = jina(name, folder)
    (problem,) = model.problems()
    assert f"The checkpoint in [{folder}] has no adapters, and [{name}] embeds with ['retrieval" in problem
    assert f"[merged_adapter: retrieval{'.passage' if name == V3 else ''}] for [{name}]" in problem
    with pytest.raises(ModelLoadError, match="has no adapters"):
        model.load("cpu")


def test_weights_with_an_adapter_in_them_embed_for_its_input_types_only(tmp_path: Path) -> None:
    folder = make_encoder("qwen3", tmp_path / "model")
    model = jina(SMALL, folder, {"merged_adapter": "retrieval"})
    assert model.problems() == []
    assert model.describe()["merged_adapter"] == "retrieval"
    embedder = model.load("cpu")
    for input_type, prefix in (("ingest", "Document: "), ("search", "Query: ")):
        expected = reference(folder, None, [prefix + text for text in TEXTS], "last")
        np.testing.assert_allclose(embedder.embed(TEXTS, input_type).values, expected, atol=2e-5)
    with pytest.raises(
        ModelLoadError, match=r"\[clustering\] with the adapter \[clustering\], but the weights in"
    ):
        embedder.embed(TEXTS, "clustering")


def test_merged_adapter_must_fit_the_model_and_the_checkpoint(tmp_path: Path) -> None:
    folder = make_encoder("qwen3", tmp_path / "model")
    assert (
        "[query], but the adapters of [jina-embeddings-v5-text-small] are one of ['classification', 'clu"
        in (jina(SMALL, folder, {"merged_adapter": "query"}).problems()[0])
    )
    plain = local_model(
        endpoint("text_embedding", "mine"), {"mine": {"location": str(folder), "merged_adapter": "query"}}
    )
    assert "are none: it has no adapters" in plain.problems()[0]
    add_adapter(folder / "retrieval", {"layers.0.mlp.up_proj": (96, 64)}, 0)
    both = jina(SMALL, folder, {"merged_adapter": "retrieval"})
    assert f"but [{folder}] has adapters to add to its weights, ['retrieval']" in both.problems()[0]
    with pytest.raises(ValidationError, match=r"merged_adapter\] must be a str, got \[True\]"):
        jina(SMALL, folder, {"merged_adapter": True})


def test_a_wrapped_base_has_nothing_merged(tmp_path: Path) -> None:
    wrap(tmp_path / "model", make_encoder("qwen3", tmp_path / "plain"))
    model = jina(SMALL, tmp_path / "model", {"merged_adapter": "retrieval"})
    assert "is of type [jina_embeddings_v5], whose weights have no adapter in them" in model.problems()[0]


def test_adapters_of_a_model_that_knows_none_are_not_passed_over(tmp_path: Path) -> None:
    folder = make_encoder("qwen3", tmp_path / "model")
    assert local_model(endpoint("text_embedding", folder)).problems() == []
    wrap(tmp_path / "wrapped", folder)
    (problem,) = local_model(endpoint("text_embedding", tmp_path / "wrapped")).problems()
    add_adapter(folder / "adapters" / "retrieval", {"layers.0.mlp.up_proj": (96, 64)}, 0)
    (other,) = local_model(endpoint("text_embedding", folder)).problems()
    for found in (problem, other):
        assert "embeds with task adapters" in found
        assert "[jina-embeddings-v3]" in found


def test_an_adapter_that_is_missing_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    folder = make_encoder("jina_embeddings_v3", tmp_path / "model")
    add_adapter(folder / "retrieval_passage", {"layers.0.self_attn.q_proj": (64, 64)}, 0)
    message = f"The checkpoint in [{folder}] has no adapter [retrieval.query]; it has ['retrieval_passage']"
    assert jina(V3, folder).problems() == [message]


@pytest.mark.parametrize(
    ("modules", "config", "message"),
    [
        (
            {"layers.0.mlp.up_proj": (96, 64)},
            {"use_dora": True},
            r"sets \[use_dora\], which is not known here",
        ),
        (
            {"layers.7.mlp.up_proj": (96, 64)},
            {},
            r"changes \[layers.7.mlp.up_proj\], which the model does not",
        ),
        ({"layers.0.mlp.up_proj": (64, 96)}, {}, r"has shape \[64, 96\], and its weights \[96, 64\]"),
        ({}, {"r": None}, r"has no rank: \[r\] in its adapter_config.json is \[None\]"),
        ({}, {}, r"has no tensors, where pairs of lora_A and lora_B belong"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    modules: dict[str, tuple[int, int]], config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = make_encoder("qwen3", tmp_path / "model")
    add_adapter(folder / "retrieval", modules, 0, **config)
    with pytest.raises(ModelLoadError, match=message):
        jina(SMALL, folder).load("cpu")


def test_no_tensor_of_an_adapter_is_passed_over(tmp_path: Path) -> None:
    folder = make_encoder("qwen3", tmp_path / "model")
    add_adapter(folder / "retrieval", {"layers.0.mlp.up_proj": (96, 64)}, 0)
    file = folder / "retrieval" / "adapter_model.safetensors"
    save_file({**load_file(file), "base_model.model.norm.weight": torch.ones(64)}, file)
    with pytest.raises(ModelLoadError, match=r"has the tensor \[base_model.model.norm.weight\], where pairs"):
        jina(SMALL, folder).load("cpu")
    file.write_bytes(b"torn")
    with pytest.raises(ModelLoadError, match=r"retrieval/adapter_model\.safetensors\] cannot be read"):
        jina(SMALL, folder).load("cpu")
    file.rename(file.with_name("adapter_model.bin"))
    with pytest.raises(ModelLoadError, match=r"has no adapter_model\.safetensors; only safetensors is read"):
        jina(SMALL, folder).load("cpu")


def test_other_adapters_are_another_model(tmp_path: Path) -> None:
    folder = make_encoder("qwen3", tmp_path / "model")
    add_adapter(folder / "retrieval", {"layers.0.mlp.up_proj": (96, 64)}, 0)
    before = jina(SMALL, folder).fingerprint
    shutil.rmtree(folder / "retrieval")
    add_adapter(folder / "retrieval", {"layers.0.mlp.up_proj": (96, 64)}, 1)
    assert jina(SMALL, folder).fingerprint != before


def test_jina_v3_with_code_of_its_own_names_the_conversion(tmp_path: Path) -> None:
    folder = make_encoder("xlm-roberta", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {"position_embedding_type": "rotary", "auto_map": {"AutoModel": "modeling_lora.XLMRobertaLoRA"}}
    (folder / "config.json").write_text(json.dumps(config))
    (problem,) = jina(V3, folder).problems()
    assert f"The positions of [{folder}] are [rotary]" in problem
    assert "jinaai/jina-embeddings-v3-hf" in problem


def test_a_tensor_that_is_missing_is_not_made_up(tmp_path: Path) -> None:
    folder = make_encoder("eurobert", tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "down_proj" in name)
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=rf"has no tensor \[{name}\]; is it complete\?"):
        local_model(endpoint("text_embedding", folder)).load("cpu")
