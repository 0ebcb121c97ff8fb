"""Services ``googleaistudio`` (Gemini API, an API key) and ``googlevertexai`` (a service account)."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from models.embeddings import InputType
from models.endpoints.endpoint import Endpoint
from models.endpoints.secrets import Secrets
from models.errors import InferenceError
from models.remote.oauth import AccessToken, fetch_token
from models.remote.protocol import (
    Call,
    RemoteProtocol,
    Send,
    Vectors,
    bearer,
    host_part,
    json_call,
    without_none,
)

STUDIO_URL = "https://generativelanguage.googleapis.com/v1beta/models"
RANKING_URL = "https://discoveryengine.googleapis.com"
RANKING_PATH = "locations/global/rankingConfigs/default_ranking_config:rank"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_TASKS = {
    "ingest": "RETRIEVAL_DOCUMENT",
    "search": "RETRIEVAL_QUERY",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
}


class StudioProtocol(RemoteProtocol):
    """The Gemini API; the key goes into a header, since URLs end up in logs."""

    def __init__(self, endpoint: Endpoint, secrets: Secrets) -> None:
        self._settings, self._secrets = endpoint.service_settings, secrets
        self._model = str(self._settings["model_id"]).removeprefix("models/")

    def call(self, texts: Sequence[str], input_type: InputType) -> Call:
        """Build the request."""
        requests = [
            without_none(
                {
                    "model": f"models/{self._model}",
                    "content": {"parts": [{"text": text}]},
                    "taskType": _TASKS[input_type],
                    "outputDimensionality": self._settings.get("dimensions"),
                }
            )
            for text in texts
        ]
        url = f"{STUDIO_URL}/{quote(self._model, safe='')}:batchEmbedContents"
        return json_call(url, {"requests": requests}, {"x-goog-api-key": self._secrets["api_key"]})

    def parse(self, answer: Any) -> Vectors:
        """The embeddings stand in the order of the texts."""
        return [row["values"] for row in answer["embeddings"]]


class VertexProtocol(RemoteProtocol):
    """Vertex AI's prediction API."""

    def __init__(self, endpoint: Endpoint, secrets: Secrets, send: Send) -> None:
        settings = endpoint.service_settings
        self._settings, self._task = settings, endpoint.task_settings
        self._url = vertex_url(settings)
        self._authorize = authorization(endpoint, secrets, send)

    def call(self, texts: Sequence[str], input_type: InputType) -> Call:
        """Build the request."""
        parameters = without_none(
            {
                "autoTruncate": self._task.get("auto_truncate"),
                "outputDimensionality": self._settings.get("dimensions"),
            }
        )
        body: dict[str, Any] = {
            "instances": [{"content": text, "task_type": _TASKS[input_type]} for text in texts],
            **({"parameters": parameters} if parameters else {}),
        }
        return json_call(self._url, body, self._authorize())

    def parse(self, answer: Any) -> Vectors:
        """The embeddings stand in the order of the texts."""
        return [row["embeddings"]["values"] for row in answer["predictions"]]


def authorization(endpoint: Endpoint, secrets: Secrets, send: Send) -> Callable[[], dict[str, str]]:
    """Return what gives the headers of a request: a token of the service account, fetched when it is needed."""
    token = AccessToken(lambda: _service_account_token(secrets["service_account_json"], send))
    return lambda: bearer(token.value())


def vertex_url(settings: Any) -> str:
    """Return the URL of a Vertex AI model.

    Raises:
        InferenceError: a setting is missing that the URL is made of.
    """
    missing = [name for name in ("location", "project_id", "model_id") if not settings.get(name)]
    if missing:
        raise InferenceError(
            f"[service_settings] does not contain the required setting [{', '.join(missing)}]", status=400
        )
    location = host_part("location", settings["location"])
    project, model = quote(settings["project_id"], safe=""), quote(settings["model_id"], safe="")
    host = "aiplatform.googleapis.com" if location == "global" else f"{location}-aiplatform.googleapis.com"
    return (
        f"https://{host}/v1/projects/{project}/locations/{location}/publishers/google/models/{model}:predict"
    )


def _service_account_token(service_account_json: str, send: Send) -> tuple[str, float]:
    """Sign an assertion with the service account's key and exchange it for a token."""
    try:
        from google.auth import crypt, jwt
    except ImportError:
        raise InferenceError(
            "service [googlevertexai] needs google-auth: pip install 'semantic-ingest[gcp]'", status=400
        ) from None
    account: dict[str, str] = {}
    signer = None
    try:
        account = json.loads(service_account_json)
        signer = crypt.RSASigner.from_service_account_info(account)  # type: ignore[no-untyped-call]
    except Exception:  # noqa: S110 - its message may hold parts of the key; ours follows
        pass
    if signer is None or not account.get("client_email"):
        raise InferenceError(
            "[service_account_json] is not the JSON of a service account with a private key", status=400
        )
    now = int(time.time())
    url = account.get("token_uri", "https://oauth2.googleapis.com/token")
    claims = {"iss": account["client_email"], "scope": _SCOPE, "aud": url, "iat": now, "exp": now + 3600}
    assertion = jwt.encode(signer, claims).decode()  # type: ignore[no-untyped-call]
    return fetch_token(send, url, {"grant_type": _GRANT, "assertion": assertion})


def open_protocol(endpoint: Endpoint, secrets: Secrets, send: Send) -> StudioProtocol | VertexProtocol:
    """Return the protocol of an endpoint of one of these services."""
    if endpoint.service == "googleaistudio":
        return StudioProtocol(endpoint, secrets)
    return VertexProtocol(endpoint, secrets, send)
