"""`infer` and `endpoints`: requests by arguments, files and stdin; Elasticsearch's answers and error bodies."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT
from support.scripted_service import scripted_service, vector

from models.endpoints.registry import Registry
from pipeline.__main__ import main


@pytest.fixture
def cli(tmp_path, capsys, monkeypatch):
    """Run a command with its endpoints in a folder of the test; returns exit code, parsed stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, stdin=None):
        if stdin is not None:
            path = tmp_path / "stdin"
            path.write_bytes(stdin if isinstance(stdin, bytes) else stdin.encode())
            monkeypatch.setattr("sys.stdin", path.open(encoding="utf-8"))
        code = main([*map(str, arguments), *(() if "--path" in arguments else ("--path", "eps"))])
        captured = capsys.readouterr()
        try:
            return code, json.loads(captured.out), captured.err
        except json.JSONDecodeError:
            return code, captured.out, captured.err

    return run


def test_dense_answers(cli):
    code, found, _ = cli("infer", ".hashing-dense", "one", "two words")
    assert code == 0
    assert list(found) == ["text_embedding"]
    assert [len(row["embedding"]) for row in found["text_embedding"]] == [64, 64]


def test_sparse_answers(cli):
    code, found, _ = cli("infer", "sparse_embedding/.hashing-sparse", "one two two")
    assert code == 0
    (row,) = found["sparse_embedding"]
    assert row["is_truncated"] is False
    weights = list(row["embedding"].values())
    assert weights == sorted(weights, reverse=True)
    assert min(weights) > 0


def test_texts_come_from_stdin_and_from_files(cli, tmp_path):
    text = "eins\n\nzwei \u2028 drei\r\nvier"
    (tmp_path / "texts").write_text(text, "utf-8", newline="")
    _, from_stdin, _ = cli("infer", ".hashing-dense", stdin=text)
    _, from_file, _ = cli("infer", ".hashing-dense", "--file", "texts")
    _, from_arguments, _ = cli("infer", ".hashing-dense", "eins", "", "zwei \u2028 drei", "vier")
    assert from_stdin == from_file == from_arguments
    assert len(from_stdin["text_embedding"]) == 4


@pytest.mark.parametrize(
    ("arguments", "stdin", "status", "message"),
    [
        ([".hashing-dense"], "", 400, "Field [input] cannot be an empty array"),
        (
            [".hashing-sparse", "a", "--input-type", "ingest"],
            None,
            400,
            "Field [input_type] cannot be specified for task type [sparse_embedding]",
        ),
        (
            [".hashing-dense", "a", "--input-type", "read"],
            None,
            400,
            "Invalid value [read] received. [input_type] must be one of",
        ),
        (["nope", "a"], None, 404, "Inference endpoint not found [nope]"),
        (
            ["sparse_embedding/.hashing-dense", "a"],
            None,
            400,
            "does not match the inference endpoint's task type",
        ),
        ([".hashing-dense", "--file", "missing"], None, 400, "[missing] cannot be read"),
        ([".hashing-dense", "--body", "-"], "{", 400, "the request body is not JSON"),
        ([".hashing-dense", "--body", "-"], "{}", 400, "Field [input] cannot be null"),
        (
            [".hashing-dense", "--body", "-"],
            '{"input": "a", "query": "q"}',
            400,
            "Field [query] cannot be specified for task type [text_embedding]",
        ),
        ([".hashing-dense", "--body", "-"], '{"input": "a", "inputs": "b"}', 400, "unknown field [inputs]"),
        ([".hashing-dense", "--body", "-"], '{"input": [1]}', 400, "must be a string or an array of strings"),
    ],
)
def test_errors_are_elasticsearchs_bodies_and_exit_code_1(cli, arguments, stdin, status, message):
    code, found, err = cli("infer", *arguments, stdin=stdin)
    assert code == 1
    assert message in found["error"]["reason"]
    assert found["error"]["root_cause"][0]["reason"] == found["error"]["reason"]
    assert found["status"] == status
    assert message in err


@pytest.mark.parametrize(
    ("element", "key", "length"), [("byte", "text_embedding_bytes", 64), ("bit", "text_embedding_bits", 8)]
)
def test_bytes_and_bits_of_a_local_endpoint(cli, element, key, length):
    body = {"service": "hashing", "service_settings": {"dimensions": 64, "element_type": element}}
    assert cli("endpoints", "put", "text_embedding/mine", stdin=json.dumps(body))[0] == 0
    code, found, _ = cli("infer", "mine", "some words")
    assert code == 0
    (row,) = found[key]
    assert len(row["embedding"]) == length
    assert all(isinstance(value, int) and -128 <= value <= 127 for value in row["embedding"])
    _, tried, _ = cli("endpoints", "test", "mine")
    assert tried["dimensions"] == 64


def remote(url):
    settings = {"api_key": "sk-planted", "model_id": "m", "url": f"{url}/v1/embeddings"}
    return json.dumps({"service": "openai", "service_settings": settings})


def test_the_life_of_a_remote_endpoint(cli):
    with scripted_service({"status": 503, "body": "{}"}, {}) as service:
        code, found, _ = cli("endpoints", "put", "text_embedding/mine", stdin=remote(service.url))
        assert code == 0
        assert found["service_settings"]["api_key"] == "file:.secrets/mine.api_key"
        assert cli("endpoints", "get", "mine")[1] == {"endpoints": [found]}
        assert cli("endpoints", "get", "text_embedding/_all")[1]["endpoints"][-1] == found
        assert "mine" in cli("endpoints", "list")[1]
        code, answered, _ = cli("infer", "mine", "abc")
        assert (code, answered) == (0, {"text_embedding": [{"embedding": vector("abc")}]})
        code, tried, _ = cli("endpoints", "test", "mine")
        assert tried["dimensions"] == 3
        assert tried["latency_ms"] > 0
        code, found, _ = cli("endpoints", "put", "text_embedding/mine", stdin=remote(service.url))
        assert (code, found["error"]["type"]) == (1, "resource_already_exists_exception")
        assert cli("endpoints", "delete", "mine")[1]["acknowledged"] is True
        assert cli("endpoints", "get", "mine")[1]["status"] == 404


def test_a_dry_run_checks_and_stores_nothing(cli, tmp_path):
    code, found, err = cli(
        "endpoints", "put", "text_embedding/mine", "--dry-run", stdin=remote("http://127.0.0.1")
    )
    assert (code, found["inference_id"]) == (0, "mine")
    assert "nothing was stored" in err
    assert not (tmp_path / "eps").exists()


def test_an_update_changes_what_changes_no_embedding(cli, tmp_path):
    def put(settings, *options):
        body = json.dumps({"service_settings": settings})
        return cli("endpoints", "put", "mine", "--update", *options, stdin=body)

    assert put({"api_key": "sk-planted-2"})[1]["status"] == 404
    _, defined, _ = cli("endpoints", "put", "text_embedding/mine", stdin=remote("http://127.0.0.1"))
    secret = tmp_path / "eps" / ".secrets" / "mine.api_key"
    code, found, err = put({"rate_limit": {"requests_per_minute": 7}, "api_key": "sk-planted-2"}, "--dry-run")
    assert (code, found["service_settings"]["rate_limit"]) == (0, {"requests_per_minute": 7})
    assert "nothing was stored" in err
    assert secret.read_text() == "sk-planted"
    assert cli("endpoints", "get", "mine")[1] == {"endpoints": [defined]}
    code, found, err = put({"rate_limit": {"requests_per_minute": 7}, "api_key": "sk-planted-2"})
    assert (code, err) == (0, "")
    assert "sk-planted" not in json.dumps(found)
    assert secret.read_text() == "sk-planted-2"
    assert cli("endpoints", "get", "mine")[1] == {"endpoints": [found]}
    code, refused, err = put({"model_id": "other"})
    assert (code, refused["status"]) == (1, 400)
    assert "cannot change [model_id]" in err
    assert cli("endpoints", "get", "mine")[1] == {"endpoints": [found]}


def test_the_deprecated_service_warns(cli):
    body = {"service": "elser", "service_settings": {"num_allocations": 1, "num_threads": 1}}
    code, _, err = cli("endpoints", "put", "mine", stdin=json.dumps(body))
    assert code == 0
    assert "The [elser] service is deprecated" in err


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is not a readable JSON file: Expecting property name"),
        (b"\xff\xfe", "is not a readable JSON file: 'utf-8' codec"),
        ("[]", "the body must be a JSON object, not list"),
        ('{"service": "nobody"}', "Unknown service [nobody]"),
        ('{"service": "hashing", "task_type": "text_embedding", "colour": 1}', "[colour]"),
    ],
)
def test_a_broken_definition_hides_no_other(cli, content, reason):
    cli("endpoints", "put", "text_embedding/good", stdin='{"service": "hashing"}')
    broken = Path("eps", "broken.json")
    broken.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, shown, errors = cli("endpoints", "list")
    assert code == 1
    assert "good" in shown
    assert ".minilm-l6-v2" in shown
    assert f"error: {broken} defines no endpoint: " in errors
    assert reason in errors
    for arguments in (("list", "--format", "json"), ("get", "_all")):
        code, listed, errors = cli("endpoints", *arguments)
        assert code == 1
        assert {"good", ".minilm-l6-v2"} < {one["inference_id"] for one in listed["endpoints"]}
        assert reason in errors
    assert cli("endpoints", "get", "good")[0] == 0
    assert cli("infer", "good", "a text")[0] == 0
    code, body, _ = cli("endpoints", "get", "broken")
    assert (code, body["status"]) == (1, 400)
    assert reason in body["error"]["reason"]


def test_a_service_that_hangs_does_not_hang_the_command(cli):
    with scripted_service({"delay": 60}) as service:
        cli("endpoints", "put", "text_embedding/mine", stdin=remote(service.url))
        code, found, _ = cli("infer", "mine", "a", "--timeout", "0.3")
    assert (code, found["status"]) == (1, 504)


CONFIG = """
source: {{format: jsonl, path: corpus.jsonl}}
mappings:
  properties:
    body: {{type: text, copy_to: [deep.field]}}
    deep:
      properties:
        field: {{type: semantic_text, {mapping}}}
endpoints: {{path: {folder}}}
table: {{path: out/table}}
failures: {{path: out/failures}}
"""
LOCAL = json.dumps({"service": "hashing", "service_settings": {"dimensions": 64}})


@pytest.mark.parametrize(
    "mapping", ["inference_id: mine", "inference_id: .hashing-dense, search_inference_id: mine"]
)
@pytest.mark.parametrize("place", ["run_configs/job.yaml", "job.yaml", "elsewhere/job.yaml"])
def test_an_endpoint_that_a_run_config_uses_is_kept(cli, tmp_path, mapping, place):
    cli("endpoints", "put", "text_embedding/mine", stdin=LOCAL)
    config = tmp_path / place
    config.parent.mkdir(exist_ok=True)
    config.write_text(CONFIG.format(mapping=mapping, folder="eps"))
    named = ["--config", place] if place.startswith("elsewhere") else []
    code, found, _ = cli("endpoints", "delete", "mine", *named)
    assert (code, found["status"]) == (1, 409)
    assert (
        f"Inference endpoint mine is referenced by pipelines: [{place}]. Ensure that"
        in found["error"]["reason"]
    )
    assert "is being used in the mapping for indexes: [out/table]." in found["error"]["reason"]
    code, found, _ = cli("endpoints", "delete", "mine", "--dry-run", *named)
    assert (code, found["acknowledged"], found["pipelines"], found["indexes"]) == (
        0,
        False,
        [place],
        ["out/table"],
    )
    assert cli("endpoints", "delete", "mine", "--force", *named)[1]["acknowledged"] is True


def test_run_configs_of_other_folders_and_other_endpoints_do_not_count(cli, tmp_path):
    cli("endpoints", "put", "text_embedding/mine", stdin=LOCAL)
    (tmp_path / "a.yaml").write_text(CONFIG.format(mapping="inference_id: mine", folder="other"))
    (tmp_path / "b.yaml").write_text(CONFIG.format(mapping="inference_id: not-mine", folder="eps"))
    (tmp_path / "c.yaml").write_text("[:")
    assert cli("endpoints", "delete", "mine")[1]["acknowledged"] is True


def test_an_endpoint_whose_embeddings_a_table_holds_is_kept(cli, tmp_path):
    cli("endpoints", "put", "text_embedding/mine", stdin=LOCAL)
    config = tmp_path / "job.yaml"
    (tmp_path / "corpus.jsonl").write_text('{"_id": "1", "body": "some words"}\n')
    config.write_text(CONFIG.format(mapping="inference_id: mine", folder="eps"))
    command = [sys.executable, "-m", "pipeline", "run", "job.yaml", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    config.write_text(CONFIG.format(mapping="inference_id: .hashing-dense", folder="eps"))
    code, found, _ = cli("endpoints", "delete", "mine")
    assert (code, found["status"]) == (1, 409)
    assert "used in the mapping for indexes: [out/table]" in found["error"]["reason"]


def test_every_preconfigured_endpoint_answers_or_says_what_is_missing(cli):
    for endpoint in Registry().list():
        query = () if endpoint.embeds else ("--query", "what")
        code, found, _ = cli("infer", endpoint.inference_id, "a text", *query)
        if code == 0:
            assert len(next(iter(found.values()))) == 1
        else:
            assert "weights" in found["error"]["reason"], found
