"""Reader of Parquet, a few hundred rows at a time."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.read.archives import open_file
from transforms.read.rows.arrow_values import Values, json_values
from transforms.read.rows.readers import BadDocumentError, Row, SourceFormat
from transforms.records import Piece

_BATCH_ROWS = 512


def parquet_rows(piece: Piece, source: SourceFormat) -> Iterator[Row]:
    """Parquet: the rows of the piece's row groups. A row is read whole, whatever its size."""
    number = 0
    try:
        with open_file(piece.path) as handle:
            table = pq.ParquetFile(handle)
            problem = _schema_problem(table.schema_arrow.names, source.id)
            if problem is not None:
                yield 0, BadDocumentError(problem, "rest of the file")
                return
            end = table.num_row_groups if piece.end < 0 else piece.end
            groups = list(range(piece.start, end))
            for batch in table.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups):
                for fields in _documents(batch):
                    yield number, fields
                    number += 1
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's, about the file as a whole
        what = "the file is empty, which no Parquet file is" if piece.size == 0 else f"{error}"
        yield number, BadDocumentError(f"not readable as Parquet from here on: {what}", "rest of the file")


def _schema_problem(names: list[str], id_field: str | None) -> str | None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        return f"the file has the column [{twice[0]}] {names.count(twice[0])} times; rename one of them"
    if id_field is not None and id_field not in names:
        return f"the file has no column [{id_field}], the id; it has {', '.join(f'[{name}]' for name in names[:20])}"
    return None


def _documents(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | BadDocumentError]:
    names = batch.schema.names
    columns = [_guarded(column, name) for column, name in zip(batch.columns, names, strict=True)]
    for row in zip(*columns, strict=True):
        wrong = next((value for value in row if isinstance(value, BadDocumentError)), None)
        yield wrong if wrong is not None else dict(zip(names, row, strict=True))


def _guarded(column: pa.Array, name: str) -> Values:
    """A column's values; one that cannot be shown is replaced by what is wrong with it."""
    try:
        return json_values(column)
    except (ValueError, OverflowError, pa.ArrowException):
        return [_guarded_value(column.slice(row, 1), name) for row in range(len(column))]


def _guarded_value(one: pa.Array, name: str) -> Any:
    try:
        return json_values(one)[0]
    except (ValueError, OverflowError, pa.ArrowException) as error:
        return BadDocumentError(f"the column [{name}]: {error}")
