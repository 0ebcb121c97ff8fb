"""An endpoint of a remote Elasticsearch cluster, through its ``_inference`` API.

The services ``elasticsearch`` and ``elastic`` come here when their settings name a ``url``: the cluster runs
the model, and this side only asks.
"""

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from models.embeddings import InputType
from models.endpoints.endpoint import Endpoint
from models.endpoints.secrets import Secrets
from models.remote.protocol import Call, RemoteProtocol, Send, Vectors, json_call

ANSWERS = (
    "text_embedding",
    "text_embedding_bytes",
    "text_embedding_bits",
    "sparse_embedding",
    "embeddings",
    "embeddings_bytes",
    "embeddings_bits",
)
"""The keys that Elasticsearch answers embeddings under."""


class ClusterProtocol(RemoteProtocol):
    """Elasticsearch's inference API."""

    def __init__(self, endpoint: Endpoint, secrets: Secrets) -> None:
        self._url = url_of(endpoint)
        self._headers = _headers(secrets)
        self._sparse = endpoint.is_sparse

    def call(self, texts: Sequence[str], input_type: InputType) -> Call:
        """Build the request; Elasticsearch refuses an input type for sparse embeddings."""
        body = {"input": list(texts), **({} if self._sparse else {"input_type": input_type})}
        return json_call(self._url, body, self._headers)

    def parse(self, answer: Any) -> Vectors:
        """The embeddings stand in the order of the texts."""
        return embeddings_of(answer)


def url_of(endpoint: Endpoint) -> str:
    """Where an endpoint of a remote cluster is asked."""
    settings = endpoint.service_settings
    remote_id = quote(settings.get("inference_id") or endpoint.inference_id, safe="")
    return f"{str(settings['url']).rstrip('/')}/_inference/{endpoint.task_type}/{remote_id}"


def _headers(secrets: Secrets) -> dict[str, str]:
    return {"Authorization": f"ApiKey {secrets['api_key']}"} if "api_key" in secrets else {}


def authorization(endpoint: Endpoint, secrets: Secrets, send: Send) -> Callable[[], dict[str, str]]:
    """Return what gives the headers of a request."""
    return lambda: _headers(secrets)


def rerank_body(endpoint: Endpoint, query: str, texts: Sequence[str]) -> dict[str, Any]:
    """What Elasticsearch is sent to rank texts."""
    return {"query": query, "input": list(texts), "task_settings": {"return_documents": False}}


def embeddings_of(answer: Any) -> Vectors:
    """Take the embeddings out of Elasticsearch's answer.

    Raises:
        KeyError: it holds none.
    """
    for key in ANSWERS:
        if key in answer:
            return [row["embedding"] for row in answer[key]]
    raise KeyError("text_embedding")


def open_protocol(endpoint: Endpoint, secrets: Secrets, send: Send) -> ClusterProtocol:
    """Return the protocol of an endpoint of a remote cluster."""
    return ClusterProtocol(endpoint, secrets)
