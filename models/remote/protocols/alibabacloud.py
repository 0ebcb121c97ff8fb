"""Service ``alibabacloud-ai-search``: dense and sparse embeddings of a workspace."""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from models.embeddings import InputType
from models.endpoints.endpoint import Endpoint
from models.endpoints.secrets import Secrets
from models.errors import InferenceError
from models.remote.protocol import (
    Call,
    RemoteProtocol,
    Send,
    Settings,
    Vectors,
    bearer,
    in_order,
    json_call,
    without_none,
)

_PATHS = {"text_embedding": "text-embedding", "sparse_embedding": "text-sparse-embedding"}


class AlibabaCloudProtocol(RemoteProtocol):
    """Requests and answers of one workspace."""

    def __init__(self, endpoint: Endpoint, secrets: Secrets) -> None:
        self._task, self._secrets, self._sparse = endpoint.task_settings, secrets, endpoint.is_sparse
        self._url = url_of(endpoint.service_settings, _PATHS[endpoint.task_type])

    def call(self, texts: Sequence[str], input_type: InputType) -> Call:
        """Build the request."""
        body = {
            "input": list(texts),
            "input_type": {"ingest": "document", "search": "query"}.get(input_type),
            "return_token": self._task.get("return_token") if self._sparse else None,
        }
        return json_call(self._url, without_none(body), bearer(self._secrets["api_key"]))

    def parse(self, answer: Any) -> Vectors:
        """Order the embeddings by their index; a sparse token is named by its text where that was asked for."""
        result = answer["result"]
        rows = in_order(result["sparse_embeddings" if self._sparse else "embeddings"])
        if not self._sparse:
            return [row["embedding"] for row in rows]
        return [
            {str(entry.get("token") or entry["token_id"]): entry["weight"] for entry in row["embedding"]}
            for row in rows
        ]


def url_of(settings: Settings, path: str) -> str:
    """Where a service of a workspace is asked.

    Raises:
        InferenceError: the host is none.
    """
    workspace, service = quote(settings["workspace"], safe=""), quote(settings["service_id"], safe="")
    if not re.fullmatch(r"[A-Za-z0-9.-]+(:[0-9]+)?", settings["host"]):
        raise InferenceError(f"[host] is [{settings['host']}], which is not the name of a host", status=400)
    base = f"{settings.get('http_schema', 'https')}://{settings['host']}/v3/openapi/workspaces/{workspace}"
    return f"{base}/{path}/{service}"


def open_protocol(endpoint: Endpoint, secrets: Secrets, send: Send) -> AlibabaCloudProtocol:
    """Return the protocol of an endpoint of this service."""
    return AlibabaCloudProtocol(endpoint, secrets)
