"""Definitions of endpoints: what is accepted, what is refused, and in which words."""

import json
import pickle

import pytest
from support.paths import TEST_DATA

from models.chunking_settings import DEFAULT
from models.endpoints.endpoint import check_inference_id, parse_endpoint
from models.endpoints.registry import Registry
from models.endpoints.services import SERVICES
from models.errors import InferenceError, ValidationError

BODIES = json.loads((TEST_DATA / "endpoint_bodies.json").read_text("utf-8"))
LOCAL = {"model_id": ".elser_model_2", "num_allocations": 1, "num_threads": 1}


def parse(settings, service="elasticsearch", task="sparse_embedding", **rest):
    return parse_endpoint("mine", {"service": service, "service_settings": settings, **rest}, task)


def problems(settings, **rest):
    with pytest.raises(ValidationError) as failure:
        parse(settings, **rest)
    assert failure.value.status == 400
    return failure.value.problems


@pytest.mark.parametrize(
    ("task", "body"), BODIES, ids=[f"{b['service']}-{n}" for n, (_, b) in enumerate(BODIES)]
)
def test_bodies_of_every_embedding_service_are_accepted(task, body, tmp_path):
    endpoint = Registry(tmp_path).put("mine", body, task)
    assert Registry(tmp_path).get("mine") == endpoint
    shown = endpoint.to_json()
    assert shown["service"] == body["service"]
    assert shown["task_type"] == task
    assert shown["chunking_settings"] == {
        "strategy": "sentence",
        "max_chunk_size": 250,
        "sentence_overlap": 1,
    }
    assert pickle.loads(pickle.dumps(endpoint)) == endpoint


def test_the_bodies_cover_every_embedding_service():
    embedding = {name for name, service in SERVICES.items() if service.tasks} - {"hashing"}
    assert {body["service"] for _, body in BODIES} == embedding


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "is missing a service"),
        ({"service": "x"}, "Unknown service [x]"),
        (
            {"service": "anthropic"},
            "[anthropic] service has no embedding task and does not rerank (it has",
        ),
        ({"service": "deepseek"}, "has no embedding task"),
        ({"service": "groq"}, "has no embedding task"),
        ({"service": "ai21"}, "has no embedding task"),
        ({"service": "contextualai"}, "[contextualai] service does not support task type [text_embedding]"),
        ([], "must be a JSON object"),
    ],
)
def test_a_service_is_needed_and_must_embed(body, message):
    with pytest.raises(InferenceError) as failure:
        parse_endpoint("mine", body, "text_embedding")
    assert message in failure.value.reason
    assert failure.value.status == 400


@pytest.mark.parametrize("task", ["completion", "chat_completion"])
def test_other_tasks_are_refused_by_name(task):
    body = {"service": "cohere", "service_settings": {"api_key": "env:K", "model_id": "m"}}
    with pytest.raises(InferenceError, match=rf"\[{task}\] is neither an embedding task nor rerank"):
        parse_endpoint("mine", body, task)


def test_task_types_are_checked():
    body = {"service": "openai", "service_settings": {"api_key": "env:K", "model_id": "m"}}
    with pytest.raises(
        InferenceError, match=r"\[openai\] service does not support task type \[sparse_embedding\]"
    ):
        parse_endpoint("mine", body, "sparse_embedding")
    with pytest.raises(InferenceError, match=r"Unknown task_type \[dense\]"):
        parse_endpoint("mine", body, "dense")
    with pytest.raises(InferenceError, match=r"supports several task types \[text_embedding, embedding\]"):
        parse_endpoint("mine", body)
    with pytest.raises(InferenceError, match="Cannot resolve conflicting task_type"):
        parse_endpoint("mine", {**body, "task_type": "embedding"}, "text_embedding")
    assert parse_endpoint("mine", {**body, "task_type": "embedding"}).task_type == "embedding"
    assert (
        parse_endpoint("mine", {"service": "elser", "service_settings": LOCAL}).task_type
        == "sparse_embedding"
    )


@pytest.mark.parametrize("good", ["a", "my-elser", "a_b.c-1", "0x"])
def test_good_ids(good):
    check_inference_id(good)


@pytest.mark.parametrize("bad", ["", "A", "-a", "a-", "_a", "a b", "a/b", "_all", "é", ".a", "a.", "a\n"])
def test_bad_ids(bad):
    with pytest.raises(InferenceError) as failure:
        check_inference_id(bad)
    assert failure.value.status == 400
    assert failure.value.reason == (
        f"Invalid inference_id; '{bad}' can contain lowercase alphanumeric (a-z and 0-9), hyphens or"
        " underscores;"
        " must start and end with alphanumeric"
    )


def test_num_threads_is_required():
    found = problems({"model_id": ".elser_model_2", "num_allocations": 1})
    assert found == ["[service_settings] does not contain the required setting [num_threads]"]


def test_allocations_are_required():
    assert problems({"model_id": ".elser_model_2", "num_threads": 1}) == [
        "[service_settings] does not contain one of the required settings [num_allocations,"
        " adaptive_allocations]"
    ]


def test_a_model_is_required():
    with pytest.raises(InferenceError) as failure:
        parse({"num_allocations": 1, "num_threads": 1})
    assert failure.value.reason == "Error parsing service settings, model_id must be provided"
    assert failure.value.type == "illegal_argument_exception"


@pytest.mark.parametrize("setting", ["model_id", "deployment_id"])
def test_a_model_that_ranks_is_refused_by_name(setting):
    settings = {setting: ".rerank-v1", "num_allocations": 1, "num_threads": 1}
    assert problems(settings, task="text_embedding") == [
        "[.rerank-v1] is a rerank model and makes no embeddings; its task type is [rerank]"
    ]


@pytest.mark.parametrize(("threads", "good"), [(1, 1), (2, 1), (32, 1), (3, 0), (64, 0), (33, 0)])
def test_threads_are_a_power_of_two_up_to_32(threads, good):
    if good:
        assert parse({**LOCAL, "num_threads": threads}).service_settings["num_threads"] == threads
        return
    assert problems({**LOCAL, "num_threads": threads}) == [
        "[threads_per_allocation] must be a power of 2 less than or equal to 32"
    ]


@pytest.mark.parametrize("value", [0, -1])
def test_numbers_are_positive(value):
    assert problems({**LOCAL, "num_allocations": value}) == [
        f"[service_settings] Invalid value [{value}]. [num_allocations] must be a positive integer"
    ]


@pytest.mark.parametrize(
    ("adaptive", "message"),
    [
        (
            {"enabled": True, "min_number_of_allocations": 5, "max_number_of_allocations": 4},
            "[min_number_of_allocations] must not be larger than [max_number_of_allocations]",
        ),
        ({"enabled": True, "min_number_of_allocations": -1}, "must be a non-negative integer"),
        ({"enabled": True, "max_number_of_allocations": 0}, "must be a positive integer"),
        ({"enabled": "yes"}, "[enabled] must be true or false"),
        ({"enabled": True, "max": 1}, "unknown field [max]"),
        ({"min_number_of_allocations": "1"}, "cannot be converted to a [Integer]"),
        (3, "The value [3] cannot be converted to a [Map]"),
    ],
)
def test_adaptive_allocations_are_checked(adaptive, message):
    settings = {"model_id": ".elser_model_2", "num_threads": 1, "adaptive_allocations": adaptive}
    assert any(message in problem for problem in problems(settings))


def test_adaptive_allocations_may_scale_to_zero():
    adaptive = {"enabled": True, "min_number_of_allocations": 0, "max_number_of_allocations": 32}
    settings = {"model_id": ".elser_model_2", "num_threads": 1, "adaptive_allocations": adaptive}
    assert parse(settings).service_settings["adaptive_allocations"] == adaptive


def test_a_deployment_tells_its_model():
    settings = parse({"deployment_id": ".elser_model_2"}).service_settings
    assert settings == {
        "deployment_id": ".elser_model_2",
        "model_id": ".elser_model_2",
        "num_threads": 1,
        "num_allocations": 1,
    }


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"service_settings": {**LOCAL, "unknown_key": 1}}, "service_settings.unknown_key"),
        ({"service_settings": LOCAL, "task_settings": {"x": "sk-typo"}}, "task_settings.x"),
        ({"service_settings": LOCAL, "chunkng": {}}, "chunkng"),
    ],
)
def test_unknown_keys_are_refused_and_named_without_their_values(body, named):
    with pytest.raises(InferenceError) as failure:
        parse_endpoint("mine", {"service": "elasticsearch", **body}, "sparse_embedding")
    expected = f"Configuration contains settings [{named}] unknown to the [elasticsearch] service"
    assert failure.value.reason == expected
    assert failure.value.status == 400


def test_unknown_keys_stand_beside_the_other_problems():
    found = problems({"apikey": "sk-typo"}, service="openai", task="text_embedding")
    assert found == [
        "[service_settings] does not contain the required setting [model_id]",
        "[service_settings] does not contain one of the required settings [api_key, client_secret]",
        "Configuration contains settings [service_settings.apikey] unknown to the [openai] service",
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"dimensions": "x"},
            "field [dimensions] is not of the expected type. The value [x] cannot be converted to a"
            " [Integer]",
        ),
        ({"dimensions": True}, "The value [true] cannot be converted to a [Integer]"),
        (
            {"model_id": ""},
            "[service_settings] Invalid value empty string. [model_id] must be a non-empty string",
        ),
        (
            {"similarity": "best"},
            "Invalid value [best] received. [similarity] must be one of [cosine, dot_product, l2_norm]",
        ),
        ({"rate_limit": {"requests_per_minute": 0}}, "[requests_per_minute] must be a positive integer"),
        ({"rate_limit": {"rpm": 1}}, "[service_settings.rate_limit] contains unknown settings [rpm]"),
        ({"rate_limit": 3}, "field [rate_limit] is not of the expected type"),
        ({"url": "file:///etc/passwd"}, "only http and https are called"),
        ({"url": "https://user:sk-planted@host/"}, "it holds credentials"),
        (
            {"api_key": 7},
            "field [api_key] is not of the expected type. The value […] cannot be converted to a [String]",
        ),
    ],
)
def test_settings_are_checked(settings, message):
    known = {"api_key": "env:K", "model_id": "m"}
    found = problems({**known, **settings}, service="openai", task="text_embedding")
    assert any(message in problem for problem in found), found
    assert "sk-planted" not in str(found)


def test_enumerations_are_read_in_any_case():
    settings = {"api_key": "env:K", "model_id": "m", "similarity": "COSINE"}
    assert parse(settings, service="openai", task="text_embedding").service_settings["similarity"] == "cosine"


def test_defaults_are_filled_in():
    settings = parse(
        {"api_key": "env:K", "model_id": "m"}, service="cohere", task="text_embedding"
    ).service_settings
    assert settings["rate_limit"] == {"requests_per_minute": 10_000}
    assert settings["embedding_type"] == "float"


def test_chunking_settings_are_checked():
    with pytest.raises(ValidationError, match="max_chunk_size"):
        parse(LOCAL, chunking_settings={"strategy": "sentence", "max_chunk_size": 5})
    assert parse(LOCAL, chunking_settings=None).chunking_settings == DEFAULT
    assert parse(LOCAL, chunking_settings={"strategy": "none"}).chunking_settings.strategy == "none"


def test_elser_refuses_large_chunks():
    sentences = {"strategy": "sentence", "max_chunk_size": 301}
    expected = "ELSER based models do not support chunk sizes larger than 300. Requested chunk size: 301"
    with pytest.raises(InferenceError) as failure:
        parse(LOCAL, chunking_settings=sentences)
    assert failure.value.reason == expected
    assert parse(
        {**LOCAL, "model_id": ".multilingual-e5-small"}, task="text_embedding", chunking_settings=sentences
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"request": "{}"}, "must hold the template ${input}"),
        ({"request": {"contents": "${input}"}}, "[request] must be the body's template"),
        ({"response": {}}, "does not contain the required setting [json_parser]"),
        ({"response": {"json_parser": {}}}, "does not contain the required setting [text_embeddings]"),
        (
            {"response": {"json_parser": {"text_embeddings": "$.a", "x": "$"}}},
            "contains settings [x] unknown",
        ),
        ({"response": {"json_parser": {"text_embeddings": "a.b"}}}, "must start with a dollar sign"),
        ({"response": {"json_parser": {"text_embeddings": "$..a"}}}, "cannot be read from [..a]"),
        ({"response": {"json_parser": {"text_embeddings": "$.a[?(@.x)]"}}}, "cannot be read from [[?(@.x)]]"),
        (
            {"response": {"json_parser": {"text_embeddings": "$", "embedding_type": "int4"}}},
            "[embedding_type] must be",
        ),
        ({"input_type": {"translation": {"read": "x"}}}, "Invalid value [read] received"),
        ({"query_parameters": [["a"]]}, "field [query_parameters] is not of the expected type"),
        ({"url": None}, "does not contain the required setting [url]"),
    ],
)
def test_custom_definitions_are_checked(change, message):
    settings = {
        "secret_parameters": {"api_key": "env:K"},
        "url": "https://example.org",
        "request": '{"input": ${input}}',
        "response": {"json_parser": {"text_embeddings": "$.data[*].embedding[*]"}},
    }
    found = problems({**settings, **change}, service="custom", task="text_embedding")
    assert any(message in problem for problem in found), found
