"""Sources that are no files: a database, an index. Their documents are found again by id, not by line."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from models.endpoints.secrets import is_reference, resolve
from models.errors import InferenceError

IDS_AT_ONCE = 500
"""Documents that are asked for by id in one request."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a source that is no file is, as it reaches the workers: references to secrets, never secrets.

    Attributes:
        url: SQLAlchemy's URL of a database, or a cluster's; may be a reference to a secret, ``env:NAME``.
        table: name of a database table.
        query: an SQL statement in its place; for an index Elasticsearch's query as JSON.
        updated_at: column that changes whenever a row does.
        deleted: column that marks a row as deleted.
        index: index, alias or data stream.
        api_key: reference to an API key.
    """

    url: str
    table: str | None = None
    query: str | None = None
    updated_at: str | None = None
    deleted: str | None = None
    index: str | None = None
    api_key: str | None = None

    @property
    def name(self) -> str:
        """What to call it; never holds a secret."""
        return self.table or self.index or "query"


class ConnectionFailed(OSError):
    """A database or cluster cannot be reached, or refuses."""


def secret(reference: str) -> str:
    """The value behind a reference.

    Raises:
        ConnectionFailed: it is not set.
    """
    if not is_reference(reference):
        return reference
    try:
        return resolve({"value": reference}, None)["value"]
    except InferenceError as error:
        raise ConnectionFailed(str(error)) from None


def version_hash(document_id: str, version: object) -> str:
    """A content hash of which row it is and when it changed, for sources that say so."""
    content = f"{document_id}\0{version!r}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=16).hexdigest()


@contextmanager
def failures_of(what: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn a client's errors into one of ours, without the secrets that a URL may hold."""
    try:
        yield
    except kinds as error:
        said = str(getattr(error, "orig", None) or error).strip().splitlines()
        raise ConnectionFailed(f"{what}: {said[0] if said else type(error).__name__}") from None


def in_batches(ids: list[str]) -> Iterator[list[str]]:
    """Cut a list of ids into pieces."""
    for start in range(0, len(ids), IDS_AT_ONCE):
        yield ids[start : start + IDS_AT_ONCE]


def missing_extra(name: str, extra: str) -> ConnectionFailed:
    """The error for a client that is not installed."""
    return ConnectionFailed(
        f"source.format [{name}] needs the extra `{extra}`: pip install 'semantic-ingest[{extra}]'"
    )
