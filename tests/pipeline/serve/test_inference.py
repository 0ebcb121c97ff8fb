"""`/_inference` over HTTP: the same answers, errors and status codes as on the command line."""

import json
import os

import pytest
import yaml
from starlette.testclient import TestClient
from support.checkpoints import make_cross_encoder
from support.paths import TEST_DATA
from support.scripted_service import scripted_service
from support.small_run import SmallRun, document

from models.endpoints.registry import Registry
from pipeline.__main__ import main
from pipeline.serve.app import create_app
from pipeline.serve.corpus import Corpus, open_corpus

BODIES = json.loads((TEST_DATA / "endpoint_bodies.json").read_text("utf-8"))
LOCAL = {"model_id": ".elser_model_2", "num_allocations": 1, "num_threads": 1}
HASHING = {"service": "hashing", "service_settings": {"dimensions": 16}}


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with TestClient(create_app(Corpus(endpoints="eps")), base_url="http://127.0.0.1:8700") as client:
        yield client


def refused(answer, status, message):
    """The answer is Elasticsearch's error body, whole."""
    body = answer.json()
    assert answer.status_code == body["status"] == status
    assert message in body["error"]["reason"]
    assert body["error"]["root_cause"] == [{key: body["error"][key] for key in ("type", "reason")}]
    return body["error"]


def test_answers_are_those_of_infer(client, capsys):
    for target, body in (
        (".hashing-dense", {"input": ["one", "two"], "input_type": "search"}),
        ("text_embedding/.minilm-l6-v2", {"input": "one text"}),
        ("sparse_embedding/.splade-tiny", {"input": ["one text", ""]}),
    ):
        answer = client.post(f"/_inference/{target}", json=body)
        with open("body.json", "w") as file:
            json.dump(body, file)
        assert main(["infer", target, "--body", "body.json", "--path", "eps"]) == 0
        assert answer.text == capsys.readouterr().out.rstrip("\n")
        assert answer.headers["x-elastic-product"] == "Elasticsearch"


@pytest.mark.parametrize(("task", "body"), BODIES, ids=[body["service"] for _, body in BODIES])
def test_what_is_put_is_got_and_deleted(client, task, body):
    put = client.put(f"/_inference/{task}/mine", json=body)
    if body["service"] in ("elasticsearch", "elastic") and put.status_code == 400:
        refused(put, 400, "is no model that this server knows")
        return
    assert put.status_code == 200
    assert put.json() == Registry("eps").get("mine").to_json()
    for path in ("mine", f"{task}/mine"):
        assert client.get(f"/_inference/{path}").json() == {"endpoints": [put.json()]}
    assert put.json() in client.get(f"/_inference/{task}/_all").json()["endpoints"]
    assert client.delete("/_inference/mine").json() == {
        "acknowledged": True,
        "pipelines": [],
        "indexes": [],
        "error_message": "",
    }
    refused(client.get("/_inference/mine"), 404, "Inference endpoint not found [mine]")
    assert [entry.name for entry in os.scandir("eps")] in ([".secrets"], [])


def test_lists(client):
    every = {one["inference_id"] for one in client.get("/_inference").json()["endpoints"]}
    assert every == {one["inference_id"] for one in client.get("/_inference/_all").json()["endpoints"]}
    assert {".minilm-l6-v2", ".splade-tiny"} <= every
    assert client.get("/_inference/embedding/_all").json() == {"endpoints": []}


@pytest.mark.parametrize("inference_id", ["A", "-a", "a-", "_a", "a b", "_all", "é", "%00", "..%5cx"])
def test_bad_ids(client, inference_id):
    answer = client.put(f"/_inference/text_embedding/{inference_id}", json=HASHING)
    refused(answer, 400, "can contain lowercase alphanumeric")
    assert not os.path.exists("eps")


@pytest.mark.parametrize("inference_id", ["%2e%2e%2fsecret", "..%2fsecret", "%00", "a" * 3000, ".secrets"])
def test_ids_never_reach_a_path(client, tmp_path, inference_id):
    (tmp_path / "secret.json").write_text(json.dumps(HASHING))
    for answer in (client.get(f"/_inference/{inference_id}"), client.delete(f"/_inference/{inference_id}")):
        assert answer.status_code in (400, 404, 405)
    assert (tmp_path / "secret.json").exists()


@pytest.mark.parametrize(
    ("target", "body", "status", "message"),
    [
        ("mine", {"service": "x"}, 400, "Unknown service [x]"),
        ("mine", {}, 400, "is missing a service"),
        (".elser-2-elastic", HASHING, 400, "[.elser-2-elastic] is a reserved inference Id. Cannot create"),
        (
            "sparse_embedding/mine",
            {"service": "elasticsearch", "service_settings": {**LOCAL, "num_threads": None}},
            400,
            "does not contain the required setting [num_threads]",
        ),
        (
            "sparse_embedding/mine",
            {"service": "elasticsearch", "service_settings": {"num_threads": 1, "num_allocations": 1}},
            400,
            "model_id must be provided",
        ),
        (
            "sparse_embedding/mine",
            {"service": "elasticsearch", "service_settings": {**LOCAL, "num_threads": 3}},
            400,
            "must be a power of 2",
        ),
        (
            "sparse_embedding/mine",
            {"service": "elasticsearch", "service_settings": {**LOCAL, "unknown_key": 1}},
            400,
            "[service_settings.unknown_key]",
        ),
        ("dense/mine", HASHING, 400, "Unknown task_type [dense]"),
        (
            "text_embedding/mine",
            {**HASHING, "chunking_settings": {"strategy": "word", "max_chunk_size": 5, "overlap": 0}},
            400,
            "[max_chunk_size] must be greater than or equal to [10.0]",
        ),
    ],
)
def test_bad_definitions(client, target, body, status, message):
    refused(client.put(f"/_inference/{target}", json=body), status, message)


def test_an_endpoint_is_never_overwritten(client):
    assert client.put("/_inference/text_embedding/mine", json=HASHING).status_code == 200
    error = refused(client.put("/_inference/text_embedding/mine", json=HASHING), 400, "[mine] already exists")
    assert error["type"] == "resource_already_exists_exception"


@pytest.mark.parametrize(
    ("target", "body", "message"),
    [
        (".hashing-dense", {"input": []}, "Field [input] cannot be an empty array"),
        (".hashing-dense", {}, "Field [input] cannot be null"),
        (".hashing-dense", {"input": "x", "query": "q"}, "Field [query] cannot be specified for task type"),
        (".hashing-sparse", {"input": "x", "input_type": "ingest"}, "Field [input_type] cannot be specified"),
        (".hashing-dense", {"input": ["x"] * 3000}, "at most 2048"),
        (
            "sparse_embedding/.hashing-dense",
            {"input": "x"},
            "does not match the inference endpoint's task type",
        ),
        (".hashing-dense", {"input": "x", "inputs": 1}, "unknown field [inputs]"),
        (".hashing-dense", [], "must be a JSON object"),
    ],
)
def test_bad_requests(client, target, body, message):
    refused(client.post(f"/_inference/{target}", json=body), 400, message)


def test_bodies_have_bounds(client):
    post = client.post
    refused(post("/_inference/.hashing-dense", content=b"x" * (9 << 20)), 413, "larger than")
    refused(
        post("/_inference/.hashing-dense", content=b"{", headers={"content-type": "application/json"}),
        400,
        "JSON",
    )
    refused(post("/_inference/.hashing-dense", content=b"[" * 100_000), 400, "not JSON")
    refused(post("/_inference/.hashing-dense"), 400, "request body is required")
    refused(
        post("/_inference/.hashing-dense", content="{}", headers={"content-type": "text/plain"}),
        406,
        "text/plain",
    )


@pytest.mark.parametrize("timeout", ["5", "soon", "-1s", "5 parsecs"])
def test_time_values_have_units(client, timeout):
    answer = client.post("/_inference/.hashing-dense", json={"input": "x"}, params={"timeout": timeout})
    refused(answer, 400, f"failed to parse setting [timeout] with value [{timeout}]")


def test_a_service_that_does_not_answer_is_given_up_in_time(client):
    with scripted_service({"delay": 2}) as service:
        body = {
            "service": "openai",
            "service_settings": {"model_id": "m", "api_key": "sk-4711", "url": service.url},
        }
        assert client.put("/_inference/text_embedding/slow", json=body).status_code == 200
        answer = client.post("/_inference/slow", json={"input": "x"}, params={"timeout": "100ms"})
        refused(answer, 408, "Request timed out after [0.1s]")


def test_a_secret_is_stored_apart_and_never_shown(client):
    body = {"service": "openai", "service_settings": {"model_id": "m", "api_key": "sk-planted-4711"}}
    answers = [
        client.put("/_inference/text_embedding/mine", json=body),
        client.get("/_inference/mine"),
        client.put("/_inference/mine/_update", json={"service_settings": {"api_key": "sk-planted-4712"}}),
        client.get("/_inference"),
    ]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert all("sk-planted" not in answer.text for answer in answers)
    with open("eps/.secrets/mine.api_key") as file:
        assert file.read() == "sk-planted-4712"


@pytest.mark.parametrize("reference", ["env:HOME", "file:/etc/passwd", "file:.secrets/other.api_key"])
def test_a_request_cannot_name_a_secret_of_this_machine(client, reference):
    body = {"service": "openai", "service_settings": {"model_id": "m", "api_key": reference}}
    refused(
        client.put("/_inference/text_embedding/mine", json=body), 400, "refers to a secret of this machine"
    )
    body["service_settings"]["api_key"] = "sk-1"
    client.put("/_inference/text_embedding/mine", json=body)
    update = {"service_settings": {"api_key": reference}}
    refused(client.put("/_inference/mine/_update", json=update), 400, "refers to a secret of this machine")


@pytest.mark.parametrize("model_id", ["/etc", "../..", "eps", "~", "package:numpy/core", "someone/something"])
def test_a_request_cannot_name_a_folder(client, model_id):
    body = {"service": "elasticsearch", "service_settings": {**LOCAL, "model_id": model_id}}
    refused(
        client.put("/_inference/text_embedding/mine", json=body), 400, "is no model that this server knows"
    )


def test_updates_change_what_changes_no_embedding(client):
    client.put(
        "/_inference/sparse_embedding/mine", json={"service": "elasticsearch", "service_settings": LOCAL}
    )
    update = {"service_settings": {"num_allocations": 2}}
    changed = client.put("/_inference/sparse_embedding/mine/_update", json=update)
    assert changed.json()["service_settings"]["num_allocations"] == 2
    assert client.get("/_inference/mine").json()["endpoints"] == [changed.json()]
    put = client.put
    fixed = {"service_settings": {"model_id": "splade-tiny"}}
    refused(put("/_inference/mine/_update", json=fixed), 400, "cannot change [model_id]")
    refused(put("/_inference/mine/_update", json={}), 400, "an update takes")
    refused(put("/_inference/mine/_update", json={"chunking_settings": {}}), 400, "not [chunking_settings]")
    refused(put("/_inference/.splade-tiny/_update", json=update), 400, "is a reserved inference endpoint")
    refused(put("/_inference/none/_update", json=update), 404, "not found [none]")
    refused(put("/_inference/text_embedding/mine/_update", json=update), 400, "does not match")


def test_the_next_request_uses_the_new_secret(client):
    with scripted_service() as service:
        body = {
            "service": "openai",
            "service_settings": {"model_id": "m", "api_key": "old", "url": service.url},
        }
        client.put("/_inference/text_embedding/mine", json=body)
        client.post("/_inference/mine", json={"input": "x"})
        client.put("/_inference/mine/_update", json={"service_settings": {"api_key": "new"}})
        client.post("/_inference/mine", json={"input": "x"})
        sent = [request["headers"]["Authorization"] for request in service.requests]
        assert sent == ["Bearer old", "Bearer new"]


def test_deleting_says_what_uses_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = SmallRun(tmp_path, endpoints={"path": "eps"})
    Registry("eps").put("mine", HASHING, "text_embedding")
    small.config["mappings"]["properties"]["dense"]["inference_id"] = "mine"
    small.write([document(0)])
    assert small.run() == 0
    config = str(small.config_path)
    with TestClient(create_app(open_corpus(config)), base_url="http://127.0.0.1") as client:
        delete = client.delete
        refused(delete("/_inference/mine"), 409, "Inference endpoint mine is referenced by pipelines: [")
        dry = delete("/_inference/mine", params={"dry_run": "true"}).json()
        assert (dry["acknowledged"], dry["pipelines"], dry["indexes"]) == (
            False,
            [config],
            [small.table_path],
        )
        refused(delete("/_inference/mine", params={"force": "yes"}), 400, "Failed to parse value [yes]")
        assert delete("/_inference/mine?force=true").json()["acknowledged"] is True
        refused(delete("/_inference/mine"), 404, "not found")
        refused(delete("/_inference/.minilm-l6-v2"), 400, "cannot be deleted")


def test_models_of_the_config_are_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = SmallRun(tmp_path, models={"house-model": "splade-tiny"}, endpoints={"path": "eps"})
    small.config_path.write_text(yaml.safe_dump(small.config))
    body = {"service": "elasticsearch", "service_settings": {**LOCAL, "model_id": "house-model"}}
    with TestClient(create_app(open_corpus(str(small.config_path))), base_url="http://127.0.0.1") as client:
        assert client.put("/_inference/sparse_embedding/mine", json=body).status_code == 200
        assert client.post("/_inference/mine", json={"input": "x"}).status_code == 200


def test_what_clients_ask_a_cluster_first(client):
    root = client.get("/", headers={"accept": "application/vnd.elasticsearch+json; compatible-with=9"})
    assert root.json()["tagline"] == "You Know, for Search"
    assert root.headers["content-type"] == "application/vnd.elasticsearch+json;compatible-with=9"
    assert client.head("/").status_code == 200
    refused(client.get("/_cluster/health"), 404, "no handler for [GET /_cluster/health]")
    refused(client.delete("/_inference"), 405, "no handler for [DELETE /_inference]")


def test_texts_are_ranked_as_by_infer(client, tmp_path, capsys):
    settings = {"model_id": str(make_cross_encoder("bert", tmp_path / "model"))}
    body = {"service": "elasticsearch", "service_settings": {**LOCAL, **settings}}
    Registry("eps").put("mine", body, "rerank")
    asked = {"query": "the cat", "input": ["a dog", "the cat sat", "day"], "top_n": 2}
    answer = client.post("/_inference/rerank/mine", json=asked)
    (tmp_path / "body.json").write_text(json.dumps(asked))
    capsys.readouterr()
    assert main(["infer", "rerank/mine", "--body", "body.json", "--path", "eps"]) == 0
    assert answer.text == capsys.readouterr().out.rstrip("\n")
    rows = answer.json()["rerank"]
    assert len(rows) == 2
    assert rows[0]["relevance_score"] >= rows[1]["relevance_score"]
    assert [row["text"] for row in rows] == [asked["input"][row["index"]] for row in rows]
    short = client.post("/_inference/mine", json={**asked, "return_documents": False, "top_n": None})
    assert [sorted(row) for row in short.json()["rerank"]] == [["index", "relevance_score"]] * 3
    for wrong, message in (
        ({"input": ["a"]}, "Field [query] cannot be null or empty"),
        ({**asked, "top_n": 0}, "[top_n] must be a positive integer"),
        ({**asked, "input_type": "search"}, "Field [input_type] cannot be specified for task type [rerank]"),
    ):
        refused(client.post("/_inference/mine", json=wrong), 400, message)
    refused(client.post("/_inference/text_embedding/mine", json=asked), 400, "does not match")
    assert client.get("/v1/models/mine").status_code == 404
    assert "mine" not in {one["id"] for one in client.get("/v1/models").json()["data"]}
    assert client.delete("/_inference/mine").json()["acknowledged"]
