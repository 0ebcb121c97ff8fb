"""Chunks in OpenSearch: `knn_vector` and `rank_features`, with its own client."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from pipeline.errors import PipelineError
from pipeline.exchange.chunks import ChunkSchema, Vocabulary, python_rows
from pipeline.exchange.engines.load import ChunkState

SPACES = {"cosine": "cosinesimil", "dot_product": "innerproduct", "l2_norm": "l2"}


class OpenSearchChunks:
    """One index; see `pipeline.exchange.engines.load.ChunkTarget`."""

    def __init__(self, url: str, name: str) -> None:
        try:
            from opensearchpy import OpenSearch
        except ImportError:
            raise PipelineError(
                "loading into OpenSearch needs its client: pip install 'semantic-ingest[opensearch]'"
            ) from None
        self._client = OpenSearch(url, timeout=120, max_retries=5, retry_on_status=(429, 502, 503, 504))
        self._name = name

    def state(self) -> ChunkState | None:
        """What the index remembers."""
        if not self._client.indices.exists(index=self._name):
            return None
        ((_, found),) = self._client.indices.get_mapping(index=self._name).items()
        remembered = found["mappings"].get("_meta", {}).get("semantic_ingest")
        if remembered is None:
            raise PipelineError(f"the index [{self._name}] was not made by a load; name a new one")
        return ChunkState(**remembered)

    def create(self, schemas: Sequence[ChunkSchema]) -> None:
        """Make the index."""
        keyword, integer = {"type": "keyword"}, {"type": "integer"}
        properties: dict[str, Any] = {
            **dict.fromkeys(("document_id", "field", "source_field"), keyword),
            **dict.fromkeys(("start_offset", "end_offset", "start_code_point", "end_code_point"), integer),
            "text": {"type": "text"},
        }
        for name, kind in schemas[0].plain.items():
            # The only type that it would not find out by itself: it takes every whole number for a long.
            if pa.types.is_decimal(kind.value_type if pa.types.is_list(kind) else kind):
                properties[name] = {"type": "unsigned_long"}
        for schema in schemas:
            if schema.is_sparse:
                properties[f"{schema.field}_tokens"] = {"type": "rank_features"}
            else:
                properties[f"{schema.field}_embedding"] = _vector(schema)
        body = {"settings": {"index": {"knn": True}}, "mappings": {"properties": properties}}
        self._client.indices.create(index=self._name, body=body)

    def remember(self, state: ChunkState) -> None:
        """Keep the state in the mapping."""
        body = {"_meta": {"semantic_ingest": state.to_json()}}
        self._client.indices.put_mapping(index=self._name, body=body)

    def tokens(self) -> list[str]:
        """Tokens go by name here."""
        return []

    def add_tokens(self, first: int, tokens: Sequence[str]) -> None:
        """Tokens go by name here."""

    def upsert(self, batch: pa.RecordBatch, schema: ChunkSchema, vocabulary: Vocabulary) -> None:
        """Write chunks."""
        from opensearchpy.helpers import bulk

        _, errors = bulk(
            self._client,
            self._actions(batch, schema, vocabulary),
            max_chunk_bytes=10_000_000,
            raise_on_error=False,
        )
        if isinstance(errors, list) and errors:
            raise PipelineError(f"OpenSearch refuses {len(errors)} chunks; the first: {str(errors[0])[:500]}")

    def _actions(
        self, batch: pa.RecordBatch, schema: ChunkSchema, vocabulary: Vocabulary
    ) -> Iterator[dict[str, Any]]:
        for row in python_rows(batch):
            numbers, weights = row.pop("token_ids", None), row.pop("weights", None)
            if schema.is_sparse:
                # A dot would mean an object; two underscores are what ELSER's tokens have in its place.
                names = (vocabulary.tokens[number].replace(".", "__") for number in numbers)
                row[f"{schema.field}_tokens"] = dict(zip(names, weights, strict=True))
            else:
                row[f"{schema.field}_embedding"] = row.pop("embedding")
            source = {"document_id": row.pop("_id"), **row}
            yield {"_index": self._name, "_id": source.pop("chunk_id"), "_source": source}

    def keep_only(self, documents: Sequence[str], chunks: Sequence[str]) -> None:
        """Delete the other chunks of some documents."""
        self._client.indices.refresh(index=self._name)
        query = {
            "bool": {
                "filter": {"terms": {"document_id": list(documents)}},
                "must_not": {"ids": {"values": list(chunks)}},
            }
        }
        self._client.delete_by_query(index=self._name, body={"query": query}, params={"conflicts": "proceed"})

    def count(self) -> int:
        """Number of chunks."""
        self._client.indices.refresh(index=self._name)
        return int(self._client.count(index=self._name)["count"])


def _vector(schema: ChunkSchema) -> dict[str, Any]:
    method = {"name": "hnsw", "engine": "lucene", "space_type": SPACES[str(schema.similarity)]}
    vector = {"type": "knn_vector", "dimension": schema.size, "method": method}
    return vector if schema.kind == "float" else {**vector, "data_type": "byte"}
