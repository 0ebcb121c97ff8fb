"""Each service that reranks: what it is asked, and what its answer means."""

import json

import numpy as np
import pytest
from support.scripted_service import scripted_service

from models.endpoints.endpoint import parse_endpoint
from models.errors import InferenceError
from models.open_model import open_rerank_model, usable_rerank_model
from models.remote.protocols import google, watsonxai

TEXTS = ["one text", "another one, longer", "third"]
SCORES = [0.25, 0.75, 0.5]


@pytest.fixture(autouse=True)
def planted(monkeypatch):
    monkeypatch.setenv("KEY", "sk-planted-4711")


def rows(score="relevance_score", texts=3, **more):
    return [{"index": at, score: SCORES[at], **more} for at in (1, 2, 0) if at < texts]


def rank(service, settings, texts=TEXTS, **task_settings):
    body = {"service": service, "service_settings": settings, "task_settings": task_settings}
    model = usable_rerank_model(parse_endpoint("ranks", body, "rerank"), {}, 20)
    loaded = model.load()
    try:
        return loaded.rerank("which one?", texts).scores.tolist()
    finally:
        loaded.close()


DOCUMENTS = {"model": "m", "query": "which one?", "documents": TEXTS}
PASSAGES = [{"text": text} for text in TEXTS]


@pytest.mark.parametrize(
    ("service", "settings", "task", "answer", "sent"),
    [
        ("cohere", {}, {"top_n": 1}, {"results": rows()}, DOCUMENTS),
        ("jinaai", {}, {}, {"results": rows(document={"text": "x"})}, DOCUMENTS),
        ("contextualai", {}, {"instruction": "i"}, {"results": rows()}, {**DOCUMENTS, "instruction": "i"}),
        ("openshift_ai", {}, {"return_documents": True}, {"results": rows()}, DOCUMENTS),
        ("voyageai", {}, {"truncation": False}, {"data": rows()}, {**DOCUMENTS, "truncation": False}),
        (
            "nvidia",
            {},
            {},
            {"rankings": rows("logit")},
            {"model": "m", "query": {"text": "which one?"}, "passages": PASSAGES},
        ),
    ],
)
def test_services_with_a_key_and_a_url(service, settings, task, answer, sent):
    with scripted_service({"body": json.dumps(answer)}) as server:
        url = f"{server.url}/rank"
        assert (
            rank(service, {"api_key": "env:KEY", "model_id": "m", "url": url, **settings}, **task) == SCORES
        )
        (request,) = server.requests
    assert request["path"] == "/rank"
    assert request["body"] == sent
    assert request["headers"]["Authorization"] == "Bearer sk-planted-4711"


def test_hugging_face_answers_a_bare_list():
    with scripted_service({"body": json.dumps(rows("score"))}) as server:
        assert rank("hugging_face", {"api_key": "env:KEY", "url": f"{server.url}/rerank"}) == SCORES
        assert server.requests[0]["body"] == {"query": "which one?", "texts": TEXTS}


def test_azureaistudio():
    with scripted_service({"body": json.dumps({"results": rows()})}) as server:
        settings = {
            "target": server.url,
            "provider": "cohere",
            "endpoint_type": "token",
            "api_key": "env:KEY",
        }
        assert rank("azureaistudio", settings) == SCORES
        (request,) = server.requests
    assert request["path"] == "/v1/rerank"
    assert request["headers"]["Authorization"] == "sk-planted-4711"


def test_alibabacloud():
    with scripted_service({"body": json.dumps({"result": {"scores": rows("score")}})}) as server:
        host = server.url.removeprefix("http://")
        settings = {"host": host, "http_schema": "http", "service_id": "s", "workspace": "w"}
        assert rank("alibabacloud-ai-search", {"api_key": "env:KEY", **settings}) == SCORES
        (request,) = server.requests
    assert request["path"] == "/v3/openapi/workspaces/w/ranker/s"
    assert request["body"] == {"query": "which one?", "docs": TEXTS}


def test_watsonxai(monkeypatch):
    answer = {"results": rows("score")}
    with scripted_service({}, {"body": json.dumps(answer)}) as server:
        monkeypatch.setattr(watsonxai, "TOKEN_URL", f"{server.url}/token")
        settings = {"api_version": "v", "project_id": "p", "url": server.url, "model_id": "m"}
        assert rank("watsonxai", {"api_key": "env:KEY", **settings}, truncate_input_tokens=9) == SCORES
        _, request = server.requests
    assert request["path"] == "/ml/v1/text/rerank?version=v"
    assert request["body"] == {
        "model_id": "m",
        "project_id": "p",
        "query": "which one?",
        "inputs": PASSAGES,
        "parameters": {"truncate_input_tokens": 9},
    }
    assert request["headers"]["Authorization"] == "Bearer token-from-server"


def test_googlevertexai(monkeypatch):
    records = [{"id": str(row["index"]), "score": row["score"]} for row in rows("score")]
    monkeypatch.setattr(google, "_service_account_token", lambda account, send: ("a-token", 3600.0))
    with scripted_service({"body": json.dumps({"records": records})}) as server:
        monkeypatch.setattr(google, "RANKING_URL", server.url)
        settings = {"service_account_json": "env:KEY", "project_id": "my-p", "model_id": "m"}
        assert rank("googlevertexai", settings) == SCORES
        (request,) = server.requests
    assert request["path"] == (
        "/v1/projects/my-p/locations/global/rankingConfigs/default_ranking_config:rank"
    )
    assert request["body"]["records"] == [{"id": str(at), "content": t} for at, t in enumerate(TEXTS)]
    assert request["headers"]["Authorization"] == "Bearer a-token"


def test_amazon_sagemaker(monkeypatch):
    monkeypatch.setenv("AWS_SECRET", "aws-secret-4711")
    with scripted_service({"body": json.dumps({"rerank": rows()})}) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        keys = {"access_key": "env:KEY", "secret_key": "env:AWS_SECRET", "region": "eu-west-1"}
        assert rank("amazon_sagemaker", {**keys, "endpoint_name": "e", "api": "elastic"}) == SCORES
        (request,) = server.requests
    assert request["path"] == "/endpoints/e/invocations"
    assert request["body"] == {"query": "which one?", "input": TEXTS}
    assert "AWS4-HMAC-SHA256" in request["headers"]["Authorization"]


@pytest.mark.parametrize("service", ["elastic", "elasticsearch"])
def test_an_endpoint_of_a_remote_cluster(service):
    with scripted_service({"body": json.dumps({"rerank": rows(text="x")})}) as server:
        settings = {"url": server.url, "api_key": "env:KEY", "inference_id": "theirs", "model_id": "m"}
        if service == "elasticsearch":
            settings |= {"num_threads": 1, "num_allocations": 1}
        assert rank(service, settings) == SCORES
        (request,) = server.requests
    assert request["path"] == "/_inference/rerank/theirs"
    assert request["headers"]["Authorization"] == "ApiKey sk-planted-4711"


@pytest.mark.parametrize("indexed", [True, False])
def test_custom(indexed):
    parser = {"relevance_score": "$.found[*].score"}
    order = (1, 2, 0) if indexed else (0, 1, 2)
    found = [{"at": at, "score": SCORES[at]} for at in order]
    if indexed:
        parser["reranked_index"] = "$.found[*].at"
    with scripted_service({"body": json.dumps({"found": found})}) as server:
        settings = {
            "url": f"{server.url}/r",
            "headers": {"Authorization": "Bearer ${token}"},
            "secret_parameters": {"token": "env:KEY"},
            "request": '{"q": ${query}, "d": ${input}}',
            "response": {"json_parser": parser},
        }
        assert rank("custom", settings, ["${token}", *TEXTS[1:]]) == SCORES
        (request,) = server.requests
    assert request["body"] == {"q": "which one?", "d": ["${token}", *TEXTS[1:]]}
    assert request["headers"]["Authorization"] == "Bearer sk-planted-4711"


def test_many_texts_are_several_requests():
    answers = [{"body": json.dumps({"rows": 0, "results": rows(texts=n)})} for n in (3, 3, 1)]
    with scripted_service(*answers) as server:
        parser = {"relevance_score": "$.results[*].relevance_score", "reranked_index": "$.results[*].index"}
        settings = {
            "url": server.url,
            "request": '{"q": ${query}, "d": ${input}}',
            "response": {"json_parser": parser},
            "batch_size": 3,
        }
        texts = [f"text {at}" for at in range(7)]
        assert rank("custom", settings, texts) == [*SCORES, *SCORES, SCORES[0]]
        assert [request["body"]["d"] for request in server.requests] == [texts[:3], texts[3:6], texts[6:]]
        assert rank("custom", settings, []) == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"results": rows()[:2]}, "ranks 2 texts of 3"),
        ({"results": [rows()[0]] * 3}, "one of them twice"),
        ({"results": [{**row, "index": row["index"] + 1} for row in rows()]}, "ranks 3 texts of 3"),
        ({"results": [{"index": 0}]}, "KeyError: 'relevance_score'"),
        ({"results": [{**row, "relevance_score": "high"} for row in rows()]}, "has not the shape"),
        ({"error": {"message": "no credit"}}, "no credit"),
        ([], "has not the shape of a ranking"),
    ],
)
def test_answers_of_another_shape_are_errors(answer, message):
    with scripted_service({"body": json.dumps(answer)}) as server:
        with pytest.raises(InferenceError, match=message) as failure:
            rank("cohere", {"api_key": "env:KEY", "model_id": "m", "url": server.url})
        assert failure.value.status == 502
        assert "planted" not in failure.value.reason


def test_scores_must_be_finite():
    infinite = json.dumps({"results": rows()}).replace("0.75", "1e999")
    with scripted_service({"body": infinite}) as server, pytest.raises(InferenceError):
        rank("cohere", {"api_key": "env:KEY", "model_id": "m", "url": server.url})
    assert np.isfinite(SCORES).all()


def test_a_fingerprint_asks_nobody():
    settings = {"api_key": "env:KEY", "url": "http://127.0.0.1:9/none"}
    found = [
        open_rerank_model(
            parse_endpoint(
                "a", {"service": "cohere", "service_settings": {**settings, "model_id": name}}, "rerank"
            )
        ).fingerprint
        for name in ("m", "n", "m")
    ]
    assert found[0] == found[2] != found[1]
