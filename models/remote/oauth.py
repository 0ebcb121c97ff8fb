"""Access tokens by OAuth 2.0, kept until shortly before they expire."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from models.endpoints.secrets import Secrets
from models.errors import InferenceError
from models.remote.protocol import Call, Send

_EARLY = 60.0  # seconds before its end at which a token is fetched anew
_LIFETIME = 300.0  # of a token whose service does not say
_LONGEST = 86_400.0
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class AccessToken:
    """A token that is fetched when it is needed and again before it expires. Safe to call from several threads."""

    def __init__(self, fetch: Callable[[], tuple[str, float]]) -> None:
        """Wrap a way to get tokens.

        Args:
            fetch: returns a token and the seconds that it lives.
        """
        self._fetch = fetch
        self._lock = threading.Lock()
        self._token, self._until = "", 0.0

    def __repr__(self) -> str:
        return "AccessToken(…)"

    def value(self) -> str:
        """Return a token that is still good for a minute."""
        with self._lock:
            if time.monotonic() > self._until - _EARLY:
                self._token, seconds = self._fetch()
                self._until = time.monotonic() + max(seconds, 2 * _EARLY)
            return self._token


class ClientCredentials(AccessToken):
    """The client credentials grant of OpenAI-compatible services and Azure."""

    @staticmethod
    def of(settings: Mapping[str, Any], secrets: Secrets, send: Send) -> "ClientCredentials | None":
        """Return the token of an endpoint that has a ``client_secret``; None for others."""
        if "client_secret" not in secrets:
            return None
        tenant = quote(str(settings.get("tenant_id", "")), safe="")
        url = settings.get("token_url") or f"https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token"
        form = {
            "grant_type": "client_credentials",
            "client_id": settings.get("client_id", ""),
            "client_secret": secrets["client_secret"],
            "scope": " ".join(settings.get("scopes") or ()),
        }
        return ClientCredentials(lambda: fetch_token(send, str(url), form))


def fetch_token(send: Send, url: str, form: Mapping[str, str]) -> tuple[str, float]:
    """Post a form to a token endpoint; return the token and the seconds that it lives.

    Raises:
        InferenceError: the answer holds no token.
    """
    body = urlencode({key: value for key, value in form.items() if value}).encode()
    answer = send(Call(url, body, _FORM))
    if isinstance(answer, dict) and isinstance(answer.get("access_token"), str):
        return answer["access_token"], _lifetime(answer.get("expires_in"))
    raise InferenceError(
        "the token endpoint answered without an access_token; check the OAuth settings", status=502
    )


def _lifetime(stated: Any) -> float:
    """The seconds that a token lives; what a service says of it that is no number counts as nothing said."""
    try:
        return min(float(stated or _LIFETIME), _LONGEST)
    except (TypeError, ValueError):
        return _LIFETIME
