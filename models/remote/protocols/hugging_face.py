"""Service ``hugging_face``: inference endpoints and text-embeddings-inference servers."""

from collections.abc import Sequence
from typing import Any

from models.embeddings import InputType
from models.endpoints.endpoint import Endpoint
from models.endpoints.secrets import Secrets
from models.remote.protocol import Call, RemoteProtocol, Send, Vectors, bearer, in_order, json_call


class HuggingFaceProtocol(RemoteProtocol):
    """Requests and answers of a server at the endpoint's own URL."""

    def __init__(self, endpoint: Endpoint, secrets: Secrets) -> None:
        self._url, self._secrets = str(endpoint.service_settings["url"]), secrets
        self._texts = "input" if self._url.rstrip("/").endswith("/v1/embeddings") else "inputs"

    def call(self, texts: Sequence[str], input_type: InputType) -> Call:
        """Build the request."""
        return json_call(self._url, {self._texts: list(texts)}, bearer(self._secrets["api_key"]))

    def parse(self, answer: Any) -> Vectors:
        """The three shapes in use: bare, under ``embeddings``, and OpenAI's."""
        if isinstance(answer, list):
            return answer
        if "data" in answer:
            return [row["embedding"] for row in in_order(answer["data"])]
        return list(answer["embeddings"])


def open_protocol(endpoint: Endpoint, secrets: Secrets, send: Send) -> HuggingFaceProtocol:
    """Return the protocol of an endpoint of this service."""
    return HuggingFaceProtocol(endpoint, secrets)
