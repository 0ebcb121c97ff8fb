"""The registry: get, list, put and delete, and the preconfigured endpoints."""

import json
import multiprocessing
import os
import time
from functools import partial

import pytest
from support.paths import ROOT

from models.endpoints.preconfigured import PRECONFIGURED
from models.endpoints.registry import Registry, Usage
from models.endpoints.secrets import resolve
from models.errors import InferenceError
from models.open_model import open_model

E5 = {
    "service": "elasticsearch",
    "service_settings": {"model_id": ".multilingual-e5-small", "num_allocations": 1, "num_threads": 1},
}


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "endpoints")


def refused(status, message, call, *args, **kwargs):
    with pytest.raises(InferenceError) as failure:
        call(*args, **kwargs)
    assert message in failure.value.reason
    assert failure.value.status == status
    return failure.value


def test_a_definition_comes_back(registry, tmp_path):
    put = registry.put("mine", E5, "text_embedding")
    assert registry.get("mine") == put
    assert json.loads((tmp_path / "endpoints" / "mine.json").read_text()) == put.to_json()
    assert "mine" in [endpoint.inference_id for endpoint in registry.list()]


def test_an_endpoint_is_never_overwritten(registry):
    registry.put("mine", E5, "text_embedding")
    failure = refused(
        400, "Inference endpoint [mine] already exists", registry.put, "mine", E5, "text_embedding"
    )
    assert failure.type == "resource_already_exists_exception"


def _put_in_a_race(folder, barrier, results):
    barrier.wait()
    try:
        Registry(folder).put("mine", E5, "text_embedding")
        results.put("stored")
    except InferenceError as error:
        results.put(error.type)


def test_of_two_writers_at_once_one_is_refused(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    writers = [context.Process(target=_put_in_a_race, args=(tmp_path, barrier, results)) for _ in range(4)]
    for writer in writers:
        writer.start()
    found = sorted(results.get(timeout=60) for _ in writers)
    for writer in writers:
        writer.join()
    assert found == ["resource_already_exists_exception"] * 3 + ["stored"]
    assert [file.name for file in tmp_path.iterdir()] == ["mine.json"]


def test_a_dry_run_stores_nothing(registry, tmp_path):
    body = {"service": "openai", "service_settings": {"api_key": "sk-literal", "model_id": "m"}}
    endpoint = registry.put("mine", body, "text_embedding", dry_run=True)
    assert endpoint.service_settings["api_key"] == "file:.secrets/mine.api_key"
    assert not (tmp_path / "endpoints").exists()


@pytest.mark.parametrize("inference_id", sorted(PRECONFIGURED))
def test_preconfigured_ids_are_there_and_reserved(registry, inference_id):
    endpoint = registry.get(inference_id)
    assert endpoint.inference_id == inference_id
    if endpoint.embeds:
        assert open_model(endpoint).model_settings["task_type"] == endpoint.task_type
    message = (
        f"[{inference_id}] is a reserved inference Id. Cannot create a new inference endpoint with a"
        " reserved Id"
    )
    refused(400, message, registry.put, inference_id, E5, "text_embedding")
    refused(400, "is a reserved inference endpoint", registry.delete, inference_id)


def test_elastics_preconfigured_settings(registry):
    adaptive = {"enabled": True, "min_number_of_allocations": 0, "max_number_of_allocations": 32}
    assert registry.get(".elser-2-elasticsearch").service_settings == {
        "model_id": ".elser_model_2",
        "num_threads": 1,
        "adaptive_allocations": adaptive,
    }
    assert registry.get(".jina-embeddings-v5-text-nano").service_settings["dimensions"] == 768


def test_an_id_must_not_be_a_models(registry):
    message = (
        "Requested inference endpoint ID [all-minilm-l6-v2] matches existing trained model ID(s) but"
        " must not."
    )
    refused(400, message, registry.put, "all-minilm-l6-v2", E5, "text_embedding")


def test_an_unknown_id_is_404(registry):
    failure = refused(404, "Inference endpoint not found [nope]", registry.get, "nope")
    assert failure.type == "resource_not_found_exception"
    refused(404, "[nope]", registry.delete, "nope")
    refused(404, "", registry.get, "../../etc/passwd")


def test_the_task_type_must_match(registry):
    registry.put("mine", E5, "text_embedding")
    message = (
        "Requested task type [sparse_embedding] does not match the inference endpoint's task type"
        " [text_embedding]"
    )
    refused(400, message, registry.get, "mine", "sparse_embedding")
    refused(400, message, registry.delete, "mine", "sparse_embedding")
    refused(400, "Unknown task_type [x]", registry.get, "mine", "x")


def test_a_list_of_a_task_may_be_empty_and_is_never_404(registry):
    assert registry.list("embedding") == []
    assert {endpoint.task_type for endpoint in registry.list("sparse_embedding")} == {"sparse_embedding"}
    assert len(Registry(None).list()) == len(PRECONFIGURED)


def test_deleting(registry, tmp_path):
    registry.put("mine", E5, "text_embedding")
    assert registry.delete("mine")["acknowledged"] is True
    refused(404, "", registry.get, "mine")
    registry.put("mine", E5, "text_embedding")


PIPELINE = (
    "Inference endpoint mine is referenced by pipelines: [p]. Ensure that no pipelines are using this"
    " inference"
    " endpoint, or use force to ignore this warning and delete the inference endpoint."
)
INDEX = (
    "Inference endpoint mine is being used in the mapping for indexes: [i]. Ensure that no index mappings"
    " are using"
    " this inference endpoint, or use force to ignore this warning and delete the inference endpoint."
)


@pytest.mark.parametrize(
    ("usages", "message"),
    [
        ([Usage("pipelines", "p")], PIPELINE),
        ([Usage("indexes", "i"), Usage("indexes", "i")], INDEX),
        ([Usage("pipelines", "p"), Usage("indexes", "i")], f"{PIPELINE} {INDEX}"),
    ],
)
def test_an_endpoint_in_use_is_kept(registry, usages, message):
    registry.put("mine", E5, "text_embedding")
    failure = refused(409, message, registry.delete, "mine", usages=usages)
    assert failure.reason == message
    tried = registry.delete("mine", usages=usages, dry_run=True)
    assert tried["acknowledged"] is False
    assert tried["error_message"] == message
    assert tried["indexes"] == sorted({usage.name for usage in usages if usage.kind == "indexes"})
    assert registry.get("mine")
    assert registry.delete("mine", usages=usages, force=True)["acknowledged"] is True


def test_a_definition_that_a_person_wrote_needs_no_id(registry, tmp_path):
    folder = tmp_path / "endpoints"
    folder.mkdir()
    (folder / "hand-made.json").write_text(json.dumps({"task_type": "text_embedding", **E5}))
    assert registry.get("hand-made").task_type == "text_embedding"
    (folder / "other.json").write_text(json.dumps({"inference_id": "x", "task_type": "text_embedding", **E5}))
    refused(400, "[x]", registry.get, "other")
    (folder / "broken.json").write_text("{")
    refused(400, "broken.json is not a readable JSON file", registry.get, "broken")


def test_a_definition_is_read_again_when_its_file_has_changed(registry, tmp_path, monkeypatch):
    file = tmp_path / "endpoints" / "mine.json"
    file.parent.mkdir()
    now = time.time_ns
    for dimensions in (8, 16, 32):  # in place, at once, and as long as before
        body = {
            "service": "hashing",
            "task_type": "text_embedding",
            "service_settings": {"dimensions": dimensions},
        }
        file.write_text(f"{json.dumps(body):<200}")
        assert registry.get("mine").service_settings["dimensions"] == dimensions
        assert registry.get("mine") is not registry.get("mine")
    monkeypatch.setattr(time, "time_ns", lambda: now() + 2_000_000_000)
    assert registry.get("mine") is registry.get("mine")
    file.write_text(f"{json.dumps({**body, 'service_settings': {'dimensions': 64}}):<200}")
    monkeypatch.setattr(time, "time_ns", now)
    assert registry.get("mine").service_settings["dimensions"] == 64
    file.unlink()
    with pytest.raises(InferenceError, match="not found"):
        registry.get("mine")


def test_a_definition_is_stored_with_its_secrets_or_not_at_all(registry, tmp_path):
    (tmp_path / "endpoints").mkdir()
    (tmp_path / "endpoints" / ".secrets").write_text("in the way")
    body = {"service": "openai", "service_settings": {"api_key": "sk-literal", "model_id": "m"}}
    refused(500, "cannot be written", registry.put, "mine", body, "text_embedding")
    assert [file.name for file in (tmp_path / "endpoints").iterdir()] == [".secrets"]


def test_the_examples_are_definitions():
    folder = ROOT / "run_configs" / "endpoints"
    examples = [
        endpoint for endpoint in Registry(folder).list() if endpoint.inference_id not in PRECONFIGURED
    ]
    assert sorted(f"{endpoint.inference_id}.json" for endpoint in examples) == sorted(
        file.name for file in folder.glob("*.json")
    )
    for endpoint in examples:
        assert open_model(endpoint).describe()["model_id"]


WRONG = {
    "deep": b"[" * 100_000,
    "noise": bytes(range(256)),
    "huge": b" " * (2 << 20),
    "list": b"[]",
    "number": b"5",
    "null": b"null",
    "odd-service": b'{"service": {"a": [1]}, "task_type": 7, "service_settings": [1]}',
    "odd-settings": b'{"service": "openai", "service_settings": {"api_key": [[]], "url": {}, "model_id": 5}}',
    "odd-chunks": b'{"service": "openai", "service_settings": {}, "task_settings": 3, "chunking_settings": [[5]]}',
    "WRONG NAME\n": b"{}",
}


def test_no_wrong_file_hides_another(registry, tmp_path):
    folder = tmp_path / "endpoints"
    folder.mkdir()
    (folder / "good.json").write_text(json.dumps({"task_type": "text_embedding", **E5}))
    for name, content in WRONG.items():
        (folder / f"{name}.json").write_bytes(content)
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "pipe.json")
    (folder / "nowhere.json").symlink_to("not-there")
    found, wrong = registry.list_all()
    assert "good" in [endpoint.inference_id for endpoint in found]
    assert len(wrong) == len(WRONG) + 3
    assert all(error.reason for error in wrong.values())


def dies_after(steps, change):
    """Run a change in a process that is killed before its step number `steps`; whether it came to its end."""
    child = os.fork()
    if not child:
        left = steps

        def counted(real):
            def step(*arguments, **options):
                nonlocal left
                if left == 0:
                    os._exit(9)
                left -= 1
                return real(*arguments, **options)

            return step

        for name in ("replace", "open", "fsync", "unlink", "mkdir"):
            setattr(os, name, counted(getattr(os, name)))
        change()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("command", ["put", "delete"])
def test_a_put_or_delete_that_is_killed_leaves_all_or_nothing(command, tmp_path):
    body = {
        "service": "openai",
        "service_settings": {"api_key": "sk-literal", "model_id": "m"},
        "task_settings": {"headers": {"X-Token": "sk-other"}},
    }
    states = set()
    for steps in range(60):
        folder = tmp_path / str(steps)
        registry = Registry(folder)
        if command == "delete":
            registry.put("mine", body, "text_embedding")
            change = partial(registry.delete, "mine")
        else:
            change = partial(registry.put, "mine", body, "text_embedding")
        ended = dies_after(steps, change)
        if (folder / "mine.json").exists():  # what another reader sees before anything is cleared
            endpoint = registry.get("mine")
            assert all(resolve(endpoint.secret_references, str(folder)).values())
        registry.list()
        states.add(frozenset(path.name for path in folder.rglob("*") if path.is_file()) - {".gitignore"})
        if ended:
            break
    assert ended
    assert states == {frozenset(), frozenset({"mine.json", "mine.api_key", "mine.task.headers.X-Token"})}
