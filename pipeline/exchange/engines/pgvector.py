"""Chunks in PostgreSQL with pgvector: `vector` and `sparsevec`, with psycopg."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, LiteralString

import pyarrow as pa

from pipeline.errors import PipelineError
from pipeline.exchange.chunks import ChunkSchema, Vocabulary
from pipeline.exchange.engines.load import ChunkState

if TYPE_CHECKING:
    from psycopg.sql import Composed

SPARSE_DIMENSIONS = 1_000_000_000
"""Room for tokens; pgvector only asks for a number above the highest."""

_COLUMNS = (
    "chunk_id uuid PRIMARY KEY, _id text NOT NULL, field text NOT NULL, source_field text, start_offset int, "
)
_COLUMNS += "end_offset int, start_code_point int, end_code_point int, text text"
_TYPES: dict[str, LiteralString] = {
    "int": "bigint",
    "float": "double precision",
    "double": "double precision",
    "bool": "boolean",
    "decimal": "numeric",
}


class PostgresChunks:
    """One table, and beside it ``NAME_tokens`` and ``NAME_state``; see `pipeline.exchange.engines.load.ChunkTarget`."""

    def __init__(self, url: str, name: str) -> None:
        try:
            import psycopg
        except ImportError:
            raise PipelineError(
                "loading into PostgreSQL needs psycopg: pip install 'semantic-ingest[pgvector]'"
            ) from None
        # Poolers between us and the server know nothing of prepared statements.
        self._connection = psycopg.connect(url, autocommit=True, prepare_threshold=None)
        self._name = name

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _sql(self, text: LiteralString, **names: Any) -> "Composed":
        """A statement with the names of our tables, and of columns, as identifiers."""
        from psycopg import sql

        tables = {"chunks": self._name, "tokens": f"{self._name}_tokens", "state": f"{self._name}_state"}
        return sql.SQL(text).format(**{key: sql.Identifier(name) for key, name in tables.items()}, **names)

    def _exists(self, name: str) -> bool:
        found = self._connection.execute("SELECT to_regclass(quote_ident(%s))", [name]).fetchone()
        return found is not None and found[0] is not None

    def state(self) -> ChunkState | None:
        """What the table remembers."""
        if not self._exists(f"{self._name}_state"):
            if self._exists(self._name):
                raise PipelineError(f"the table [{self._name}] was not made by a load; name a new one")
            return None
        found = self._connection.execute(self._sql("SELECT value FROM {state}")).fetchone()
        return None if found is None else ChunkState(**found[0])

    def create(self, schemas: Sequence[ChunkSchema]) -> None:
        """Make the tables."""
        from psycopg import sql

        columns: list[Any] = [sql.SQL(_COLUMNS)]
        for name, kind in schemas[0].plain.items():
            columns.append(sql.SQL("{} " + _type(kind)).format(sql.Identifier(name)))
        for schema in schemas:
            kind_ = f"sparsevec({SPARSE_DIMENSIONS})" if schema.is_sparse else f"vector({schema.size})"
            columns.append(sql.SQL("{} " + kind_).format(sql.Identifier(schema.field)))
        with self._connection.transaction():
            self._connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            self._connection.execute(self._sql("DROP TABLE IF EXISTS {chunks}, {tokens}, {state}"))
            self._connection.execute(
                self._sql("CREATE TABLE {chunks} ({columns})", columns=sql.SQL(", ").join(columns))
            )
            self._connection.execute(self._sql("CREATE INDEX ON {chunks} (_id)"))
            self._connection.execute(
                self._sql("CREATE TABLE {tokens} (token_id int PRIMARY KEY, token text)")
            )
            self._connection.execute(self._sql("CREATE TABLE {state} (value jsonb)"))

    def remember(self, state: ChunkState) -> None:
        """Keep the state."""
        with self._connection.transaction():
            self._connection.execute(self._sql("DELETE FROM {state}"))
            self._connection.execute(
                self._sql("INSERT INTO {state} VALUES (%s::jsonb)"), [json.dumps(state.to_json())]
            )

    def tokens(self) -> list[str]:
        """The vocabulary."""
        found = self._connection.execute(self._sql("SELECT token FROM {tokens} ORDER BY token_id")).fetchall()
        return [row[0] for row in found]

    def add_tokens(self, first: int, tokens: Sequence[str]) -> None:
        """Append to the vocabulary."""
        if tokens:
            rows = [(first + at, token) for at, token in enumerate(tokens)]
            statement = self._sql("INSERT INTO {tokens} VALUES (%s, %s) ON CONFLICT DO NOTHING")
            with self._connection.transaction(), self._connection.cursor() as cursor:
                cursor.executemany(statement, rows)

    def upsert(self, batch: pa.RecordBatch, schema: ChunkSchema, vocabulary: Vocabulary) -> None:
        """Write chunks in one transaction."""
        from psycopg import sql

        names = [name for name in batch.schema.names if name not in ("embedding", "token_ids", "weights")]
        columns = [*names, schema.field]
        statement = self._sql(
            "INSERT INTO {chunks} ({columns}) VALUES ({values}) ON CONFLICT (chunk_id) DO UPDATE SET {changes}",
            columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
            values=sql.SQL(", ").join([sql.Placeholder()] * len(columns)),
            changes=sql.SQL(", ").join(
                sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(one)) for one in columns
            ),
        )
        rows = [[*(row[name] for name in names), _vector(row)] for row in batch.to_pylist()]
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.executemany(statement, rows)

    def keep_only(self, documents: Sequence[str], chunks: Sequence[str]) -> None:
        """Delete the other chunks of some documents."""
        self._connection.execute(
            self._sql("DELETE FROM {chunks} WHERE _id = ANY(%s) AND NOT chunk_id = ANY(%s::uuid[])"),
            [list(documents), list(chunks)],
        )

    def count(self) -> int:
        """Number of chunks."""
        found = self._connection.execute(self._sql("SELECT count(*) FROM {chunks}")).fetchone()
        return int(found[0]) if found else 0


def _type(kind: pa.DataType) -> LiteralString:
    """The type of a column; a list is an array."""
    if pa.types.is_list(kind):
        return _type(kind.value_type) + "[]"
    return next((one for prefix, one in _TYPES.items() if str(kind).startswith(prefix)), "text")


def _vector(row: dict[str, Any]) -> str:
    """A vector as pgvector reads it; a sparse one counts from 1."""
    if "embedding" in row:
        return "[" + ",".join(map(repr, row["embedding"])) + "]"
    pairs = sorted(zip(row["token_ids"], row["weights"], strict=True))
    return "{" + ",".join(f"{number + 1}:{weight!r}" for number, weight in pairs) + f"}}/{SPARSE_DIMENSIONS}"
