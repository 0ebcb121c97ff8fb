"""Rows of a database, through SQLAlchemy: streamed in the order of their key, or asked for by key."""

import base64
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from transforms.exact_json import plain_number
from transforms.read.rows.readers import BadDocumentError, Row, SourceFormat, checked_id
from transforms.read.servers.connection import (
    Connection,
    ConnectionFailed,
    failures_of,
    in_batches,
    missing_extra,
    secret,
    version_hash,
)
from transforms.records import VERSION_HASH, Document, Location, Piece

if TYPE_CHECKING:
    import sqlalchemy

ROWS_AT_ONCE = 1_000
ROWS_LOOKED_AT = 100
_WHOLE = re.compile(r"-?[0-9]{1,18}")


def database_rows(piece: Piece, source: SourceFormat) -> Iterator[Row]:
    """All rows; where a column says when a row changed, only key and time of each, and what may be several values."""
    database = _connection(source)
    with _rows(source) as (engine_connection, rows):
        import sqlalchemy

        lists = _list_columns(engine_connection, rows, database) if database.updated_at else []
        names = (
            dict.fromkeys([source.id, database.updated_at, *filter(None, [database.deleted]), *lists])
            if database.updated_at
            else None
        )
        wanted = [rows.c[name] for name in names or rows.c.keys()]
        statement = sqlalchemy.select(*wanted).order_by(rows.c[source.id])
        with _failures(database):
            result = engine_connection.execution_options(yield_per=ROWS_AT_ONCE).execute(statement)
            for number, row in enumerate(result.mappings()):
                yield (
                    number,
                    _sketched(_named(row), piece, source, number, lists)
                    if names
                    else _json_values(_named(row)),
                )


def _list_columns(connection: "sqlalchemy.Connection", rows: Any, database: Connection) -> list[str]:
    """Columns that may hold lists: by their types, or where only a query is known, by its first rows."""
    import sqlalchemy

    if database.table is not None:
        several = (sqlalchemy.ARRAY, sqlalchemy.JSON)
        return [str(name) for name, column in rows.c.items() if isinstance(column.type, several)]
    with _failures(database):
        first = connection.execute(sqlalchemy.select(rows).limit(ROWS_LOOKED_AT)).mappings().all()
    return sorted(
        {str(name) for row in first for name, value in row.items() if isinstance(value, list | dict)}
    )


def fetch_rows(piece: Piece, source: SourceFormat, ids: list[str]) -> Iterator[Row]:
    """The rows of some ids, in any order."""
    import sqlalchemy

    database = _connection(source)
    with _rows(source) as (engine_connection, rows):
        key = rows.c[source.id]
        with _failures(database):
            first = engine_connection.execute(sqlalchemy.select(key).limit(1)).scalar()
            for batch in in_batches(ids):
                whole = isinstance(first, int) and all(_WHOLE.fullmatch(one) for one in batch)
                keys = [int(one) for one in batch] if whole else batch
                # SQLite lets one key be a number and the next a text.
                wanted = key if whole or isinstance(first, str) else sqlalchemy.cast(key, sqlalchemy.String)
                result = engine_connection.execute(sqlalchemy.select(rows).where(wanted.in_(keys)))
                for number, row in enumerate(result.mappings()):
                    yield number, _versioned(_named(row), piece, source)


def column_names(source: SourceFormat) -> list[str]:
    """The columns of the table or query.

    Raises:
        ConnectionFailed: it is not there, or the database does not answer.
    """
    with _rows(source) as (_, rows):
        return [str(name) for name in rows.c.keys()]  # noqa: SIM118 - a collection of columns is no dict


def check_database(source: SourceFormat) -> None:
    """Connect, and look whether table and columns are there.

    Raises:
        ConnectionFailed: they are not.
    """
    with _rows(source):
        pass


def list_tables(url: str) -> dict[str, list[str]]:
    """The tables and views of a database: name -> the columns of its primary key.

    Args:
        url: SQLAlchemy's URL, or a reference to it.

    Raises:
        ConnectionFailed: it is no such URL, or the database does not answer.
    """
    with _connected(Connection(url)) as connection:
        import sqlalchemy

        found = sqlalchemy.inspect(connection)
        tables = {
            name: list(found.get_pk_constraint(name)["constrained_columns"])
            for name in found.get_table_names()
        }
        return {**tables, **{name: [] for name in found.get_view_names()}}


def first_rows(url: str, table: str, count: int) -> list[dict[str, Any]]:
    """The first rows of a table.

    Raises:
        ConnectionFailed: there is no such table, or the database does not answer.
    """
    database = Connection(url, table=table)
    with _connected(database) as connection:
        statement = _selectable(connection, database, None).select().limit(count)
        rows = [_json_values(_named(row)) for row in connection.execute(statement).mappings()]
    return [row for row in rows if isinstance(row, dict)]


def _connection(source: SourceFormat) -> Connection:
    assert source.connection is not None
    return source.connection


def _failures(database: Connection) -> Any:
    import sqlalchemy.exc

    return failures_of(f"source [{database.name}]", sqlalchemy.exc.SQLAlchemyError)


@contextmanager
def _rows(source: SourceFormat) -> Iterator[tuple["sqlalchemy.Connection", Any]]:
    """A connection, and the table or query as something to select from."""
    database = _connection(source)
    with _connected(database) as connection:
        yield connection, _selectable(connection, database, source.id)


@contextmanager
def _connected(database: Connection) -> Iterator["sqlalchemy.Connection"]:
    try:
        import sqlalchemy
    except ImportError:
        raise missing_extra("sql", "sql") from None
    url = secret(database.url)
    with failures_of("source.url", sqlalchemy.exc.ArgumentError, ImportError):
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)
    with _failures(database), engine.connect() as connection:
        yield connection


def _selectable(connection: "sqlalchemy.Connection", database: Connection, key: str | None) -> Any:
    """The table or query with its columns; the names of the configured ones are checked."""
    import sqlalchemy

    if database.table is not None:
        schema, _, name = database.table.rpartition(".")
        found: Any = sqlalchemy.Table(
            name, sqlalchemy.MetaData(), schema=schema or None, autoload_with=connection
        )
    else:
        query = (database.query or "").strip().rstrip(";")
        one = connection.execute(sqlalchemy.text(f"SELECT * FROM ({query}) AS documents WHERE 1 = 0"))  # noqa: S608
        columns: list[Any] = [sqlalchemy.column(name) for name in one.keys()]  # noqa: SIM118 - a result is no dict
        found = sqlalchemy.text(query).columns(*columns).subquery("documents")
    for setting, column in (("id", key), ("updated_at", database.updated_at), ("deleted", database.deleted)):
        if column is not None and column not in found.c:
            known = ", ".join(found.c.keys())
            problem = f"source.{setting} [{column}] is no column of [{database.name}]; it has {known}"
            raise ConnectionFailed(problem)
    return found


def _named(row: Any) -> dict[str, Any]:
    """A row with plain strings as names; those of a reflected table are of a class of their own."""
    return {"".join(name): value for name, value in row.items()}


def _sketched(
    row: dict[str, Any], piece: Piece, source: SourceFormat, number: int, lists: Sequence[str]
) -> Document | BadDocumentError:
    """What is known of a row by its key and its time of change, with the columns that may hold lists."""
    database = _connection(source)
    try:
        document_id = checked_id(_plain(row[str(source.id)]), str(source.id))
    except BadDocumentError as error:
        return error
    digest = version_hash(document_id, row[str(database.updated_at)]) + VERSION_HASH
    known = {name: _plain(row[name]) for name in (database.deleted, *lists) if name}
    return Document(document_id, known, digest, Location(piece.path, number + 1))


def _versioned(row: dict[str, Any], piece: Piece, source: SourceFormat) -> Any:
    """A whole row; where a column says when it changed, its hash is made of that."""
    database = _connection(source)
    fields = _json_values(row)
    if database.updated_at is None or isinstance(fields, BadDocumentError):
        return fields
    document_id = checked_id(_plain(row[str(source.id)]), str(source.id))
    digest = version_hash(document_id, row[database.updated_at]) + VERSION_HASH
    return Document(document_id, fields, digest, Location(piece.path, 0))


def _plain(value: Any) -> Any:
    """A key as JSON has it, so that it has the same text in every pass."""
    values = _json_values({"key": value})
    return value if isinstance(values, BadDocumentError) else values["key"]


def _json_values(row: dict[str, Any]) -> dict[str, Any] | BadDocumentError:
    """The values of a row as JSON has them: numbers with all their digits, times in ISO 8601, bytes in base64."""
    try:
        return {name: _json_value(value) for name, value in row.items()}
    except ValueError as error:
        return BadDocumentError(f"the row cannot be stored as JSON: {error}")


def _json_value(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isinf(value):
            raise ValueError("an infinite number has no JSON form")
        return None if math.isnan(value) else value
    if isinstance(value, Decimal):
        return plain_number(value)
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, list | tuple):
        return [_json_value(one) for one in value]
    if isinstance(value, dict):
        return {str(name): _json_value(one) for name, one in value.items()}
    if isinstance(value, UUID):
        return str(value)
    raise ValueError(f"a value of type {type(value).__name__} has no JSON form")
