"""What a protocol is: how texts become a request of one service, and how its answer becomes embeddings."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from models.embeddings import InputType
from models.errors import InferenceError

Vectors = Sequence[Sequence[float]] | Sequence[Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Call:
    """One POST.

    Attributes:
        url: where it goes; built from the definition only, never from a text.
        body: what is sent.
        headers: its headers, credentials included; never shown.
        parameters: its query parameters.
    """

    url: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    parameters: Sequence[tuple[str, str]] = ()


Settings = Mapping[str, Any]

Send = Callable[[Call], Any]
"""Posts a call and returns the JSON that came back."""


class RemoteProtocol(Protocol):
    """One service's requests and answers.

    Each module of `models.remote.protocols` has a function ``open_protocol(endpoint, secrets, send)`` that returns one;
    `send` is for requests of its own, such as fetching a token.

    Attributes:
        batch: most texts of one request; None is the service's own number.
    """

    batch: int | None = None

    def call(self, texts: Sequence[str], input_type: InputType) -> Call:
        """Build the request that embeds `texts`."""
        ...

    def parse(self, answer: Any) -> Vectors:
        """Take the embeddings out of an answer, in the order of the texts.

        Raises:
            KeyError, TypeError, IndexError, ValueError, AttributeError: the answer has another shape.
        """
        ...


class RerankProtocol(Protocol):
    """One service's requests and answers about the relevance of texts."""

    def call(self, query: str, texts: Sequence[str]) -> Call:
        """Build the request that ranks `texts`."""
        ...

    def parse(self, answer: Any) -> Sequence[tuple[int, float]]:
        """Take the position and the score of each text out of an answer, in any order.

        Raises:
            KeyError, TypeError, IndexError, ValueError, AttributeError: the answer has another shape.
        """
        ...


def json_call(
    url: str, body: Any, headers: Mapping[str, str], parameters: Sequence[tuple[str, str]] = ()
) -> Call:
    """Build a call with a JSON body."""
    return Call(url, orjson.dumps(body), {"Content-Type": "application/json", **headers}, parameters)


def in_order(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The embeddings of an answer in the order of the texts; where they have no ``index``, as they stand.

    Raises:
        ValueError: several have one index, or one is missing: nobody knows whose they are.
    """
    if not all("index" in row for row in rows):
        return rows
    if sorted(row["index"] for row in rows) != list(range(len(rows))):
        raise ValueError("the embeddings are not numbered from 0 on, so nobody knows whose they are")
    return sorted(rows, key=lambda row: int(row["index"]))


def bearer(token: str) -> dict[str, str]:
    """The header that carries a bearer token."""
    return {"Authorization": f"Bearer {token}"}


def without_none(body: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the settings that are not set."""
    return {key: value for key, value in body.items() if value is not None}


def host_part(name: str, value: str) -> str:
    """Return a setting that becomes part of a host name, once it is sure that it is only that.

    Raises:
        InferenceError: it holds anything but letters, digits and hyphens.
    """
    if not re.fullmatch(r"[A-Za-z0-9-]+", value):
        raise InferenceError(
            f"[service_settings] Invalid value [{value}]. [{name}] becomes part of a host name and can hold"
            " only letters, digits and hyphens",
            status=400,
            type="illegal_argument_exception",
        )
    return value
