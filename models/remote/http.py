"""HTTP with bounds: deadlines, a cap on the answer's size, retries that wait, no redirects elsewhere, no
leaks.

Errors carry the endpoint, the host and what the service said, with secrets taken out. They are raised
outside the ``except`` blocks, so that the exceptions of the HTTP library, which may quote request headers, are not
even in their context.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore
import httpx
import orjson
import tenacity

from models.endpoints.secrets import Secrets
from models.errors import InferenceError, ModelLoadError, TransientError
from models.remote.protocol import Call
from models.remote.transport import Connections, TooManyBytesError, UnknownEncodingError, read_body

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_SAME_REQUEST = (307, 308)
_UNUSABLE = (401, 403, 404, 405)  # what every request would get: wrong credentials, wrong URL, wrong model
_EXCERPT = 500
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "semantic-ingest"}
_MAX_PARTS = 1 << 17  # JSON objects and arrays of an answer; in memory each is a hundred times its brackets


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient a client is.

    Attributes:
        timeout: seconds for one attempt, from connecting to the last byte.
        attempts: most attempts of one request.
        timeouts: most attempts that may end at the deadline; a service that hangs is not asked forever.
        first_wait: seconds before the first retry; each further wait doubles, give or take half.
        max_wait: longest wait, also where the service asks for more with Retry-After.
        patience: no retry starts later than this many seconds after the first attempt.
    """

    timeout: float = 30.0
    attempts: int = 8
    timeouts: int = 2
    first_wait: float = 0.5
    max_wait: float = 30.0
    patience: float = 180.0


DEFAULT_POLICY = Policy()
"""For a batch job: better late than failed."""

INTERACTIVE_POLICY = Policy(attempts=4)
"""For a person who waits."""


class TooLargeError(InferenceError):
    """The service says that the texts are too long for its model."""


class _RetryLaterError(TransientError):
    """A failure with the time to wait that the service asked for."""

    retry_after = 0.0
    timed_out = False


class HttpClient:
    """Posts JSON to one service for one endpoint. Safe to call from several threads."""

    def __init__(
        self,
        name: str,
        secrets: Secrets,
        policy: Policy,
        acquire: Callable[[], None],
        on_retry: Callable[[], None],
    ) -> None:
        """Open a client.

        Args:
            name: the endpoint's id, for messages.
            secrets: taken out of every message.
            policy: how patient to be.
            acquire: called before each attempt; waits for the rate limit.
            on_retry: called for each retry, for counting.
        """
        self._name, self._secrets, self._policy = name, secrets, policy
        self._acquire, self._on_retry = acquire, on_retry
        logging.getLogger("httpcore").setLevel(logging.WARNING)  # it logs URLs; a parameter may be a secret
        self._connections = Connections(carries_secrets=bool(len(secrets)))

    def post(self, call: Call, max_bytes: int = 1 << 20) -> Any:
        """Post a call and return the JSON of the answer.

        Args:
            call: what to send.
            max_bytes: largest answer to read.

        Raises:
            TransientError: every attempt failed in a way that may pass.
            TooLargeError: the service cannot take texts of this length.
            ModelLoadError: the service refuses every request of this endpoint.
            InferenceError: the service refused the request, or its answer is no JSON.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._may_pass()),
            stop=tenacity.stop_after_attempt(self._policy.attempts)
            | tenacity.stop_before_delay(self._policy.patience),
            wait=self._wait,
            before_sleep=lambda _: self._on_retry(),
            reraise=True,
        )
        return retrying(self._attempt, call, max_bytes)

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def _may_pass(self) -> Callable[[BaseException], bool]:
        timeouts = 0

        def may_pass(error: BaseException) -> bool:
            nonlocal timeouts
            timeouts += isinstance(error, _RetryLaterError) and error.timed_out
            return isinstance(error, TransientError) and timeouts < self._policy.timeouts

        return may_pass

    def _wait(self, state: tenacity.RetryCallState) -> float:
        policy = self._policy
        error = state.outcome.exception() if state.outcome else None
        if getattr(error, "timed_out", False):
            return 0.0  # it has had its time
        jittered = tenacity.wait_random(0.5, 1.5)(state)
        backoff = policy.first_wait * 2 ** (state.attempt_number - 1) * jittered
        return min(policy.max_wait, max(backoff, getattr(error, "retry_after", 0.0)))

    def _attempt(self, call: Call, max_bytes: int) -> Any:
        self._acquire()
        self._secrets = self._secrets.including(call.headers)
        deadline = time.monotonic() + self._policy.timeout
        url = self._full_url(call)
        for _ in range(3):
            status, headers, body = self._exchange(url, call, max_bytes, deadline)
            if status not in _SAME_REQUEST:
                break
            url = self._redirect(url, headers, status)
        return self._answer(url, status, headers, body)

    def _full_url(self, call: Call) -> str:
        """The URL with the parameters of the call after those that it has already."""
        try:
            url = httpx.URL(call.url)
            if url.scheme in ("http", "https") and url.host:
                return str(url.copy_merge_params(list(call.parameters)) if call.parameters else url)
        except (httpx.InvalidURL, UnicodeError):
            pass
        raise self._not_a_url(call.url)

    def _exchange(
        self, url: str, call: Call, max_bytes: int, deadline: float
    ) -> tuple[int, httpx.Headers, bytes]:
        """Send once and read the answer; a transport failure becomes an error of ours."""
        try:
            headers = [
                (name.encode("ascii"), value.encode("ascii"))
                for name, value in {**_HEADERS, **call.headers}.items()
            ]
            # What frames a body, and what came before it, may take as much as the body itself.
            with self._connections.stream(
                httpx.URL(url), headers, call.body, deadline, 2 * max_bytes
            ) as response:
                received = httpx.Headers(response.headers)
                body = read_body(response, received.get("Content-Encoding", ""), max_bytes)
                return response.status, received, body
        except httpcore.TimeoutException:
            failure: InferenceError = self._timeout(url)
        except TooManyBytesError:
            failure = self._error(
                f"{self._answer_of(url)} is larger than {max_bytes} bytes; it was not read further"
            )
        except UnknownEncodingError as error:
            failure = self._error(f"{self._answer_of(url)} cannot be read: {error}")
        except (httpcore.LocalProtocolError, UnicodeError):  # their messages quote the header
            failure = self._error(
                f"A request of inference entity id [{self._name}] cannot be sent: a header holds a"
                " character that HTTP cannot send; check the endpoint's secrets and headers",
                400,
            )
        except (httpx.InvalidURL, httpcore.UnsupportedProtocol):
            failure = self._not_a_url(url)
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.ProxyError, OSError) as error:
            failure = _RetryLaterError(
                self._secrets.redact(
                    f"Failed to send request from inference entity id [{self._name}] to [{_host(url)}]:"
                    f" {type(error).__name__} {error}"[:_EXCERPT]
                ),
                status=502,
            )
        raise failure

    def _answer(self, url: str, status: int, headers: httpx.Headers, body: bytes) -> Any:
        if 200 <= status < 300:
            if body.count(b"[") + body.count(b"{") > _MAX_PARTS:
                raise self._error(f"{self._answer_of(url)} has more than {_MAX_PARTS} objects and arrays")
            try:
                return orjson.loads(body)
            except orjson.JSONDecodeError:
                pass
            raise self._error(f"{self._answer_of(url)} is not complete JSON ({len(body)} bytes)")
        if 300 <= status < 400:
            self._redirect(url, headers, status)
        said = self._secrets.redact(_error_message(body)[: 64 * _EXCERPT])[:_EXCERPT]
        reason = (
            f"{_category(status)} for request from inference entity id [{self._name}] status [{status}]. "
            + (f"Error message: [{said}]")
        )
        if status in RETRIED:
            failure = _RetryLaterError(reason, status=status)
            failure.retry_after = _retry_after(headers.get("Retry-After"))
            raise failure
        if status == 413 or (status in (400, 422) and _is_too_large(said)):
            raise TooLargeError(reason, status=status)
        if status in _UNUSABLE:
            raise ModelLoadError(reason, status=status)
        raise self._error(reason, status)

    def _redirect(self, url: str, headers: httpx.Headers, status: int) -> str:
        """Follow a redirect within the same origin; credentials and texts go nowhere else."""
        target = urljoin(url, headers.get("Location", ""))
        if status in _SAME_REQUEST and _origin(target) == _origin(url):
            return target
        raise self._error(
            f"Unhandled redirection for request from inference entity id [{self._name}] status [{status}]:"
            f" [{_host(url)}] points to [{_host(target)}]; name the service's own URL in the endpoint",
            502,
        )

    def _timeout(self, url: str) -> TransientError:
        failure = _RetryLaterError(
            f"[{_host(url)}] did not answer inference entity id [{self._name}] within"
            f" {self._policy.timeout:g} s",
            status=504,
        )
        failure.timed_out = True
        return failure

    def _error(self, reason: str, status: int = 502) -> InferenceError:
        return InferenceError(self._secrets.redact(reason), status=status)

    def _answer_of(self, url: str) -> str:
        return f"The answer of [{_host(url)}] for inference entity id [{self._name}]"

    def _not_a_url(self, url: str) -> InferenceError:
        return self._error(f"[{self._shown(url)}] is not an http or https URL; correct the endpoint", 400)

    def _shown(self, url: str) -> str:
        return self._secrets.redact(url.split("?")[0])


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2] or "?"
    except ValueError:
        return "?"


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", None, None


def _category(status: int) -> str:
    if status == 429:
        return "Received a rate limit status code"
    if status in (401, 403):
        return "Received an authentication error status code"
    if status == 413:
        return "Received a content too large status code"
    return "Received a server error status code" if status >= 500 else "Received an unsuccessful status code"


def _error_message(body: bytes) -> str:
    """The message of an error body in one of the usual shapes, else its text."""
    text = body[: 64 * _EXCERPT].decode("utf-8", "replace")
    if body.count(b"[") + body.count(b"{") > _MAX_PARTS:
        return text
    try:
        error = orjson.loads(body)
    except orjson.JSONDecodeError:
        return text
    for key in ("error", "message", "detail", "reason", "msg"):
        while isinstance(error, dict) and key in error:
            error = error[key]
    return error if isinstance(error, str) else orjson.dumps(error).decode()


_TOO_LARGE = (
    "maximum context length",
    "context length",
    "reduce your prompt",
    "reduce the length",
    "too large",
    "too long",
    "too many tokens",
    "must have less than",
    "maximum allowed length",
    "max input length",
    "exceeds the maximum",
    "token limit",
)


def _is_too_large(message: str) -> bool:
    lowered = message.lower()
    return any(phrase in lowered for phrase in _TOO_LARGE)


def _retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks for: a number, or a date."""
    if not value:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0
