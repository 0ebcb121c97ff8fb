"""Requests and answers in JSON: bodies within bounds, errors as Elasticsearch or OpenAI writes them."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import orjson
import starlette.routing
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from models.errors import InferenceError, bad_request
from pipeline.errors import PipelineError
from pipeline.logs import log
from pipeline.serve.batching import Busy
from transforms import exact_json

Handler = Callable[[Request], Awaitable[Response]]

MAX_BODY = 8 * 1024 * 1024
"""Bytes of a request's body, at most."""

BODY_SECONDS = 30.0
"""How long a client may take to send its body."""

_VENDOR = re.compile(r"application/vnd\.elasticsearch\+json\s*;\s*compatible-with\s*=\s*(\d+)")
_BODY_TYPES = ("application/json", "application/vnd.elasticsearch+json")
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(nanos|micros|ms|s|m|h|d)")
_SECONDS = {"nanos": 1e-9, "micros": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class Route(starlette.routing.Route):
    """A path and its handler, without the layers that Starlette puts around one: the guard answers errors."""

    def __init__(self, path: str, handler: Handler, methods: Sequence[str] = ("GET",)) -> None:
        """See `starlette.routing.Route`."""
        super().__init__(path, handler, methods=methods)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            answer = await handler(Request(scope, receive))
            await answer(scope, receive, send)

        self.app = app


class JsonAnswer(Response):
    """An answer whose headers are known: made for each request, so that it must cost little."""

    def __init__(self, content: bytes, status: int, kind: bytes) -> None:
        """Make an answer.

        Args:
            content: the body.
            status: the HTTP status.
            kind: the media type.
        """
        self.body, self.status_code, self.background = content, status, None
        self.raw_headers = [(b"content-type", kind), (b"content-length", str(len(content)).encode())]


def header_of(request: Request, name: bytes) -> str:
    """A header of a request, the first where it is there twice; empty where it is not."""
    for known, value in request.scope["headers"]:
        if known == name:
            return str(value, "latin-1")
    return ""


def as_json(
    request: Request, body: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """An answer in JSON, under the name that the client asked for it by."""
    content = body if isinstance(body, bytes) else _to_bytes(body)
    vendor = _VENDOR.search(header_of(request, b"accept"))
    kind = f"application/vnd.elasticsearch+json;compatible-with={vendor[1]}" if vendor else "application/json"
    answer = JsonAnswer(content, status, kind.encode())
    if headers:
        answer.headers.update(headers)
    return answer


def _to_bytes(body: Any) -> bytes:
    try:
        return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # a document holds a number beyond 64 bits, or half a surrogate pair
        pass
    try:
        return exact_json.dumps(body)
    except TypeError:
        return json.dumps(body, default=str).encode()


def error_answer(request: Request, error: InferenceError) -> Response:
    """An error as the protocol of the path writes it."""
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, Busy) else {}
    body = _openai_error(error) if request.url.path.startswith("/v1/") else error.to_json()
    return as_json(request, body, error.status, headers)


def failed(request: Request, error: Exception) -> Response:
    """What is answered where a handler fails, or there is none."""
    if not isinstance(error, HTTPException):
        return error_answer(request, explained(error))
    reason = error.detail
    if error.status_code in (404, 405):
        reason = f"no handler for [{request.method} {request.url.path}]"
    kind = "illegal_argument_exception"
    answer = error_answer(request, InferenceError(reason, status=error.status_code, type=kind))
    answer.headers.update(error.headers or {})
    return answer


def _openai_error(error: InferenceError) -> dict[str, Any]:
    kind = _OPENAI_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    code = {401: "invalid_api_key", 404: "model_not_found"}.get(error.status)
    return {"error": {"message": error.reason, "type": kind, "param": None, "code": code}}


def explained(error: Exception) -> InferenceError:
    """What a client is told of an error; one that nobody foresaw goes to the log, and the client learns no details."""
    if isinstance(error, InferenceError):
        return error
    if isinstance(error, PipelineError):
        return InferenceError(str(error), status=400, type="illegal_argument_exception")
    log.error("a request failed", exc_info=error)
    return InferenceError(
        "an error that this server does not foresee; its log has the details", type="exception"
    )


async def read_json(request: Request) -> Any:
    """Read a request's body.

    Raises:
        InferenceError: 406, another type than JSON; 413, too large; 408, too slow; 400, not JSON.
    """
    kind = header_of(request, b"content-type").partition(";")[0].strip().lower()
    if kind and kind not in _BODY_TYPES:
        bad_request(f"Content-Type header [{kind}] is not supported", "media_type_header_exception", 406)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await _read(request)
    except TimeoutError:
        body = None
    if body is None:
        bad_request(f"the request body did not arrive within {BODY_SECONDS:.0f} s", status=408)
    if not body.strip():
        bad_request("request body is required", "parse_exception")
    with suppress(orjson.JSONDecodeError):
        return orjson.loads(body)
    try:
        return json.loads(body)  # takes numbers beyond 64 bits, and says what is wrong as Python does
    except (ValueError, RecursionError) as error:
        problem = f"the request body is not JSON: {error}"
    bad_request(problem, "x_content_parse_exception")


async def _read(request: Request) -> bytes:
    content, more = bytearray(), True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            bad_request("the connection was closed before the request was whole")
        content += message.get("body", b"")
        more = message.get("more_body", False)
        if len(content) > MAX_BODY:
            bad_request(
                f"the request body is larger than {MAX_BODY} bytes", "content_too_long_exception", 413
            )
    return bytes(content)


def parameter(request: Request, name: str) -> str | None:
    """A value of the query string; most requests have none."""
    return request.query_params.get(name) if request.scope["query_string"] else None


def flag(request: Request, name: str) -> bool:
    """A boolean of the query string, as Elasticsearch reads it: absent is false, present without a value is true."""
    value = parameter(request, name)
    if value not in (None, "", "true", "false"):
        bad_request(
            f"Failed to parse value [{value}] as only [true] or [false] are allowed.",
            "illegal_argument_exception",
        )
    return value in ("", "true")


def seconds(value: object, default: float) -> float:
    """A time value such as ``5s`` or ``500ms`` in seconds.

    Args:
        value: the text; None takes the default.
        default: seconds.

    Raises:
        InferenceError: 400, it is none.
    """
    if value is None:
        return default
    match = _TIME.fullmatch(str(value).strip().lower())
    if match is None:
        bad_request(
            f"failed to parse setting [timeout] with value [{value}] as a time value: unit is missing or unrecognized",
            "illegal_argument_exception",
        )
    return max(float(match[1]) * _SECONDS[match[2]], 0.001)
