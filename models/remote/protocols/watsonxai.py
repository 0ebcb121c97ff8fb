"""Service ``watsonxai``: IBM's text embeddings; an API key buys a token for about an hour."""

from collections.abc import Callable, Sequence
from typing import Any

from models.embeddings import InputType
from models.endpoints.endpoint import Endpoint
from models.endpoints.secrets import Secrets
from models.remote.oauth import AccessToken, fetch_token
from models.remote.protocol import Call, RemoteProtocol, Send, Vectors, bearer, json_call

TOKEN_URL = "https://iam.cloud.ibm.com/identity/token"  # noqa: S105 - a URL, not a secret
_GRANT = "urn:ibm:params:oauth:grant-type:apikey"


class WatsonxProtocol(RemoteProtocol):
    """Requests and answers of watsonx.ai."""

    def __init__(self, endpoint: Endpoint, secrets: Secrets, send: Send) -> None:
        settings = endpoint.service_settings
        base = str(settings["url"]).rstrip("/")
        self._url = base if base.endswith("/embeddings") else f"{base}/ml/v1/text/embeddings"
        self._settings = settings
        self._authorize = authorization(endpoint, secrets, send)

    def call(self, texts: Sequence[str], input_type: InputType) -> Call:
        """Build the request."""
        body: dict[str, Any] = {
            "inputs": list(texts),
            "model_id": self._settings["model_id"],
            "project_id": self._settings["project_id"],
        }
        if self._settings.get("max_input_tokens"):
            body["parameters"] = {"truncate_input_tokens": self._settings["max_input_tokens"]}
        version = [("version", self._settings["api_version"])]
        return json_call(self._url, body, self._authorize(), version)

    def parse(self, answer: Any) -> Vectors:
        """The embeddings stand in the order of the texts."""
        return [row["embedding"] for row in answer["results"]]


def authorization(endpoint: Endpoint, secrets: Secrets, send: Send) -> Callable[[], dict[str, str]]:
    """Return what gives the headers of a request: a token that the API key buys."""
    form = {"grant_type": _GRANT, "apikey": secrets["api_key"]}
    token = AccessToken(lambda: fetch_token(send, TOKEN_URL, form))
    return lambda: bearer(token.value())


def open_protocol(endpoint: Endpoint, secrets: Secrets, send: Send) -> WatsonxProtocol:
    """Return the protocol of an endpoint of this service."""
    return WatsonxProtocol(endpoint, secrets, send)
