"""Secrets are references everywhere; their values show nowhere, also when something fails."""

import json
import pickle
import subprocess
import sys
import traceback

import pytest
from support.paths import ROOT
from support.scripted_service import scripted_service

from models.endpoints.endpoint import parse_endpoint
from models.endpoints.registry import Registry
from models.endpoints.secrets import Secrets, resolve
from models.errors import InferenceError
from models.open_model import open_model
from models.remote.http import Policy
from models.remote.model import remote_model

PLANTED = 'sk-planted-0815-"quoted"-häßlich'
QUICK = Policy(timeout=2.0, attempts=2, first_wait=0.01)


def openai(url, key):
    return {
        "service": "openai",
        "service_settings": {"api_key": key, "model_id": "m", "url": url},
        "task_settings": {"headers": {"X-Api-Token": "planted-header-4711", "X-Team": "search"}},
    }


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "endpoints"


def test_literal_secrets_move_to_files_that_only_their_owner_reads(folder):
    endpoint = Registry(folder).put("mine", openai("http://x/", PLANTED), "text_embedding")
    definition = (folder / "mine.json").read_text("utf-8")
    assert "planted" not in definition
    assert json.loads(definition)["service_settings"]["api_key"] == "file:.secrets/mine.api_key"
    secret = folder / ".secrets" / "mine.api_key"
    assert secret.read_text("utf-8") == PLANTED
    assert secret.stat().st_mode & 0o777 == 0o600
    assert secret.parent.stat().st_mode & 0o777 == 0o700
    assert (secret.parent / ".gitignore").read_text() == "*\n"
    assert "planted" not in f"{endpoint!r}{endpoint.to_json()}"
    assert endpoint.task_settings["headers"]["X-Team"] == "search"


def test_the_credential_of_a_header_moves_and_is_redacted_without_its_scheme(folder):
    body = openai("http://x/", "env:PLANTED")
    body["task_settings"] = {"headers": {"X-Odd": f"Bearer {PLANTED}", "X-Team": "bearers of news"}}
    headers = Registry(folder).put("mine", body, "text_embedding").task_settings["headers"]
    assert headers == {"X-Odd": "file:.secrets/mine.task.headers.X-Odd", "X-Team": "bearers of news"}
    secret = (folder / ".secrets" / "mine.task.headers.X-Odd").read_text("utf-8")
    assert secret == f"Bearer {PLANTED}"
    assert "planted" not in Secrets({"header": secret}).redact(
        f"no such key {PLANTED}; sent Bearer {PLANTED}"
    )


def test_a_literal_in_a_file_that_a_person_wrote_moves_too(folder):
    folder.mkdir()
    file = folder / "mine.json"
    file.write_text(json.dumps({"task_type": "text_embedding", **openai("http://x/", PLANTED)}))
    assert Registry(folder).get("mine").service_settings["api_key"] == "file:.secrets/mine.api_key"
    assert "planted" not in file.read_text("utf-8")
    assert (folder / ".secrets" / "mine.api_key").read_text("utf-8") == PLANTED


def test_deleting_an_endpoint_deletes_its_secrets_and_no_others(folder, tmp_path):
    own = tmp_path / "own-key"
    own.write_text("k")
    registry = Registry(folder)
    registry.put("mine", openai("http://x/", PLANTED), "text_embedding")
    registry.put("other", openai("http://x/", f"file:{own}"), "text_embedding")
    registry.delete("mine")
    assert sorted(file.name for file in (folder / ".secrets").iterdir()) == [
        ".gitignore",
        "other.task.headers.X-Api-Token",
    ]
    registry.delete("other")
    assert own.exists()


def test_a_refused_definition_leaves_no_secret_behind(folder):
    body = openai("http://x/", PLANTED)
    body["service_settings"]["dimensions"] = -1
    with pytest.raises(InferenceError) as failure:
        Registry(folder).put("mine", body, "text_embedding")
    assert "planted" not in failure.value.reason
    assert not folder.exists()


def test_references_are_resolved_on_the_worker_only(folder, monkeypatch):
    Registry(folder).put("mine", openai("http://x/", "env:PLANTED"), "text_embedding")
    monkeypatch.delenv("PLANTED", raising=False)
    model = pickle.loads(pickle.dumps(open_model(Registry(folder).get("mine"))))
    assert model.problems() == [
        "[api_key] is env:PLANTED, but the environment variable PLANTED is not set; export it and try again"
    ]
    with pytest.raises(InferenceError, match="PLANTED is not set"):
        model.load()
    monkeypatch.setenv("PLANTED", PLANTED)
    assert model.problems() == []
    assert b"planted-0815" not in pickle.dumps(model)
    embedder = model.load()
    assert "planted" not in repr(embedder)
    with pytest.raises((TypeError, AttributeError)):
        pickle.dumps(embedder)
    embedder.close()


@pytest.mark.parametrize(
    ("content", "message"), [(None, "cannot be read"), ("", "is empty"), ("\n", "is empty")]
)
def test_a_secret_file_must_hold_something(tmp_path, content, message):
    if content is not None:
        (tmp_path / "key").write_text(content)
    with pytest.raises(InferenceError, match=message):
        resolve({"api_key": "file:key"}, str(tmp_path))


def test_a_secret_files_last_line_break_does_not_count(tmp_path):
    (tmp_path / "key").write_text("k\n")
    assert resolve({"api_key": "file:key"}, str(tmp_path))["api_key"] == "k"


def test_resolved_secrets_show_and_travel_nowhere():
    secrets = Secrets({"api_key": PLANTED})
    assert repr(secrets) == "Secrets(api_key)"
    with pytest.raises(TypeError, match="do not travel"):
        pickle.dumps(secrets)
    said = secrets.redact(f"bad key {PLANTED} and {json.dumps(PLANTED)}")
    assert said == 'bad key [redacted] and "[redacted]"'


def test_a_secret_in_a_query_parameter_is_not_logged(monkeypatch, caplog):
    monkeypatch.setenv("PLANTED", "sk-planted-0815")
    settings = {
        "secret_parameters": {"key": "env:PLANTED"},
        "query_parameters": [["key", "${key}"], ["b", "2"]],
        "headers": {"Content-Type": "application/json"},
        "request": '{"input": ${input}}',
        "response": {"json_parser": {"text_embeddings": "$.data[*].embedding"}},
    }
    with caplog.at_level("DEBUG"), scripted_service({}, {"cut": 4}, {"status": 307, "body": "{}"}) as service:
        body = {"service": "custom", "service_settings": {**settings, "url": f"{service.url}/x?a=1"}}
        embedder = remote_model(parse_endpoint("mine", body, "text_embedding"), QUICK).load()
        embedder.embed(["text"], "ingest")
        with pytest.raises(InferenceError) as failure:
            embedder.embed(["text"], "ingest")
        assert service.requests[0]["path"] == "/x?a=1&key=sk-planted-0815&b=2"
    assert "planted" not in caplog.text + failure.value.reason


@pytest.mark.parametrize("key", ["sk-planted\n0815", "sk-planted-häßlich"])
def test_a_secret_that_no_header_can_hold_is_not_shown(monkeypatch, key):
    monkeypatch.setenv("PLANTED", key)
    with scripted_service() as service:
        body = {**openai(service.url, "env:PLANTED"), "task_settings": {}}
        embedder = remote_model(parse_endpoint("mine", body, "text_embedding"), QUICK).load()
        with pytest.raises(InferenceError, match="holds a character that HTTP cannot send") as failure:
            embedder.embed(["text"], "ingest")
        assert service.requests == []
    assert failure.value.__context__ is None
    assert "planted" not in "".join(traceback.format_exception(failure.value))


@pytest.mark.parametrize(
    "step", [{"status": 401, "echo": True}, {"status": 500, "echo": True}, {"cut": 5}, {"delay": 9}]
)
def test_no_secret_is_in_an_error_or_anything_that_hangs_on_it(folder, monkeypatch, step):
    key = "sk-planted-0815"
    monkeypatch.setenv("PLANTED", key)
    with scripted_service(step) as service:
        Registry(folder).put("mine", openai(f"{service.url}/v1/embeddings", "env:PLANTED"), "text_embedding")
        embedder = remote_model(
            Registry(folder).get("mine"), Policy(timeout=0.5, attempts=2, first_wait=0.01)
        ).load()
        with pytest.raises(InferenceError) as failure:
            embedder.embed(["text"], "ingest")
        sent = service.requests[0]["headers"]
        assert sent["Authorization"] == f"Bearer {key}"
        assert sent["X-Api-Token"] == "planted-header-4711"
    error = failure.value
    while error is not None:
        assert "planted" not in f"{error!r}{vars(error)}"
        assert not type(error).__module__.startswith(("httpx", "httpcore"))
        error = error.__cause__ or error.__context__
    assert "planted" not in "".join(traceback.format_exception(failure.value))


def test_no_secret_is_in_the_output_of_a_command_that_fails(folder, tmp_path):
    with scripted_service({"status": 403, "echo": True}) as service:
        body = tmp_path / "body.json"
        body.write_text(json.dumps(openai(f"{service.url}/v1/embeddings", "sk-planted-0815")))
        outputs = [
            run("endpoints", "put", "text_embedding/mine", "--file", str(body), "--path", str(folder)),
            run("endpoints", "get", "mine", "--path", str(folder)),
            run("endpoints", "list", "--format", "json", "--path", str(folder)),
            run("endpoints", "test", "mine", "--path", str(folder)),
            run("infer", "mine", "text", "--path", str(folder)),
        ]
    assert [output.returncode for output in outputs] == [0, 0, 0, 1, 1]
    assert "[redacted]" in outputs[-1].stdout
    assert "planted" not in "".join(output.stdout + output.stderr for output in outputs)
    found = [file for file in tmp_path.rglob("*") if file.is_file() and "planted" in file.read_text("utf-8")]
    assert {file.parent.name for file in found if file != body} == {".secrets"}


CONFIG = """
source: {{format: jsonl, path: {folder}/corpus.jsonl}}
mappings: {{properties: {{text: {{type: semantic_text, inference_id: mine}}}}}}
endpoints: {{path: {folder}/endpoints}}
table: {{path: {folder}/out/table}}
index: {{path: {folder}/out/index}}
failures: {{path: {folder}/out/failures, max_ratio: 1.0}}
"""


@pytest.mark.parametrize(
    ("steps", "code"),
    [([{}], 0), ([{}, {"status": 400, "echo": True}], 0), ([{"status": 401, "echo": True}], 1)],
    ids=["served", "refused", "unauthorized"],
)
def test_a_run_leaves_no_secret_anywhere(tmp_path, monkeypatch, steps, code):
    monkeypatch.setenv("PLANTED", "sk-planted-0815")
    documents = "".join(f'{{"_id": "{number}", "text": "text number {number}"}}\n' for number in range(3))
    (tmp_path / "corpus.jsonl").write_text(documents)
    (tmp_path / "run.yaml").write_text(CONFIG.format(folder=tmp_path))
    with scripted_service(*steps) as service:
        body = {**openai(f"{service.url}/v1/embeddings", "env:PLANTED"), "task_settings": {}}
        Registry(tmp_path / "endpoints").put("mine", body, "text_embedding")
        done = run("run", str(tmp_path / "run.yaml"))
        searched = run(
            "search", str(tmp_path / "run.yaml"), "text number 2", "--mode", "dense", "--format", "json"
        )
        assert service.requests[0]["headers"]["Authorization"] == "Bearer sk-planted-0815"
    assert (done.returncode != 0) == (code != 0), done.stderr
    assert "planted" not in done.stdout + done.stderr + searched.stdout + searched.stderr
    if steps == [{}]:
        assert len(json.loads(searched.stdout)["hits"]) == 3
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not [file for file in files if b"sk-planted" in file.read_bytes()]
    if steps[-1].get("status") == 400:
        failures = b"".join(file.read_bytes() for file in (tmp_path / "out" / "failures").rglob("*.jsonl"))
        assert b"[redacted]" in failures


def run(*arguments):
    command = [sys.executable, "-m", "pipeline", *arguments]
    root = ROOT
    return subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=240)
