"""OpenAI's protocol: numbers and base64, usage, models, errors as its client expects them; sparse beside it."""

import base64

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.endpoints.registry import Registry
from models.open_model import open_model
from pipeline.serve.app import create_app
from pipeline.serve.corpus import Corpus

TEXTS = ["one text", "another, longer text"]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("openai") / "eps")
    with TestClient(create_app(Corpus(endpoints=path)), base_url="http://127.0.0.1") as client:
        yield client


def embed(inference_id, texts, input_type="search"):
    return open_model(Registry(None).get(inference_id), {}).load().embed(texts, input_type)


def test_numbers_and_base64_are_the_model_s(client):
    expected = embed(".minilm-l6-v2", TEXTS)
    body = {"model": ".minilm-l6-v2", "input": TEXTS}
    found = client.post("/v1/embeddings", json=body).json()
    assert [one["index"] for one in found["data"]] == [0, 1]
    np.testing.assert_array_equal(
        np.array([one["embedding"] for one in found["data"]], np.float32), expected.values
    )
    tokens = int(expected.tokens.sum())
    assert found["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    packed = client.post("/v1/embeddings", json={**body, "encoding_format": "base64"}).json()
    decoded = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in packed["data"]]
    np.testing.assert_array_equal(np.stack(decoded), expected.values)


def test_dimensions(client):
    body = {"model": ".hashing-dense", "input": "x", "dimensions": 16}
    (one,) = client.post("/v1/embeddings", json=body).json()["data"]
    assert len(one["embedding"]) == 16
    answer = client.post("/v1/embeddings", json={**body, "model": ".minilm-l6-v2", "dimensions": 1000})
    assert answer.status_code == 400
    assert "dimensions" in answer.json()["error"]["message"]


def test_sparse_embeddings_as_lists(client):
    expected = embed(".splade-tiny", TEXTS)
    found = client.post("/v1/sparse_embeddings", json={"model": ".splade-tiny", "input": TEXTS}).json()
    for at, one in enumerate(found["data"]):
        weights = {pair["token"]: np.float32(pair["weight"]) for pair in one["embedding"]}
        assert weights == {token: np.float32(weight) for token, weight in expected.row(at).items()}


def test_models(client):
    found = client.get("/v1/models").json()
    assert found["object"] == "list"
    one = {"id": ".minilm-l6-v2", "object": "model", "created": 0, "owned_by": "elasticsearch"}
    assert one in found["data"]
    assert client.get("/v1/models/.minilm-l6-v2").json() == one
    assert client.get("/v1/models/none").json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "must be a JSON object"),
        ({"input": "x"}, "[model] must be the id"),
        ({"input": [1, 2], "model": ".minilm-l6-v2"}, "holds token ids"),
        ({"input": [], "model": ".minilm-l6-v2"}, "must not be empty"),
        ({"input": "", "model": ".minilm-l6-v2"}, "must not be empty"),
        ({"input": {"a": 1}, "model": ".minilm-l6-v2"}, "string or an array of strings"),
        ({"input": "x", "model": ".minilm-l6-v2", "encoding_format": "hex"}, "float or base64"),
        ({"input": "x", "model": ".minilm-l6-v2", "dimensions": "many"}, "dimensions"),
        ({"input": "x", "model": ".minilm-l6-v2", "colour": 1}, "unknown field [colour]"),
        ({"input": "x", "model": ".splade-tiny"}, "/v1/sparse_embeddings"),
        ({"input": "x", "model": ".minilm-l6-v2", "input_type": "poem"}, "Invalid value [poem]"),
    ],
)
def test_wrong_requests(client, body, message):
    answer = client.post("/v1/embeddings", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"
