"""Connections with bounds: a deadline and a number of bytes that hold in every phase of an exchange.

Resolving proxies, connecting, TLS, sending, waiting, status lines, headers, chunk sizes and body all read and write
through one `_BoundedStream`, so a peer that drips bytes, or sends without end, meets the same bounds wherever it does.
"""

import ipaddress
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from models.errors import ModelLoadError

_SENT_AT_ONCE = 1 << 16
_CONNECT_SECONDS = 10.0


class TooManyBytesError(Exception):
    """A peer sent more than the exchange may have."""


class UnknownEncodingError(Exception):
    """A body is encoded in a way that was not asked for, or not as it says."""


class _Budget(threading.local):
    """What is left of the exchange that this thread is in."""

    deadline = 0.0
    bytes_left = 0

    def seconds(self, limit: float | None = None) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the deadline of the exchange has passed")
        return left if limit is None else min(left, limit)

    def spend(self, count: int) -> None:
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise TooManyBytesError


class _BoundedStream(httpcore.NetworkStream):
    """A connection whose every read and write ends with the budget."""

    def __init__(self, inner: httpcore.NetworkStream, budget: _Budget) -> None:
        self._inner, self._budget = inner, budget

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._inner.read(max_bytes, self._budget.seconds(timeout))
        self._budget.spend(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # In pieces, each with what is left of the time: a peer may take them in one by one.
        for start in range(0, len(buffer), _SENT_AT_ONCE):
            self._inner.write(buffer[start : start + _SENT_AT_ONCE], self._budget.seconds(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        inner = self._inner.start_tls(ssl_context, server_hostname, self._budget.seconds(timeout))
        return _BoundedStream(inner, self._budget)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _BoundedBackend(httpcore.NetworkBackend):
    """Opens connections within the budget."""

    def __init__(self, budget: _Budget) -> None:
        self._inner, self._budget = httpcore.SyncBackend(), budget

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        limit = self._budget.seconds(min(timeout or _CONNECT_SECONDS, _CONNECT_SECONDS))
        stream = self._inner.connect_tcp(host, port, limit, local_address, socket_options)
        return _BoundedStream(stream, self._budget)

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class Connections:
    """Connections to services, directly or through the proxies of the environment. Safe for several threads."""

    def __init__(self, *, carries_secrets: bool) -> None:
        """Open nothing yet.

        Args:
            carries_secrets: whether requests hold credentials, which no proxy may read.
        """
        self._carries_secrets = carries_secrets
        self._budget = _Budget()
        self._lock = threading.Lock()
        self._pools: dict[str | None, httpcore.ConnectionPool] = {}

    @contextmanager
    def stream(
        self, url: httpx.URL, headers: list[tuple[bytes, bytes]], body: bytes, deadline: float, max_bytes: int
    ) -> Iterator[httpcore.Response]:
        """Post a body and give the response while its body is still to be read.

        Args:
            url: where to.
            headers: the request's headers; host and length are added.
            body: what to send.
            deadline: moment of `time.monotonic` at which the exchange ends, whatever phase it is in.
            max_bytes: most bytes that the peer may send, headers and framing included.

        Raises:
            TooManyBytesError: the peer sent more.
            ModelLoadError: the environment names a proxy that cannot be used.
        """
        self._budget.deadline, self._budget.bytes_left = deadline, max_bytes
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        timeout = {"pool": self._budget.seconds()}
        pool = self._pool(self._proxy_of(url))
        with pool.stream(
            "POST", target, headers=headers, content=body, extensions={"timeout": timeout}
        ) as response:
            yield response

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for pool in self._pools.values():
                pool.close()
            self._pools.clear()

    def _pool(self, proxy: str | None) -> httpcore.ConnectionPool:
        with self._lock:
            if proxy not in self._pools:
                backend = _BoundedBackend(self._budget)
                context = httpx.create_ssl_context()
                if proxy is None:
                    self._pools[proxy] = httpcore.ConnectionPool(context, network_backend=backend)
                else:
                    self._pools[proxy] = _proxy_pool(proxy, context, backend)
            return self._pools[proxy]

    def _proxy_of(self, url: httpx.URL) -> str | None:
        """The proxy that the environment names for a URL: HTTPS_PROXY, HTTP_PROXY or ALL_PROXY, but for NO_PROXY."""
        proxies = getproxies()
        name = url.scheme if url.scheme in proxies else "all"
        proxy = proxies.get(name)
        if not proxy or _is_loopback(url.host) or proxy_bypass(url.host):
            return None
        variable = f"{name.upper()}_PROXY"
        proxy = proxy if "://" in proxy else f"http://{proxy}"
        if not _is_proxy(proxy):
            raise ModelLoadError(
                f"the environment variable {variable} is not the http or https URL of a proxy, such as"
                " http://proxy.example:3128; correct it, or name the service's host in NO_PROXY",
                status=400,
            )
        if url.scheme == "http" and self._carries_secrets:
            raise ModelLoadError(
                f"the proxy of {variable} could read the secrets of a request to"
                f" [{url.host}], which goes over plain http; use the service's https URL, or name its host in NO_PROXY",
                status=400,
            )
        return proxy


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_proxy(proxy: str) -> bool:
    try:
        parts = urlsplit(proxy)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _proxy_pool(proxy: str, context: Any, backend: httpcore.NetworkBackend) -> httpcore.HTTPProxy:
    parts = urlsplit(proxy)
    auth = None
    if parts.username is not None:
        auth = (unquote(parts.username).encode(), unquote(parts.password or "").encode())
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    address = httpcore.URL(
        scheme=parts.scheme.encode(), host=(parts.hostname or "").encode("idna"), port=port, target=b"/"
    )
    secure = httpx.create_ssl_context() if parts.scheme == "https" else None
    return httpcore.HTTPProxy(
        address,
        proxy_auth=auth,
        ssl_context=context,
        proxy_ssl_context=secure,
        network_backend=backend,
    )


def read_body(response: httpcore.Response, encoding: str, max_bytes: int) -> bytes:
    """Read and unpack a body.

    Args:
        response: the response.
        encoding: its ``Content-Encoding``.
        max_bytes: most bytes to unpack.

    Raises:
        TooManyBytesError: there are more.
        UnknownEncodingError: it is encoded in another way than gzip, or several times.
    """
    encoding = encoding.strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise UnknownEncodingError(f"its Content-Encoding is [{encoding[:40]}], which was not asked for")
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 16) if "gzip" in encoding else None
    body = bytearray()
    try:
        for part in response.iter_stream():
            # Never more than one byte too many, however far a few bytes would expand.
            body += part if unpack is None else unpack.decompress(part, max_bytes + 1 - len(body))
            if len(body) > max_bytes:
                raise TooManyBytesError
    except zlib.error:
        raise UnknownEncodingError("its Content-Encoding is gzip, and its body is not") from None
    return bytes(body)
