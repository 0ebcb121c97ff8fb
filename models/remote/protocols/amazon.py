"""Services ``amazonbedrock`` and ``amazon_sagemaker``; botocore signs the requests, httpx sends them."""

import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from models.embeddings import InputType
from models.endpoints.endpoint import Endpoint
from models.endpoints.secrets import Secrets
from models.errors import InferenceError
from models.remote.protocol import Call, RemoteProtocol, Send, Vectors, host_part, in_order, without_none
from models.remote.protocols.cluster import embeddings_of
from models.remote.protocols.cohere import INPUT_TYPES

_SAGEMAKER_HEADERS = {
    "target_model": "X-Amzn-SageMaker-Target-Model",
    "target_container_hostname": "X-Amzn-SageMaker-Target-Container-Hostname",
    "inference_component_name": "X-Amzn-SageMaker-Inference-Component",
    "custom_attributes": "X-Amzn-SageMaker-Custom-Attributes",
    "enable_explanations": "X-Amzn-SageMaker-Enable-Explanations",
    "inference_id": "X-Amzn-SageMaker-Inference-Id",
    "session_id": "X-Amzn-SageMaker-Session-Id",
    "target_variant": "X-Amzn-SageMaker-Target-Variant",
}


def sign(call: Call, secrets: Secrets, region: str, service: str) -> Call:
    """Add AWS's signature (version 4) to a call.

    Raises:
        InferenceError: botocore is not installed.
    """
    try:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials
    except ImportError:
        raise InferenceError(
            f"service [{service}] needs botocore: pip install 'semantic-ingest[aws]'", status=400
        ) from None
    request = AWSRequest("POST", call.url, headers=dict(call.headers), data=call.body)
    SigV4Auth(Credentials(secrets["access_key"], secrets["secret_key"]), service, region).add_auth(request)
    return Call(call.url, call.body, dict(request.headers.items()))


def base_url(service: str, host: str) -> str:
    """Return where a service of AWS is: its public host, or what AWS's own environment variables say."""
    named = os.environ.get(f"AWS_ENDPOINT_URL_{service}") or os.environ.get("AWS_ENDPOINT_URL")
    return (named or f"https://{host}").rstrip("/")


class BedrockProtocol(RemoteProtocol):
    """Titan takes one text a request, Cohere's models take many."""

    def __init__(self, endpoint: Endpoint, secrets: Secrets) -> None:
        settings = endpoint.service_settings
        self._settings, self._task, self._secrets = settings, endpoint.task_settings, secrets
        provider = settings.get("provider") or _provider_of(settings["model"])
        if provider not in ("amazontitan", "cohere"):
            raise InferenceError(
                f"The [text_embedding] task type for provider [{provider}] is not available; it is for"
                " amazontitan and cohere",
                status=400,
            )
        self._titan = provider == "amazontitan"
        self.batch = 1 if self._titan else None
        region = host_part("region", settings["region"])
        base = base_url("BEDROCK_RUNTIME", f"bedrock-runtime.{region}.amazonaws.com")
        self._url = f"{base}/model/{quote(settings['model'], safe='')}/invoke"

    def call(self, texts: Sequence[str], input_type: InputType) -> Call:
        """Build the request and sign it."""
        body: dict[str, Any]
        if self._titan:
            body = {"inputText": texts[0], "dimensions": self._settings.get("dimensions")}
        else:
            body = {
                "texts": list(texts),
                "input_type": INPUT_TYPES.get(input_type, input_type),
                "truncate": self._task.get("truncate"),
            }
        call = Call(self._url, orjson.dumps(without_none(body)), {"Content-Type": "application/json"})
        return sign(call, self._secrets, self._settings["region"], "bedrock")

    def parse(self, answer: Any) -> Vectors:
        """Take the one embedding, or all of them."""
        if self._titan:
            return [answer["embedding"]]
        embeddings = answer["embeddings"]
        return list(embeddings if isinstance(embeddings, list) else embeddings["float"])


class Invocation:
    """How a SageMaker endpoint is asked."""

    def __init__(self, endpoint: Endpoint, secrets: Secrets) -> None:
        self._region, self._secrets = endpoint.service_settings["region"], secrets
        host = f"runtime.sagemaker.{host_part('region', self._region)}.amazonaws.com"
        base = base_url("SAGEMAKER_RUNTIME", host)
        name = quote(endpoint.service_settings["endpoint_name"], safe="")
        self._url = f"{base}/endpoints/{name}/invocations"
        self._headers = _sagemaker_headers({**endpoint.service_settings, **endpoint.task_settings})

    def call(self, body: Mapping[str, Any]) -> Call:
        """Build a request and sign it."""
        call = Call(self._url, orjson.dumps(body), self._headers)
        return sign(call, self._secrets, self._region, "sagemaker")


class SageMakerProtocol(RemoteProtocol):
    """A model behind a SageMaker endpoint that speaks OpenAI's protocol or Elastic's."""

    def __init__(self, endpoint: Endpoint, secrets: Secrets) -> None:
        settings = endpoint.service_settings
        self._settings, self._task = settings, endpoint.task_settings
        self._sparse = endpoint.is_sparse
        if self._sparse and settings["api"] != "elastic":
            raise InferenceError("The [openai] api does not support task type [sparse_embedding]", status=400)
        self._invocation = Invocation(endpoint, secrets)

    def call(self, texts: Sequence[str], input_type: InputType) -> Call:
        """Build the request and sign it."""
        body: dict[str, Any] = {"input": list(texts)}
        if self._settings["api"] == "openai":
            body |= without_none(
                {"user": self._task.get("user"), "dimensions": self._settings.get("dimensions")}
            )
        elif not self._sparse:
            body["input_type"] = input_type
        return self._invocation.call(body)

    def parse(self, answer: Any) -> Vectors:
        """OpenAI's answer or Elastic's."""
        if self._settings["api"] == "elastic":
            return embeddings_of(answer)
        return [row["embedding"] for row in in_order(answer["data"])]


def _provider_of(model: str) -> str:
    """The maker of a model, as its id tells: ``amazon.titan-…``, ``cohere.embed-…``, also inside an ARN."""
    return "cohere" if "cohere." in model else "amazontitan"


def _sagemaker_headers(settings: Mapping[str, Any]) -> dict[str, str]:
    named = {header: str(settings[name]) for name, header in _SAGEMAKER_HEADERS.items() if settings.get(name)}
    return {"Content-Type": "application/json", **named}


def open_protocol(endpoint: Endpoint, secrets: Secrets, send: Send) -> BedrockProtocol | SageMakerProtocol:
    """Return the protocol of an endpoint of one of these services."""
    kind = BedrockProtocol if endpoint.service == "amazonbedrock" else SageMakerProtocol
    return kind(endpoint, secrets)
