"""An endpoint of a remote Elasticsearch cluster, through its ``_inference`` API.

The services ``elasticsearch`` and ``elastic`` come here when their settings name a ``url``: the cluster runs
the model, and this side only asks.
"""

from collections.abc import Sequence
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
        settings = endpoint.service_settings
        remote_id = quote(settings.get("inference_id") or endpoint.inference_id, safe="")
        self._url = f"{str(settings['url']).rstrip('/')}/_inference/{endpoint.task_type}/{remote_id}"
        self._headers = {"Authorization": f"ApiKey {secrets['api_key']}"} if "api_key" in secrets else {}
        self._sparse = endpoint.is_sparse

    def call(self, texts: Sequence[str], input_type: InputType) -> Call:
        """Build the request; Elasticsearch refuses an input type for sparse embeddings."""
        body = {"input": list(texts), **({} if self._sparse else {"input_type": input_type})}
        return json_call(self._url, body, self._headers)

    def parse(self, answer: Any) -> Vectors:
        """The embeddings stand in the order of the texts."""
        return embeddings_of(answer)


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
