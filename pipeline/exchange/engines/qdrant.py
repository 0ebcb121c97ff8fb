"""Chunks in Qdrant: named dense and sparse vectors, with its own client."""

import uuid
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.errors import PipelineError
from pipeline.exchange.chunks import ChunkSchema, Vocabulary, python_rows
from pipeline.exchange.engines.load import ChunkState, groups

DISTANCES = {"cosine": "Cosine", "dot_product": "Dot", "l2_norm": "Euclid"}
POINTS = 256
"""Points in one request."""


class QdrantChunks:
    """One collection, and beside it ``NAME_tokens``: what the numbers of tokens mean, and the state.

    See `pipeline.exchange.engines.load.ChunkTarget`.
    """

    def __init__(self, url: str, name: str, api_key: str | None = None) -> None:
        try:
            from qdrant_client import QdrantClient
        except ImportError:
            raise PipelineError(
                "loading into Qdrant needs its client: pip install 'semantic-ingest[qdrant]'"
            ) from None
        # Without a scheme it is a folder: Qdrant's local mode.
        self._client = QdrantClient(url=url, api_key=api_key) if "://" in url else QdrantClient(path=url)
        self._name, self._tokens = name, f"{name}_tokens"

    def close(self) -> None:
        """Let go of the folder of a local Qdrant."""
        self._client.close()

    def state(self) -> ChunkState | None:
        """What the collection remembers."""
        if not self._client.collection_exists(self._tokens):
            if self._client.collection_exists(self._name):
                raise PipelineError(f"the collection [{self._name}] was not made by a load; name a new one")
            return None
        found = self._client.retrieve(self._tokens, [0])
        return ChunkState(**found[0].payload["state"]) if found and found[0].payload else None

    def create(self, schemas: Sequence[ChunkSchema]) -> None:
        """Make the two collections."""
        from qdrant_client import models

        for name in (self._name, self._tokens):
            self._client.delete_collection(name)
        dense = {
            schema.field: models.VectorParams(
                size=schema.size or 0, distance=models.Distance(DISTANCES[similarity])
            )
            for schema in schemas
            if (similarity := schema.similarity) is not None
        }
        sparse = {schema.field: models.SparseVectorParams() for schema in schemas if schema.is_sparse}
        self._client.create_collection(self._name, vectors_config=dense, sparse_vectors_config=sparse)
        self._client.create_collection(self._tokens, vectors_config={})

    def remember(self, state: ChunkState) -> None:
        """Keep the state as point 0 of the tokens."""
        self._put(self._tokens, [(0, {}, {"state": state.to_json()})])

    def tokens(self) -> list[str]:
        """The vocabulary."""
        found: dict[int, str] = {}
        offset: Any = None
        while True:
            points, offset = self._client.scroll(self._tokens, limit=10_000, offset=offset)
            found |= {
                int(str(point.id)) - 1: (point.payload or {})["token"] for point in points if point.id != 0
            }
            if offset is None:
                return [found[number] for number in range(len(found))]

    def add_tokens(self, first: int, tokens: Sequence[str]) -> None:
        """Append to the vocabulary; token N is point N + 1."""
        self._put(self._tokens, [(first + at + 1, {}, {"token": token}) for at, token in enumerate(tokens)])

    def upsert(self, batch: pa.RecordBatch, schema: ChunkSchema, vocabulary: Vocabulary) -> None:
        """Write chunks."""
        from qdrant_client import models

        points: list[tuple[Any, Any, dict[str, Any]]] = []
        for row in python_rows(batch):
            vector: Any = row.pop("embedding", None)
            if schema.is_sparse:
                vector = models.SparseVector(indices=row.pop("token_ids"), values=row.pop("weights"))
            points.append((str(uuid.UUID(row.pop("chunk_id"))), {schema.field: vector}, row))
        self._put(self._name, points)

    def _put(self, collection: str, points: Sequence[tuple[Any, Any, dict[str, Any]]]) -> None:
        from qdrant_client import models

        for group in groups(points, POINTS):
            structs = [
                models.PointStruct(id=id_, vector=vector, payload=payload) for id_, vector, payload in group
            ]
            self._client.upsert(collection, structs, wait=True)

    def keep_only(self, documents: Sequence[str], chunks: Sequence[str]) -> None:
        """Delete the other chunks of some documents."""
        from qdrant_client import models

        of_documents = models.FieldCondition(key="_id", match=models.MatchAny(any=list(documents)))
        kept: list[Any] = [models.HasIdCondition(has_id=list(chunks))] if chunks else []
        chosen = models.FilterSelector(filter=models.Filter(must=[of_documents], must_not=kept))
        self._client.delete(self._name, chosen, wait=True)

    def count(self) -> int:
        """Number of chunks."""
        return int(self._client.count(self._name, exact=True).count)
