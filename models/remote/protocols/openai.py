"""Services that speak OpenAI's embeddings protocol: ``{"input": […], "model": …}`` to ``data[].embedding``.

Each service is one `Dialect`: where it is, how it authenticates, and what its requests say besides.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from models.embeddings import InputType
from models.endpoints.endpoint import Endpoint
from models.endpoints.secrets import Secrets
from models.remote.oauth import ClientCredentials
from models.remote.protocol import (
    Call,
    RemoteProtocol,
    Send,
    Settings,
    Vectors,
    bearer,
    host_part,
    in_order,
    json_call,
    without_none,
)
from models.remote.text import count_icu_words

LATE_CHUNKING_WORDS = 5500  # of all texts of one request; Elasticsearch's bound for jinaai


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one service differs from OpenAI.

    Attributes:
        url: URL of an endpoint's requests.
        authorize: headers from the secrets.
        fields: what the body says besides the texts: (endpoint, input type, texts) -> fields.
        parameters: query parameters.
        texts: name of the field that holds the texts.
    """

    url: Callable[[Settings], str]
    authorize: Callable[[Settings, Secrets], dict[str, str]] = lambda settings, secrets: (
        bearer(secrets["api_key"]) if "api_key" in secrets else {}
    )
    fields: Callable[[Endpoint, InputType, Sequence[str]], dict[str, Any]] = (
        lambda endpoint, input_type, texts: {"model": endpoint.service_settings.get("model_id")}
    )
    parameters: Callable[[Settings], list[tuple[str, str]]] = lambda settings: []
    texts: str = "input"


def _fixed(url: str) -> Callable[[Settings], str]:
    """The service's own URL, unless the endpoint names another."""
    return lambda settings: str(settings.get("url") or url)


def _openai(endpoint: Endpoint, input_type: InputType, texts: Sequence[str]) -> dict[str, Any]:
    settings = endpoint.service_settings
    return {
        "model": settings.get("model_id"),
        "dimensions": settings.get("dimensions"),
        "user": endpoint.task_settings.get("user"),
    }


def _openai_authorization(settings: Settings, secrets: Secrets) -> dict[str, str]:
    headers = bearer(secrets["api_key"]) if "api_key" in secrets else {}
    organization = settings.get("organization_id")
    return {**headers, **({"OpenAI-Organization": organization} if organization else {})}


def _azure_url(settings: Settings) -> str:
    resource = host_part("resource_name", settings["resource_name"])
    deployment = quote(settings["deployment_id"], safe="")
    return f"https://{resource}.openai.azure.com/openai/deployments/{deployment}/embeddings"


def _azure_authorization(settings: Settings, secrets: Secrets) -> dict[str, str]:
    if "api_key" in secrets:
        return {"api-key": secrets["api_key"]}
    return bearer(secrets["entra_id"]) if "entra_id" in secrets else {}


def _studio_url(settings: Settings) -> str:
    target = str(settings["target"])
    if settings["provider"] == "cohere" and settings["endpoint_type"] == "token":
        return target.rstrip("/") + ("" if "/embed" in target else "/v1/embeddings")
    return target


def _studio_authorization(settings: Settings, secrets: Secrets) -> dict[str, str]:
    if settings["provider"] == "openai":
        return {"api-key": secrets["api_key"]}
    if settings["endpoint_type"] == "realtime":
        return bearer(secrets["api_key"])
    return {"Authorization": secrets["api_key"]}


def _studio(endpoint: Endpoint, input_type: InputType, texts: Sequence[str]) -> dict[str, Any]:
    settings = endpoint.service_settings
    kind = (
        {"ingest": "document", "search": "query"}.get(input_type)
        if settings["provider"] == "cohere"
        else None
    )
    return {
        "user": endpoint.task_settings.get("user"),
        "dimensions": settings.get("dimensions"),
        "input_type": kind,
    }


def _jinaai(endpoint: Endpoint, input_type: InputType, texts: Sequence[str]) -> dict[str, Any]:
    settings = endpoint.service_settings
    tasks = {"ingest": "retrieval.passage", "search": "retrieval.query", "clustering": "separation"}
    late = endpoint.task_settings.get("late_chunking")
    if late and sum(map(count_icu_words, texts)) > LATE_CHUNKING_WORDS:
        late = False
    return {
        "model": settings["model_id"],
        "task": tasks.get(input_type, input_type),
        "dimensions": settings.get("dimensions"),
        "embedding_type": {"bit": "binary"}.get(endpoint.element_type, "float"),
        "late_chunking": late,
    }


def _voyageai(endpoint: Endpoint, input_type: InputType, texts: Sequence[str]) -> dict[str, Any]:
    settings = endpoint.service_settings
    return {
        "model": settings["model_id"],
        "input_type": {"ingest": "document", "search": "query"}.get(input_type),
        "truncation": endpoint.task_settings.get("truncation"),
        "output_dimension": settings.get("dimensions"),
        "output_dtype": {"byte": "int8", "bit": "binary"}.get(endpoint.element_type, "float"),
    }


def _nvidia(endpoint: Endpoint, input_type: InputType, texts: Sequence[str]) -> dict[str, Any]:
    settings = endpoint.service_settings
    return {
        "model": settings["model_id"],
        "input_type": "passage" if input_type == "ingest" else "query",
        "truncate": endpoint.task_settings.get("truncate"),
        "dimensions": settings.get("dimensions"),
    }


def _mistral(endpoint: Endpoint, input_type: InputType, texts: Sequence[str]) -> dict[str, Any]:
    settings = endpoint.service_settings
    return {"model": settings["model"], "encoding_format": "float"}


DIALECTS: dict[str, Dialect] = {
    "openai": Dialect(_fixed("https://api.openai.com/v1/embeddings"), _openai_authorization, _openai),
    "azureopenai": Dialect(
        _azure_url, _azure_authorization, _openai, lambda settings: [("api-version", settings["api_version"])]
    ),
    "azureaistudio": Dialect(_studio_url, _studio_authorization, _studio),
    "fireworksai": Dialect(_fixed("https://api.fireworks.ai/inference/v1/embeddings"), fields=_openai),
    "jinaai": Dialect(_fixed("https://api.jina.ai/v1/embeddings"), fields=_jinaai),
    "llama": Dialect(lambda settings: str(settings["url"]), fields=_openai),
    "mistral": Dialect(_fixed("https://api.mistral.ai/v1/embeddings"), fields=_mistral),
    "nvidia": Dialect(_fixed("https://integrate.api.nvidia.com/v1/embeddings"), fields=_nvidia),
    "openshift_ai": Dialect(lambda settings: str(settings["url"]), fields=_openai),
    "voyageai": Dialect(_fixed("https://api.voyageai.com/v1/embeddings"), fields=_voyageai),
}


class OpenAiProtocol(RemoteProtocol):
    """OpenAI's protocol in the dialect of one service."""

    def __init__(self, dialect: Dialect, endpoint: Endpoint, secrets: Secrets, send: Send) -> None:
        self._dialect = dialect
        self._endpoint = endpoint
        self._settings = endpoint.service_settings
        self._secrets = secrets
        self._token = ClientCredentials.of(self._settings, secrets, send)

    def call(self, texts: Sequence[str], input_type: InputType) -> Call:
        """Build the request."""
        dialect = self._dialect
        body = dialect.fields(self._endpoint, input_type, texts)
        headers = {
            **self._custom_headers(),
            **dialect.authorize(self._settings, self._secrets),
            **(bearer(self._token.value()) if self._token else {}),
        }
        return json_call(
            dialect.url(self._settings),
            without_none({dialect.texts: list(texts), **body}),
            headers,
            dialect.parameters(self._settings),
        )

    def parse(self, answer: Any) -> Vectors:
        """Order the embeddings by their index; some services leave it out, and then the order counts."""
        return [row["embedding"] for row in in_order(answer["data"])]

    def _custom_headers(self) -> dict[str, str]:
        headers = dict(self._endpoint.task_settings.get("headers") or {})
        return {name: self._secrets.get(f"headers.{name}", value) for name, value in headers.items()}


class LlamaStackProtocol(OpenAiProtocol):
    """Llama Stack's own protocol, at URLs that end in ``/inference/embeddings``."""

    def call(self, texts: Sequence[str], input_type: InputType) -> Call:
        """Build the request."""
        body = {"model_id": self._settings["model_id"], "contents": list(texts)}
        return json_call(
            str(self._settings["url"]), body, self._dialect.authorize(self._settings, self._secrets)
        )

    def parse(self, answer: Any) -> Vectors:
        """The embeddings stand in the order of the texts."""
        return list(answer["embeddings"])


def open_protocol(endpoint: Endpoint, secrets: Secrets, send: Send) -> OpenAiProtocol:
    """Return the protocol of an endpoint of one of `DIALECTS`."""
    url = str(endpoint.service_settings.get("url") or "")
    is_stack = endpoint.service == "llama" and url.rstrip("/").endswith("/inference/embeddings")
    kind = LlamaStackProtocol if is_stack else OpenAiProtocol
    return kind(DIALECTS[endpoint.service], endpoint, secrets, send)
