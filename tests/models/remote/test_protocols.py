"""Each service's requests and answers, over loopback."""

import dataclasses
import json

import numpy as np
import pytest
from support.scripted_service import openai_service, scripted_service, sparse, vector

from models.endpoints.endpoint import parse_endpoint
from models.endpoints.registry import Registry
from models.errors import InferenceError
from models.open_model import open_model
from models.remote.http import Policy
from models.remote.model import remote_model
from models.remote.protocols import google, openai, watsonxai

QUICK = Policy(timeout=60.0, attempts=2, first_wait=0.01)
TEXTS = ["one text", "another one, longer"]


@pytest.fixture(autouse=True)
def planted(monkeypatch):
    monkeypatch.setenv("KEY", "sk-planted-4711")
    monkeypatch.setenv("AWS_SECRET", "aws-secret-4711")


def endpoint(service, settings, task="text_embedding", **task_settings):
    body = {"service": service, "service_settings": settings, "task_settings": task_settings}
    return parse_endpoint("remote", body, task)


def embed(definition, texts=TEXTS, input_type="ingest"):
    model = remote_model(definition, QUICK)
    assert model.problems() == []
    embedder = model.load()
    try:
        return embedder.embed(texts, input_type)
    finally:
        embedder.close()


def check(definition, service, input_type="ingest"):
    """Embed, compare with what the server gives, and return the first request."""
    found = embed(definition, TEXTS, input_type)
    assert found.values.tolist() == [vector(text) for text in TEXTS]
    return service.requests[0]


def test_openai(tmp_path):
    settings = {"api_key": "env:KEY", "model_id": "m", "dimensions": 3, "organization_id": "org"}
    with scripted_service() as service:
        definition = endpoint(
            "openai", {**settings, "url": f"{service.url}/v1"}, user="me", headers={"X-Team": "s"}
        )
        request = check(definition, service)
    assert request["body"] == {"input": TEXTS, "model": "m", "dimensions": 3, "user": "me"}
    assert request["headers"]["Openai-Organization"] == "org"
    assert request["headers"]["X-Team"] == "s"


def test_openai_with_client_credentials():
    settings = {"client_id": "c", "client_secret": "env:KEY", "scopes": ["a", "b"], "model_id": "m"}
    with scripted_service() as service:
        urls = {"url": f"{service.url}/v1", "token_url": f"{service.url}/token"}
        definition = endpoint("openai", {**settings, **urls})
        model = remote_model(definition, QUICK).load()
        for _ in range(3):
            model.embed(TEXTS, "ingest")
        token, *rest = service.requests
    assert token["path"] == "/token"
    assert token["body"]["form"] == (
        "grant_type=client_credentials&client_id=c&client_secret=sk-planted-4711&scope=a+b"
    )
    assert [request["headers"]["Authorization"] for request in rest] == ["Bearer token-from-server"] * 3


def test_a_token_endpoint_without_a_token_is_an_error():
    settings = {"client_id": "c", "client_secret": "env:KEY", "model_id": "m"}
    with scripted_service({"status": 200, "echo": True}) as service:
        urls = {"url": f"{service.url}/v1", "token_url": f"{service.url}/token"}
        with pytest.raises(InferenceError, match="without an access_token"):
            embed(endpoint("openai", {**settings, **urls}))


AZURE = {"resource_name": "res", "deployment_id": "dep/1", "api_version": "2024-02-01"}


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ({"api_key": "env:KEY"}, "Api-Key", "sk-planted-4711"),
        ({"entra_id": "env:KEY"}, "Authorization", "Bearer sk-planted-4711"),
    ],
)
def test_azureopenai(monkeypatch, auth, header, value):
    dialect = openai.DIALECTS["azureopenai"]
    assert dialect.url(AZURE) == "https://res.openai.azure.com/openai/deployments/dep%2F1/embeddings"
    with scripted_service() as service:
        local = dataclasses.replace(dialect, url=lambda settings: f"{service.url}/deployments/x/embeddings")
        monkeypatch.setitem(openai.DIALECTS, "azureopenai", local)
        request = check(endpoint("azureopenai", {**AZURE, **auth}), service)
    assert request["path"] == "/deployments/x/embeddings?api-version=2024-02-01"
    assert request["headers"][header] == value


def test_a_setting_cannot_smuggle_another_host_in():
    settings = {**AZURE, "api_key": "env:KEY", "resource_name": "evil.example/#"}
    with pytest.raises(InferenceError, match=r"\[resource_name\] becomes part of a host name"):
        embed(endpoint("azureopenai", settings))


@pytest.mark.parametrize(
    ("provider", "kind", "path", "header", "value"),
    [
        ("openai", "token", "/", "Api-Key", "sk-planted-4711"),
        ("cohere", "token", "/v1/embeddings", "Authorization", "sk-planted-4711"),
        ("mistral", "realtime", "/", "Authorization", "Bearer sk-planted-4711"),
    ],
)
def test_azureaistudio(provider, kind, path, header, value):
    with scripted_service() as service:
        settings = {"api_key": "env:KEY", "target": service.url, "provider": provider, "endpoint_type": kind}
        request = check(endpoint("azureaistudio", settings), service)
    assert request["path"] == path
    assert request["headers"][header] == value


@pytest.mark.parametrize(
    ("input_type", "sent"),
    [("ingest", "search_document"), ("search", "search_query"), ("clustering", "clustering")],
)
def test_cohere(input_type, sent):
    with scripted_service() as service:
        settings = {"api_key": "env:KEY", "model_id": "m", "url": service.url}
        request = check(endpoint("cohere", settings, truncate="END"), service, input_type)
    assert request["body"] == {
        "model": "m",
        "texts": TEXTS,
        "input_type": sent,
        "embedding_types": ["float"],
        "truncate": "END",
    }


@pytest.mark.parametrize(("kind", "sent", "element"), [("byte", "int8", "byte"), ("binary", "binary", "bit")])
def test_cohere_bytes_and_bits(kind, sent, element):
    with scripted_service() as service:
        settings = {"api_key": "env:KEY", "model_id": "m", "url": service.url, "embedding_type": kind}
        model = remote_model(endpoint("cohere", settings), QUICK)
        found = model.load().embed(["abc"], "ingest")
        assert service.requests[0]["body"]["embedding_types"] == [sent]
        settings = model.model_settings
    assert found.values.dtype == np.int8
    assert (settings["element_type"], settings["dimensions"]) == (element, 24 if element == "bit" else 3)


def test_bytes_must_be_bytes():
    body = json.dumps({"embeddings": {"int8": [[0.5]]}})
    with scripted_service({"body": body}) as service:
        settings = {"api_key": "env:KEY", "model_id": "m", "url": service.url, "embedding_type": "byte"}
        with pytest.raises(InferenceError, match="lists of bytes"):
            embed(endpoint("cohere", settings), ["a"])


@pytest.mark.parametrize(("path", "field"), [("", "inputs"), ("/v1/embeddings", "input")])
def test_hugging_face(path, field):
    with scripted_service() as service:
        definition = endpoint("hugging_face", {"api_key": "env:KEY", "url": f"{service.url}{path}"})
        assert check(definition, service)["body"] == {field: TEXTS}


@pytest.mark.parametrize(
    ("input_type", "task"),
    [
        ("ingest", "retrieval.passage"),
        ("search", "retrieval.query"),
        ("classification", "classification"),
        ("clustering", "separation"),
    ],
)
def test_jinaai(input_type, task):
    with scripted_service() as service:
        settings = {"api_key": "env:KEY", "model_id": "jina-embeddings-v3", "url": service.url}
        request = check(endpoint("jinaai", settings, late_chunking=True), service, input_type)
    assert request["body"] == {
        "input": TEXTS,
        "model": "jina-embeddings-v3",
        "task": task,
        "embedding_type": "float",
        "late_chunking": True,
    }


def test_jinaai_chunks_late_up_to_5500_words():
    with scripted_service() as service:
        settings = {"api_key": "env:KEY", "model_id": "jina-embeddings-v3", "url": service.url}
        embed(endpoint("jinaai", settings, late_chunking=True), ["word " * 5501])
        assert service.requests[0]["body"]["late_chunking"] is False


SIMPLE = [
    ("fireworksai", {"api_key": "env:KEY", "model_id": "m"}, {"model": "m"}),
    ("mistral", {"api_key": "env:KEY", "model": "m"}, {"model": "m", "encoding_format": "float"}),
    ("nvidia", {"api_key": "env:KEY", "model_id": "m"}, {"model": "m", "input_type": "passage"}),
    ("openshift_ai", {"api_key": "env:KEY"}, {}),
    ("llama", {"model_id": "m"}, {"model": "m"}),
    (
        "voyageai",
        {"api_key": "env:KEY", "model_id": "m", "dimensions": 3},
        {"model": "m", "input_type": "document", "output_dimension": 3, "output_dtype": "float"},
    ),
]


@pytest.mark.parametrize(("name", "settings", "sent"), SIMPLE, ids=[name for name, _, _ in SIMPLE])
def test_services_that_speak_openais_protocol(name, settings, sent):
    with scripted_service() as service:
        request = check(endpoint(name, {**settings, "url": f"{service.url}/x"}), service)
    assert request["body"] == {"input": TEXTS, **sent}
    expected = "Bearer sk-planted-4711" if "api_key" in settings else None
    assert request["headers"].get("Authorization") == expected


def test_llama_stacks_own_protocol():
    with scripted_service() as service:
        definition = endpoint("llama", {"model_id": "m", "url": f"{service.url}/v1/inference/embeddings"})
        assert check(definition, service)["body"] == {"model_id": "m", "contents": TEXTS}


def test_googleaistudio(monkeypatch):
    with scripted_service() as service:
        monkeypatch.setattr(google, "STUDIO_URL", f"{service.url}/v1beta/models")
        request = check(
            endpoint("googleaistudio", {"api_key": "env:KEY", "model_id": "m"}), service, "search"
        )
    assert request["path"] == "/v1beta/models/m:batchEmbedContents"
    assert request["headers"]["X-Goog-Api-Key"] == "sk-planted-4711"
    first = {"model": "models/m", "content": {"parts": [{"text": TEXTS[0]}]}, "taskType": "RETRIEVAL_QUERY"}
    assert request["body"]["requests"][0] == first


def test_googlevertexai(monkeypatch, tmp_path):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    settings = {
        "model_id": "m",
        "location": "europe-west1",
        "project_id": "p",
        "service_account_json": "file:account",
    }
    assert google.vertex_url(settings) == (
        "https://europe-west1-aiplatform.googleapis.com/v1/projects/p/locations/europe-west1/publishers/google/models"
        "/m:predict"
    )
    with scripted_service() as service:
        account = {"client_email": "me@p", "private_key": key.decode(), "token_uri": f"{service.url}/token"}
        (tmp_path / "account").write_text(json.dumps(account))
        monkeypatch.setattr(google, "vertex_url", lambda settings: f"{service.url}/m:predict")
        vertex = endpoint("googlevertexai", settings, auto_truncate=True)
        definition = dataclasses.replace(vertex, folder=str(tmp_path))
        assert embed(definition).values.tolist() == [vector(text) for text in TEXTS]
        token, request = service.requests
    assert token["body"]["form"].startswith("grant_type=urn%3Aietf")
    assert request["headers"]["Authorization"] == "Bearer token-from-server"
    assert request["body"]["instances"][0] == {"content": TEXTS[0], "task_type": "RETRIEVAL_DOCUMENT"}
    assert request["body"]["parameters"] == {"autoTruncate": True}


def test_a_service_account_that_is_none_shows_nothing_of_itself(monkeypatch):
    monkeypatch.setenv("KEY", '{"private_key": "sk-planted-4711"}')
    settings = {"model_id": "m", "location": "l", "project_id": "p", "service_account_json": "env:KEY"}
    with pytest.raises(InferenceError, match="is not the JSON of a service account") as failure:
        embed(endpoint("googlevertexai", settings))
    assert "planted" not in f"{failure.value.__context__}"


AWS = {"access_key": "env:KEY", "secret_key": "env:AWS_SECRET", "region": "us-east-1"}


def test_amazonbedrock_titan_takes_one_text_a_request(monkeypatch):
    with scripted_service() as service:
        monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", service.url)
        definition = endpoint("amazonbedrock", {**AWS, "provider": "amazontitan", "model": "amazon.titan:0"})
        assert embed(definition).values.tolist() == [vector(text) for text in TEXTS]
        requests = service.requests
    assert sorted(request["body"]["inputText"] for request in requests) == sorted(TEXTS)
    assert requests[0]["path"] == "/model/amazon.titan%3A0/invoke"
    authorization = requests[0]["headers"]["Authorization"]
    assert authorization.startswith("AWS4-HMAC-SHA256 Credential=sk-planted-4711/")
    assert "/us-east-1/bedrock/aws4_request" in authorization
    assert "aws-secret" not in json.dumps(requests)


def test_amazonbedrock_cohere(monkeypatch):
    with scripted_service() as service:
        monkeypatch.setenv("AWS_ENDPOINT_URL", service.url)
        request = check(
            endpoint("amazonbedrock", {**AWS, "provider": "cohere", "model": "cohere.embed"}), service
        )
    assert request["body"] == {"texts": TEXTS, "input_type": "search_document"}


def test_amazonbedrock_refuses_providers_without_embeddings():
    with pytest.raises(InferenceError, match=r"provider \[meta\] is not available"):
        embed(endpoint("amazonbedrock", {**AWS, "provider": "meta", "model": "m"}))


@pytest.mark.parametrize("api", ["openai", "elastic"])
def test_amazon_sagemaker(monkeypatch, api):
    settings = {**AWS, "api": api, "endpoint_name": "my-endpoint", "target_model": "t"}
    rows = [{"index": index, "embedding": vector(text)} for index, text in enumerate(TEXTS)]
    step = {"body": json.dumps({"data": rows})} if api == "openai" else {}
    with scripted_service(step) as service:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", service.url)
        request = check(endpoint("amazon_sagemaker", settings, session_id="s"), service)
    assert request["path"] == "/endpoints/my-endpoint/invocations"
    assert request["headers"]["X-Amzn-Sagemaker-Target-Model"] == "t"
    assert request["headers"]["X-Amzn-Sagemaker-Session-Id"] == "s"
    assert "x-amzn-sagemaker-target-model" in request["headers"]["Authorization"]


def test_watsonxai(monkeypatch):
    with scripted_service() as service:
        monkeypatch.setattr(watsonxai, "TOKEN_URL", f"{service.url}/identity/token")
        settings = {"api_key": "env:KEY", "api_version": "2024-03-14", "model_id": "m", "project_id": "p"}
        definition = endpoint("watsonxai", {**settings, "url": service.url, "max_input_tokens": 100})
        assert embed(definition).values.tolist() == [vector(text) for text in TEXTS]
        token, request = service.requests
    assert "apikey=sk-planted-4711" in token["body"]["form"]
    assert request["path"] == "/ml/v1/text/embeddings?version=2024-03-14"
    assert request["body"]["parameters"] == {"truncate_input_tokens": 100}


def alibaba(service, task, **task_settings):
    host = service.url.removeprefix("http://")
    settings = {
        "api_key": "env:KEY",
        "host": host,
        "service_id": "s",
        "workspace": "w",
        "http_schema": "http",
    }
    return endpoint("alibabacloud-ai-search", settings, task, **task_settings)


def test_alibabacloud():
    with scripted_service() as service:
        request = check(alibaba(service, "text_embedding"), service)
    assert request["path"] == "/v3/openapi/workspaces/w/text-embedding/s"
    assert request["body"] == {"input": TEXTS, "input_type": "document"}


def test_alibabacloud_sparse():
    with scripted_service() as service:
        found = embed(alibaba(service, "sparse_embedding", return_token=True), ["aa b ccc"])
        assert service.requests[0]["body"]["return_token"] is True
    assert found.row(0) == {"2": 3.0, "0": 2.0, "1": 1.0}


def test_an_alibabacloud_host_is_a_host():
    settings = {"api_key": "env:KEY", "host": "a.example/x?", "service_id": "s", "workspace": "w"}
    with pytest.raises(InferenceError, match="is not the name of a host"):
        embed(endpoint("alibabacloud-ai-search", settings))


def test_an_endpoint_of_a_remote_cluster():
    with scripted_service() as service:
        settings = {"url": service.url, "api_key": "env:KEY", "inference_id": "theirs"}
        definition = endpoint("elasticsearch", settings)
        assert type(open_model(definition)).__name__ == "RemoteModel"
        request = check(definition, service, "search")
        assert request["path"] == "/_inference/text_embedding/theirs"
        assert request["headers"]["Authorization"] == "ApiKey sk-planted-4711"
        assert request["body"] == {"input": TEXTS, "input_type": "search"}


def test_sparse_embeddings_of_a_remote_cluster():
    with scripted_service() as service:
        settings = {"url": service.url, "model_id": "elser_model_2"}
        found = embed(endpoint("elastic", settings, "sparse_embedding"), ["a ccc bb", "ccc", "bb dddd"])
        assert "input_type" not in service.requests[0]["body"]
    assert [found.row(row) for row in range(3)] == [sparse("a ccc bb"), sparse("ccc"), sparse("bb dddd")]
    assert list(found.row(0)) == ["ccc", "bb", "a"]
    joined = type(found).concat([found, found])
    assert joined.row(5) == sparse("bb dddd")


def test_weights_that_are_not_above_zero_are_left_out():
    rows = [{"is_truncated": False, "embedding": {"a": 1.0, "b": 0.0, "c": -1.0}}]
    with scripted_service({"body": json.dumps({"sparse_embedding": rows})}) as service:
        found = embed(endpoint("elastic", {"url": service.url, "model_id": "m"}, "sparse_embedding"), ["x"])
    assert found.row(0) == {"a": 1.0}


CUSTOM = {
    "secret_parameters": {"api_key": "env:KEY"},
    "headers": {"Authorization": "Bearer ${api_key}", "X-Kind": "${input_type}"},
    "query_parameters": [["v", "1"], ["v", "${version}"]],
    "request": '{"input": ${input}, "kind": ${input_type}, "version": ${version}, "on": ${on}}',
    "response": {"json_parser": {"text_embeddings": "$.data[*].embedding[*]"}},
    "input_type": {"translation": {"ingest": "doc"}, "default": "other"},
}


@pytest.mark.parametrize(("input_type", "kind"), [("ingest", "doc"), ("search", "other")])
def test_custom(input_type, kind):
    texts = ['say "hi"\n${api_key}', "${input}"]
    rows = [{"embedding": vector(text)} for text in texts]
    with scripted_service({"body": json.dumps({"data": rows})}) as service:
        settings = {**CUSTOM, "url": f"{service.url}/custom"}
        definition = endpoint("custom", settings, parameters={"version": "2 & 3", "on": True})
        assert embed(definition, texts, input_type).values.tolist() == [vector(text) for text in texts]
        request = service.requests[0]
    assert request["path"] == "/custom?v=1&v=2+%26+3"
    assert request["body"] == {"input": texts, "kind": kind, "version": "2 & 3", "on": True}
    assert request["headers"]["Authorization"] == "Bearer sk-planted-4711"
    assert request["headers"]["X-Kind"] == kind


def test_custom_sparse_and_unknown_templates():
    path = "$.result.sparse_embeddings[*].embedding[*]"
    parser = {"token_path": f"{path}.token_id", "weight_path": f"{path}.weight"}
    rows = [{"embedding": [{"token_id": 6, "weight": 0.5}, {"token_id": 16, "weight": 1.5}]}]
    with scripted_service({"body": json.dumps({"result": {"sparse_embeddings": rows}})}) as service:
        settings = {"url": service.url, "request": '{"q": ${input}}', "response": {"json_parser": parser}}
        definition = endpoint("custom", settings, "sparse_embedding")
        assert embed(definition, ["x"]).row(0) == {"16": 1.5, "6": 0.5}
        wrong = endpoint(
            "custom", {**settings, "request": '{"q": ${input}, "k": ${key}}'}, "sparse_embedding"
        )
        with pytest.raises(InferenceError, match=r"Found placeholder \[\$\{key\}\] in field \[request\]"):
            embed(wrong, ["x"])


def test_custom_answers_that_do_not_fit_the_path():
    with scripted_service({"body": '{"data": [{"vector": [1]}]}'}) as service:
        settings = {**CUSTOM, "url": service.url}
        definition = endpoint("custom", settings, parameters={"version": "1", "on": 1})
        with pytest.raises(InferenceError, match=r"there is no field \[embedding\]"):
            embed(definition, ["x"])


def test_a_placeholder_for_a_url_is_a_problem_before_anything_is_called():
    model = remote_model(endpoint("nvidia", {"api_key": "env:KEY", "model_id": "m", "url": "nvidia-url"}))
    assert model.problems() == ["[url] is [nvidia-url], which is not an http or https URL that can be called"]


def test_dimensions_that_only_the_service_knows_are_asked_for_once():
    with scripted_service() as service:
        settings = {"api_key": "env:KEY", "model_id": "m", "url": service.url}
        model = remote_model(endpoint("openai", settings), QUICK)
        expected = {"task_type": "text_embedding", "service": "openai", "dimensions": 3}
        for _ in range(2):
            found = model.model_settings
            assert found == {**expected, "similarity": "dot_product", "element_type": "float"}
        assert len(service.requests) == 1
        defined = remote_model(
            endpoint("openai", {**settings, "dimensions": 7, "similarity": "cosine"}), QUICK
        )
        assert (defined.model_settings["dimensions"], defined.model_settings["similarity"]) == (7, "cosine")
        assert len(service.requests) == 1
    sparse_model = remote_model(endpoint("elastic", {"url": "http://x", "model_id": "m"}, "sparse_embedding"))
    assert sparse_model.model_settings == {"task_type": "sparse_embedding", "service": "elastic"}


def test_fingerprints_tell_models_apart_and_not_secrets_or_limits():
    settings = {"api_key": "env:KEY", "model_id": "m", "dimensions": 8}
    base = remote_model(endpoint("openai", settings)).fingerprint
    same = [{"api_key": "env:OTHER"}, {"rate_limit": {"requests_per_minute": 7}}]
    other = [{"model_id": "n"}, {"dimensions": 64}, {"max_input_tokens": 9}]
    assert {remote_model(endpoint("openai", {**settings, **change})).fingerprint for change in same} == {base}
    assert base not in {
        remote_model(endpoint("openai", {**settings, **change})).fingerprint for change in other
    }


def test_a_missing_extra_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr("models.remote.model._installed", lambda module: module != "botocore")
    model = remote_model(endpoint("amazonbedrock", {**AWS, "provider": "cohere", "model": "m"}))
    assert model.problems() == ["service [amazonbedrock] needs botocore: pip install 'semantic-ingest[aws]'"]


def test_a_real_model_behind_an_openai_compatible_server():
    texts = ["the quick brown fox", "jumps over the lazy dog", "a third text"]
    with openai_service() as service:
        settings = {
            "api_key": "env:KEY",
            "model_id": "all-minilm-l6-v2",
            "url": f"{service.url}/v1/embeddings",
        }
        found = embed(endpoint("openai", settings), texts)
    local = open_model(Registry().get(".minilm-l6-v2")).load("cpu").embed(texts, "ingest")
    assert found.values.shape == (3, 384)
    np.testing.assert_allclose(found.values, local.values, atol=1e-5)


def test_tokens_a_minute_are_kept_to(monkeypatch):
    spent = []
    monkeypatch.setattr(
        "models.remote.model.rate_limit",
        lambda key, limit: lambda amount=1: spent.append((limit, amount)),
    )
    with scripted_service() as service:
        limits = {"requests_per_minute": 60, "tokens_per_minute": 10}
        settings = {"api_key": "env:KEY", "model_id": "m", "url": f"{service.url}/v1", "rate_limit": limits}
        texts = ["x" * 15, "y" * 15, "z" * 30, "a"]
        found = embed(endpoint("openai", settings), texts)
        sent = [request["body"]["input"] for request in service.requests]  # several at once, in any order
    assert sorted(sent, key=lambda part: texts.index(part[0])) == [
        texts[:2],
        [texts[2]],
        [texts[3]],
    ]
    assert found.values.tolist() == [vector(text) for text in texts]
    assert sorted(spent, key=str) == sorted([(60, 1)] * 3 + [(10, 10), (10, 10), (10, 1)], key=str)
    with pytest.raises(InferenceError, match=r"\[tokens_per_minute\] must be a positive integer"):
        endpoint("openai", {**settings, "rate_limit": {"tokens_per_minute": 0}})
