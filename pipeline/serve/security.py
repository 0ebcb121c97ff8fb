"""Who may ask, and what a browser may do with the answers.

A web page elsewhere must not reach this server through the user's browser: the `Host` that a request names has to be
one of this server's names (no DNS rebinding), and an `Origin`, which browsers send with every request that changes
something, has to be this server itself. Beyond the loopback address every request needs the API key.
"""

import hmac
from collections.abc import Awaitable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.endpoints.secrets import resolve
from models.errors import InferenceError
from pipeline.errors import PipelineError
from pipeline.serve.answers import failed

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'none'"
)
"""For the page of one run: it has styles of its own, and no script."""

_HEADERS = (
    (b"x-elastic-product", b"Elasticsearch"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", _PAGE_POLICY.encode()),
)
"""Of every answer that does not say otherwise."""

_LOOKED_AT = (b"host", b"origin", b"authorization")


@dataclass(slots=True)
class Door:
    """Who is let in.

    Attributes:
        hosts: names of this server that a request may use; empty for any, which only a server with a key may have.
        api_key: the key that a request must bring; None for none.
        is_closing: whether the server is stopping: each connection ends with its answer.
    """

    hosts: Collection[str] = LOOPBACK
    api_key: str | None = None
    is_closing: bool = False


def open_door(host: str, api_key: str | None) -> Door:
    """Who is let in at an address.

    Args:
        host: address to listen on.
        api_key: reference to the key, ``env:NAME`` or ``file:PATH``; None for none.

    Raises:
        PipelineError: the address can be reached from elsewhere and there is no key, or the key cannot be found.
    """
    if api_key is None:
        if host not in LOOPBACK:
            raise PipelineError(
                f"--host {host} can be reached from other machines, so a key is needed: --api-key env:NAME with the"
                " key in that environment variable"
            )
        return Door()
    try:
        key = resolve({"--api-key": api_key}, None)["--api-key"]
    except InferenceError as error:
        raise PipelineError(error.reason) from None
    return Door(LOOPBACK if host in LOOPBACK else (), key)


class Guard:
    """Lets requests in or not, tells of errors, and puts the headers on every answer that keep browsers careful."""

    def __init__(self, app: ASGIApp, door: Door, public: Collection[str]) -> None:
        """Stand before an application.

        Args:
            app: the application.
            door: who is let in.
            public: paths that need no key: they show nothing but the page itself and that the server lives.
        """
        self._app = app
        self._door = door
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; the status goes into `scope` too."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        def send_guarded(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                scope["status"] = message["status"]
                said = {name for name, _ in message["headers"]}
                message["headers"] += [header for header in _HEADERS if header[0] not in said]
                if self._door.is_closing:
                    message["headers"].append((b"connection", b"close"))
            return send(message)

        problem: Exception | None = self._refusal(scope["path"], scope["headers"])
        if problem is None:
            try:
                scope["app"] = (
                    self._app
                )  # a router alone raises what it has no handler for, where there is an app
                await self._app(scope, receive, send_guarded)
            except Exception as error:
                if "status" in scope:  # the answer has begun
                    raise
                problem = error
        if problem is not None:
            await failed(Request(scope), problem)(scope, receive, send_guarded)

    def _refusal(self, path: str, raw: Sequence[tuple[bytes, bytes]]) -> InferenceError | None:
        # Of a header that is there twice the first counts, as in Starlette.
        headers = {name: value.decode("latin-1") for name, value in reversed(raw) if name in _LOOKED_AT}
        host = headers.get(b"host", "")
        if self._door.hosts and _name(f"//{host}") not in self._door.hosts:
            return _refused(403, f"this server is not [{host}]; ask it by the name that it listens on")
        origin = headers.get(b"origin")
        if origin is not None and origin.partition("://")[2] != host:
            return _refused(403, f"requests from pages of [{origin}] are not answered")
        if self._door.api_key is None or path in self._public:
            return None
        if hmac.compare_digest(_key(headers.get(b"authorization", "")).encode(), self._door.api_key.encode()):
            return None
        return _refused(
            401, "missing or wrong API key; send it as [Authorization: ApiKey KEY] or [Bearer KEY]"
        )


@lru_cache(maxsize=64)
def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _key(authorization: str) -> str:
    scheme, _, key = authorization.partition(" ")
    return key.strip() if scheme.lower() in ("apikey", "bearer") else ""


def _refused(status: int, reason: str) -> InferenceError:
    return InferenceError(reason, status=status, type="security_exception")
