"""Dense chunks in LanceDB, with its own client. It has no sparse vectors, so sparse fields are refused."""

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.errors import PipelineError
from pipeline.exchange.chunks import ChunkSchema, Vocabulary
from pipeline.exchange.engines.load import ChunkState


class LanceChunks:
    """One table, and beside it ``NAME_state``; see `pipeline.exchange.engines.load.ChunkTarget`."""

    def __init__(self, path: str, name: str) -> None:
        try:
            import lancedb
        except ImportError:
            raise PipelineError(
                "loading into LanceDB needs its client: pip install 'semantic-ingest[lancedb]'"
            ) from None
        self._database = lancedb.connect(path)
        self._name, self._state = name, f"{name}_state"

    def _exists(self, name: str) -> bool:
        try:
            self._database.open_table(name)
        except (ValueError, FileNotFoundError):
            return False
        return True

    def state(self) -> ChunkState | None:
        """What the table remembers."""
        if not self._exists(self._state):
            if self._exists(self._name):
                raise PipelineError(f"the table [{self._name}] was not made by a load; name a new one")
            return None
        (row,) = self._database.open_table(self._state).to_arrow().to_pylist()
        return ChunkState(**json.loads(row["state"]))

    def create(self, schemas: Sequence[ChunkSchema]) -> None:
        """Make the table."""
        sparse = [schema.field for schema in schemas if schema.is_sparse]
        if sparse or len(schemas) != 1:
            raise PipelineError(
                "a LanceDB table holds the vectors of one dense field; choose it with --field"
                + (f" ([{sparse[0]}] is sparse)" if sparse else "")
            )
        self._database.create_table(self._name, schema=schemas[0].to_arrow(), mode="overwrite")

    def remember(self, state: ChunkState) -> None:
        """Keep the state in the table beside it."""
        rows = pa.table({"state": [json.dumps(state.to_json())]})
        self._database.create_table(self._state, rows, mode="overwrite")

    def tokens(self) -> list[str]:
        """There are no tokens."""
        return []

    def add_tokens(self, first: int, tokens: Sequence[str]) -> None:
        """There are no tokens."""

    def upsert(self, batch: pa.RecordBatch, schema: ChunkSchema, vocabulary: Vocabulary) -> None:
        """Write chunks."""
        merge: Any = self._database.open_table(self._name).merge_insert("chunk_id")
        merge.when_matched_update_all().when_not_matched_insert_all().execute(pa.Table.from_batches([batch]))

    def keep_only(self, documents: Sequence[str], chunks: Sequence[str]) -> None:
        """Delete the other chunks of some documents."""
        where = f"_id IN ({_quoted(documents)})"
        if chunks:
            where += f" AND chunk_id NOT IN ({_quoted(chunks)})"
        self._database.open_table(self._name).delete(where)

    def count(self) -> int:
        """Number of chunks."""
        return int(self._database.open_table(self._name).count_rows())


def _quoted(values: Sequence[str]) -> str:
    """Values as SQL strings; an id may hold any character."""
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)
