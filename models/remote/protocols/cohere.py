"""Service ``cohere``: the embed API, version 2."""

from collections.abc import Sequence
from typing import Any

from models.embeddings import InputType
from models.endpoints.endpoint import Endpoint
from models.endpoints.secrets import Secrets
from models.remote.protocol import Call, RemoteProtocol, Send, Vectors, bearer, json_call, without_none

URL = "https://api.cohere.com/v2/embed"
INPUT_TYPES = {"ingest": "search_document", "search": "search_query"}
_TYPES = {"float": "float", "byte": "int8", "bit": "binary"}


class CohereProtocol(RemoteProtocol):
    """Requests and answers of Cohere."""

    def __init__(self, endpoint: Endpoint, secrets: Secrets) -> None:
        self._settings, self._task, self._secrets = endpoint.service_settings, endpoint.task_settings, secrets
        self._type = _TYPES[endpoint.element_type]

    def call(self, texts: Sequence[str], input_type: InputType) -> Call:
        """Build the request."""
        body = {
            "model": self._settings["model_id"],
            "texts": list(texts),
            "input_type": INPUT_TYPES.get(input_type, input_type),
            "embedding_types": [self._type],
            "truncate": self._task.get("truncate"),
            "output_dimension": self._settings.get("dimensions"),
        }
        headers = {**bearer(self._secrets["api_key"]), "Request-Source": "semantic-ingest"}
        return json_call(str(self._settings.get("url") or URL), without_none(body), headers)

    def parse(self, answer: Any) -> Vectors:
        """Embeddings stand under their type; version 1 gives floats bare."""
        embeddings = answer["embeddings"]
        return list(embeddings if isinstance(embeddings, list) else embeddings[self._type])


def open_protocol(endpoint: Endpoint, secrets: Secrets, send: Send) -> CohereProtocol:
    """Return the protocol of an endpoint of this service."""
    return CohereProtocol(endpoint, secrets)
