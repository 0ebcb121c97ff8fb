"""Definitions of endpoints that rerank."""

import pytest

from models.endpoints.endpoint import parse_endpoint
from models.endpoints.registry import Registry
from models.endpoints.rerank_services import RERANK_SERVICES
from models.endpoints.services import SERVICES
from models.errors import InferenceError, ValidationError
from models.open_model import open_model, open_rerank_model

KEYED = {"api_key": "env:KEY", "model_id": "m"}
AWS = {"access_key": "env:A", "secret_key": "env:B", "region": "eu-west-1"}
CUSTOM = {
    "url": "https://rank.example/r",
    "request": '{"q": ${query}, "d": ${input}}',
    "response": {"json_parser": {"relevance_score": "$.s[*].v", "reranked_index": "$.s[*].i"}},
}
BODIES = {
    "elasticsearch": {"model_id": "mine", "num_threads": 1, "num_allocations": 1},
    "elastic": {"model_id": "elastic-rerank", "url": "https://cluster.example", "api_key": "env:KEY"},
    "alibabacloud-ai-search": {
        "api_key": "env:KEY",
        "host": "h.example",
        "service_id": "ops-bge-reranker-larger",
        "workspace": "default",
    },
    "amazon_sagemaker": {**AWS, "endpoint_name": "e", "api": "elastic"},
    "azureaistudio": {
        "api_key": "env:KEY",
        "target": "https://t.example",
        "provider": "cohere",
        "endpoint_type": "token",
    },
    "cohere": KEYED,
    "contextualai": KEYED,
    "custom": CUSTOM,
    "googlevertexai": {"service_account_json": "env:KEY", "project_id": "p"},
    "hugging_face": {"api_key": "env:KEY", "url": "https://tei.example/rerank"},
    "jinaai": KEYED,
    "nvidia": KEYED,
    "openshift_ai": {"api_key": "env:KEY", "url": "https://o.example/v1/rerank"},
    "voyageai": KEYED,
    "watsonxai": {**KEYED, "api_version": "2024-05-02", "project_id": "p", "url": "https://w.example"},
}


def test_the_bodies_cover_every_service_that_reranks():
    assert BODIES.keys() == RERANK_SERVICES.keys()
    assert RERANK_SERVICES.keys() <= SERVICES.keys()


@pytest.mark.parametrize("service", sorted(BODIES))
def test_a_definition_is_stored_and_read_again(service, tmp_path):
    body = {"service": service, "service_settings": BODIES[service]}
    endpoint = Registry(tmp_path).put("ranks", body, "rerank")
    assert Registry(tmp_path).get("ranks") == endpoint
    assert Registry(tmp_path).list("rerank")[-1].inference_id == "ranks"
    shown = endpoint.to_json()
    assert shown["task_type"] == "rerank"
    assert "chunking_settings" not in shown
    assert not endpoint.embeds
    assert open_rerank_model(endpoint).describe()["model_id"]
    with pytest.raises(InferenceError, match=r"of task type \[rerank\]: it makes no embeddings"):
        open_model(endpoint)


def test_an_endpoint_that_embeds_does_not_rerank():
    with pytest.raises(InferenceError, match=r"of task type \[text_embedding\]: it does not rerank"):
        open_rerank_model(Registry(None).get(".minilm-l6-v2"))


@pytest.mark.parametrize(
    ("service", "changes", "message"),
    [
        ("cohere", {"dimensions": 3}, r"settings \[service_settings.dimensions\] unknown to the \[cohere\]"),
        ("jinaai", {"api_key": None}, "does not contain the required setting"),
        ("elasticsearch", {"model_id": ".elser_model_2"}, "makes sparse embeddings and does not rerank"),
        ("custom", {"request": '{"d": ${input}}'}, r"must hold the template \$\{query\}"),
        (
            "custom",
            {"response": {"json_parser": {"text_embeddings": "$.x"}}},
            r"does not contain the required setting \[relevance_score\]",
        ),
    ],
)
def test_wrong_settings_are_named(service, changes, message):
    settings = {key: value for key, value in {**BODIES[service], **changes}.items() if value is not None}
    with pytest.raises(InferenceError, match=message):
        parse_endpoint("ranks", {"service": service, "service_settings": settings}, "rerank")


def test_nothing_is_chunked_for_a_ranking():
    body = {"service": "cohere", "service_settings": KEYED, "chunking_settings": {"strategy": "none"}}
    with pytest.raises(InferenceError, match=r"\[chunking_settings\] unknown to the \[cohere\] service"):
        parse_endpoint("ranks", body, "rerank")


def test_services_that_do_not_rerank_say_so():
    body = {"service": "openai", "service_settings": KEYED}
    with pytest.raises(InferenceError, match=r"\[openai\] service does not support task type \[rerank\]"):
        parse_endpoint("ranks", body, "rerank")


def test_without_a_task_a_service_embeds_and_one_that_only_ranks_ranks():
    assert parse_endpoint("a", {"service": "cohere", "service_settings": KEYED}).task_type == "text_embedding"
    assert parse_endpoint("a", {"service": "contextualai", "service_settings": KEYED}).task_type == "rerank"


def test_elastics_own_model_is_for_its_own_task():
    settings = {"model_id": ".rerank-v1", "num_threads": 1, "num_allocations": 1}
    body = {"service": "elasticsearch", "service_settings": settings}
    assert parse_endpoint("a", body, "rerank").to_json()["service_settings"]["model_id"] == ".rerank-v1"
    with pytest.raises(ValidationError, match=r"its task type is \[rerank\]"):
        parse_endpoint("a", body, "text_embedding")
    assert Registry(None).get(".rerank-v1-elasticsearch").task_type == "rerank"
