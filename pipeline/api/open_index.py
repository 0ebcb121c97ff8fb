"""An index, open for searching."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.api.frame import Frame
from pipeline.search.hits.hit import Hit
from pipeline.search.open_index import SearchIndex
from pipeline.search.search import search_many


class OpenIndex:
    """An index, open for searching; it stays at the state in which it was opened."""

    def __init__(self, path: str) -> None:
        """Open an index folder."""
        self.raw = SearchIndex(path)

    def __len__(self) -> int:
        """Number of documents that can be found."""
        return len(self.raw)

    @property
    def table_version(self) -> int:
        """The version of the table that the index shows."""
        return int(self.raw.state.table["version"])

    @property
    def fields(self) -> Sequence[str]:
        """Fields that can be searched."""
        return self.raw.text_fields()

    def search(self, query: str, **options: Any) -> Frame:
        """Find documents; one row a hit.

        Args:
            query: what to look for.
            **options: as in `pipeline.search.search.SearchOptions`: mode, field, k, filter, fusion, weights, pruning,
                chunks, neighbours, min_score, rerank, depth.
        """
        return self.search_many([query], **options)

    def search_many(self, queries: Sequence[str], **options: Any) -> Frame:
        """Find documents for several queries; one row a hit, with the query and its rank."""
        rows = []
        for query, hits in zip(queries, search_many(self.raw, queries, **options), strict=True):
            rows += [_row(query, rank, hit) for rank, hit in enumerate(hits, 1)]
        return Frame(pa.Table.from_pylist(rows, _HITS))


_AROUND = [
    ("field", pa.string()),
    ("start_offset", pa.int32()),
    ("end_offset", pa.int32()),
    ("text", pa.string()),
]
_CHUNK = pa.struct(_AROUND)
_CHUNK_HIT = pa.struct(
    [("score", pa.float64()), *_AROUND, ("before", pa.list_(_CHUNK)), ("after", pa.list_(_CHUNK))]
)
_HITS = pa.schema(
    [
        ("query", pa.string()),
        ("rank", pa.int32()),
        ("_id", pa.string()),
        ("score", pa.float64()),
        ("field", pa.string()),
        ("start_offset", pa.int32()),
        ("end_offset", pa.int32()),
        ("text", pa.string()),
        ("chunks", pa.list_(_CHUNK_HIT)),
        ("retrieved_rank", pa.int32()),
    ]
)


def _row(query: str, rank: int, hit: Hit) -> dict[str, Any]:
    chunk = hit.chunk
    place = {"field": chunk.field, "start_offset": chunk.start_offset, "end_offset": chunk.end_offset}
    return {
        "query": query,
        "rank": rank,
        "_id": hit.id,
        "score": hit.score,
        **place,
        "text": chunk.text,
        "chunks": [one.to_json() for one in hit.chunks],
        "retrieved_rank": None if hit.retrieved is None else hit.retrieved.rank,
    }


def open_index(path: str) -> OpenIndex:
    """Open an index for searching; see `OpenIndex`."""
    return OpenIndex(path)


def search(index: OpenIndex | str, query: str, **options: Any) -> Frame:
    """Find documents in an index, or in the folder of one; see `OpenIndex.search`."""
    return (open_index(index) if isinstance(index, str) else index).search(query, **options)
