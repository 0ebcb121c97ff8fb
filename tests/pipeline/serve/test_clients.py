"""The official clients of Elasticsearch (9 and 8) and OpenAI against the command, over a real socket."""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest
from support.paths import ROOT
from support.serving import Serving, serving

from models.endpoints.registry import Registry
from models.open_model import open_model

ELASTICSEARCH_8 = ROOT / "build" / "clients" / "elasticsearch-8"
KEY = "sk-planted-4711"

PLAY = """
import sys
import elasticsearch
from elasticsearch import ApiError, BadRequestError, ConflictError, Elasticsearch, NotFoundError

url, major = sys.argv[1:]
assert elasticsearch.__version__[0] == int(major), elasticsearch.__version__
client = Elasticsearch(url, api_key="sk-planted-4711", max_retries=0, request_timeout=60)
assert client.ping()
assert client.info()["tagline"] == "You Know, for Search"


def fails(kind, message, call, **arguments):
    try:
        call(**arguments)
    except ApiError as error:
        assert type(error) is kind, error
        assert message in str(error), error
    else:
        raise AssertionError(f"no error: {message}")


config = {"service": "hashing", "service_settings": {"dimensions": 16}}
put = client.inference.put(task_type="text_embedding", inference_id="mine", inference_config=config)
assert put["service_settings"] == {"dimensions": 16}, put
got = client.inference.get(inference_id="mine")["endpoints"]
assert got == client.inference.get(task_type="text_embedding", inference_id="mine")["endpoints"] == [put.body]
assert put.body in client.inference.get()["endpoints"]

dense = client.inference.inference(inference_id="mine", input=["one", "two"], input_type="search", timeout="5s")
assert [len(one["embedding"]) for one in dense["text_embedding"]] == [16, 16]
sparse = client.inference.inference(task_type="sparse_embedding", inference_id=".splade-tiny", input="one fox")
(one,) = sparse["sparse_embedding"]
assert one["is_truncated"] is False and one["embedding"]["fox"] > 1, one
assert client.inference.text_embedding(inference_id="mine", input="x")["text_embedding"]
assert client.inference.sparse_embedding(inference_id=".hashing-sparse", input="x")["sparse_embedding"]

remote = {"service": "openai", "service_settings": {"model_id": "m", "api_key": "sk-1"}}
client.inference.put(task_type="text_embedding", inference_id="remote", inference_config=remote)
changed = client.inference.update(
    inference_id="remote", inference_config={**remote, "service_settings": {"rate_limit": {"requests_per_minute": 7}}}
)
assert changed["service_settings"]["rate_limit"] == {"requests_per_minute": 7}, changed
assert "sk-1" not in str(changed)

fails(BadRequestError, "already exists", client.inference.put, inference_id="mine", inference_config=config)
unknown = {"service": "x"}
fails(BadRequestError, "Unknown service [x]", client.inference.put, inference_id="other", inference_config=unknown)
fails(BadRequestError, "cannot be an empty array", client.inference.inference, inference_id="mine", input=[])
fails(NotFoundError, "not found [none]", client.inference.get, inference_id="none")
fails(NotFoundError, "not found [none]", client.inference.inference, inference_id="none", input="x")
fails(ConflictError, "is referenced by pipelines: [", client.inference.delete, inference_id="used")
assert client.inference.delete(inference_id="used", dry_run=True)["acknowledged"] is False
assert client.inference.delete(inference_id="used", force=True)["acknowledged"] is True
assert client.inference.delete(inference_id="mine")["acknowledged"] is True
fails(NotFoundError, "not found [mine]", client.inference.get, inference_id="mine")
"""

CONFIG = """
source: {format: jsonl, path: corpus.jsonl}
mappings: {properties: {text: {type: semantic_text, inference_id: used}}}
endpoints: {path: eps}
table: {path: table}
failures: {path: failures}
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Serving]:
    (tmp_path / "run.yaml").write_text(CONFIG)
    Registry(tmp_path / "eps").put("used", {"service": "hashing", "service_settings": {}}, "text_embedding")
    with serving("run.yaml", "--api-key", "env:SERVE_KEY", folder=tmp_path, SERVE_KEY=KEY) as server:
        yield server


@pytest.mark.parametrize("major", [9, 8])
def test_the_official_client(server: Serving, major: int) -> None:
    environment = dict(os.environ)
    if major == 8:
        assert ELASTICSEARCH_8.is_dir(), "`make clients` fetches version 8 of the client"
        environment["PYTHONPATH"] = str(ELASTICSEARCH_8)
    played = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PLAY, server.url, str(major)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert played.returncode == 0, played.stderr
    assert KEY not in "".join(server.lines)


def test_the_client_of_openai(server: Serving) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)
    texts = ["one text", "another"]
    expected = open_model(Registry(None).get(".minilm-l6-v2"), {}).load().embed(texts, "search")
    for encoding in ("float", "base64"):
        found = client.embeddings.create(model=".minilm-l6-v2", input=texts, encoding_format=encoding)
        vectors = [
            np.frombuffer(base64.b64decode(one.embedding), "<f4")
            if isinstance(one.embedding, str)
            else one.embedding
            for one in found.data
        ]
        np.testing.assert_array_equal(np.array(vectors, np.float32), expected.values)
        assert found.usage.prompt_tokens == int(expected.tokens.sum())
    found = client.embeddings.create(model=".hashing-dense", input="x", dimensions=16)
    assert len(found.data[0].embedding) == 16
    assert ".minilm-l6-v2" in [model.id for model in client.models.list()]
    with pytest.raises(openai.NotFoundError, match="not found"):
        client.embeddings.create(model="none", input="x")
    with pytest.raises(openai.BadRequestError, match="token ids"):
        client.embeddings.create(model=".minilm-l6-v2", input=[[1, 2]])
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0).models.list()
