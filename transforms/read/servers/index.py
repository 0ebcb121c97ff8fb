"""Documents of an Elasticsearch index: their `_source`, through a point in time, or by id."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from transforms.read.rows.readers import Row, SourceFormat
from transforms.read.servers.connection import Connection, failures_of, in_batches, missing_extra, secret
from transforms.records import Piece

HITS_AT_ONCE = 500
KEEP_ALIVE = "5m"


def index_rows(piece: Piece, source: SourceFormat) -> Iterator[Row]:
    """The documents of the piece's slice of the index, as they are at one point in time."""
    index = _connection(source)
    with _client(index) as client:
        vectors = _with_vectors(client, index)
        opened = client.open_point_in_time(index=index.index, keep_alive=KEEP_ALIVE)["id"]
        number, after = 0, None
        try:
            while True:
                page = client.search(
                    pit={"id": opened, "keep_alive": KEEP_ALIVE},
                    query=orjson.loads(index.query) if index.query else {"match_all": {}},
                    sort=["_shard_doc"],
                    size=HITS_AT_ONCE,
                    track_total_hits=False,
                    **vectors,
                    **({"slice": {"id": piece.start, "max": piece.end}} if piece.end > 1 else {}),
                    **({"search_after": after} if after is not None else {}),
                )
                opened = page.get("pit_id", opened)
                hits = page["hits"]["hits"]
                for hit in hits:
                    yield number, _fields(hit)
                    number += 1
                if len(hits) < HITS_AT_ONCE:
                    return
                after = hits[-1]["sort"]
        finally:
            client.close_point_in_time(id=opened)


def fetch_hits(piece: Piece, source: SourceFormat, ids: list[str]) -> Iterator[Row]:
    """The documents of some ids, in any order."""
    index = _connection(source)
    with _client(index) as client:
        vectors = _with_vectors(client, index)
        for batch in in_batches(ids):
            query = {"ids": {"values": batch}}
            page = client.search(index=index.index, query=query, size=len(batch), **vectors)
            for number, hit in enumerate(page["hits"]["hits"]):
                yield number, _fields(hit)


def check_index(source: SourceFormat) -> None:
    """Look whether the index is there.

    Raises:
        ConnectionFailed: it is not, or the cluster cannot be reached.
    """
    index = _connection(source)
    with _client(index) as client:
        client.search(index=index.index, size=0)


def _connection(source: SourceFormat) -> Connection:
    assert source.connection is not None
    return source.connection


@contextmanager
def _client(index: Connection) -> Iterator[Any]:
    try:
        import elasticsearch
    except ImportError:
        raise missing_extra("elasticsearch", "elasticsearch") from None
    key = secret(index.api_key) if index.api_key else None
    errors = (elasticsearch.ApiError, elasticsearch.TransportError, ValueError)
    with failures_of(f"source [{index.index}]", *errors):
        client = elasticsearch.Elasticsearch(
            secret(index.url), api_key=key, request_timeout=60, max_retries=3
        )
        with client:
            yield client


def _fields(hit: dict[str, Any]) -> dict[str, Any]:
    """A document's fields, with what inference has stored of them."""
    fields = dict(hit.get("_source") or {})
    # Before 9.2 it is a field of its own, a list of one.
    for stored in hit.get("fields", {}).get("_inference_fields", [])[:1]:
        fields.setdefault("_inference_fields", stored)
    return {"_id": hit["_id"], **fields}


def _with_vectors(client: Any, index: Connection) -> dict[str, Any]:
    """What asks for stored vectors too: since 9.2 `_source` hides them, before they are a field to ask for."""
    import elasticsearch

    asked = {"source": {"exclude_vectors": False}}
    try:
        client.search(index=index.index, size=0, **asked)
    except elasticsearch.BadRequestError:
        return {"fields": ["_inference_fields"]}
    return asked
