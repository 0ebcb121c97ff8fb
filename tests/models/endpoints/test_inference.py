"""Inference requests and answers: what a body may say, and the keys of a response."""

import json

import numpy as np
import pytest

from models.embeddings import DenseEmbeddings
from models.endpoints.endpoint import parse_endpoint
from models.endpoints.inference import parse_request, response, to_bytes
from models.errors import InferenceError


def test_a_body_holds_input_type_and_task_settings():
    body = {"service": "voyageai", "service_settings": {"api_key": "env:K", "model_id": "m"}}
    endpoint = parse_endpoint("mine", {**body, "task_settings": {"input_type": "search"}}, "text_embedding")
    assert parse_request(endpoint, {"input": "a"}).input_type == "search"
    assert parse_request(endpoint, {"input": "a", "input_type": "INGEST"}).input_type == "ingest"
    asked = parse_request(endpoint, {"input": ["a"], "task_settings": {"truncation": False}})
    assert asked.endpoint.task_settings == {"input_type": "search", "truncation": False}
    with pytest.raises(InferenceError, match=r"task_settings\.cut"):
        parse_request(endpoint, {"input": "a", "task_settings": {"cut": 1}})


@pytest.mark.parametrize(
    ("task", "element", "key"),
    [
        ("text_embedding", "float", "text_embedding"),
        ("text_embedding", "byte", "text_embedding_bytes"),
        ("text_embedding", "bit", "text_embedding_bits"),
        ("embedding", "float", "embeddings"),
        ("embedding", "byte", "embeddings_bytes"),
        ("embedding", "bit", "embeddings_bits"),
    ],
)
def test_keys_tell_task_and_element_type(task, element, key):
    values = np.array([[0.1, -1.0]], np.float32) if element == "float" else np.array([[12, -128]], np.int8)
    embeddings = DenseEmbeddings(values, np.zeros(1, np.bool_), np.zeros(1, np.int32))
    written = to_bytes(response(task, embeddings, element))
    expected = [0.1, -1.0] if element == "float" else [12, -128]
    assert json.loads(written) == {key: [{"embedding": expected}]}
