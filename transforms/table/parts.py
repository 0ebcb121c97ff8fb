"""Part files of the table: how they are named, written and opened.

The name of a part holds a checksum of its last bytes, the Parquet footer, and a hash of all its bytes:
``part-<run id>-<crc32 of the footer><blake2b of the file>.parquet``. So the table's log vouches for every byte, in any
version and after any checkpoint. Pages carry checksums of their own. Readers check footer and pages of what they read;
`verify` checks the hash. A part that another program rewrote has a name without them, and is taken as it is.
"""

import hashlib
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms.records import PartFile

ROW_GROUP_ROWS = 500
_SUMS = re.compile(r"-([0-9a-f]{8})([0-9a-f]{32})\.parquet$")
REQUIRED = ("_id", "_source", "content_hash", "fingerprint")
"""Columns that every row has a value in."""

Rows = TypeVar("Rows", pa.Table, pa.RecordBatch)
_TAIL = 8  # bytes behind the footer: its length and Parquet's mark
_AT_ONCE = 1 << 16  # stays in the cache, and costs no new pages


class DamagedPartError(OSError):
    """A part file does not hold what was written."""


def part_pattern(run_id: str | None = None) -> str:
    """Glob of the names of all part files, or of those of one run."""
    return "part-*.parquet" if run_id is None else f"part-{run_id}-*.parquet"


def is_made_by(name: str, run_ids: Iterable[str]) -> bool:
    """Whether a part file was made by one of some runs."""
    return name.startswith(tuple(f"part-{run_id}-" for run_id in run_ids))


def write_part(table: pa.Table, table_path: str, run_id: str) -> PartFile:
    """Write rows as one part file, named after its content.

    A retried bundle writes the same rows to the same name or others to another one; the commit takes only the files
    that it was told of.
    """
    from transforms import files  # imports Beam, which readers of local tables do without

    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        row_group_size=ROW_GROUP_ROWS,
        write_page_index=True,
        write_page_checksum=True,
        use_dictionary=repeating_columns(table),
    )
    content = memoryview(sink.getvalue())
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    name = f"part-{run_id}-{zlib.crc32(_footer(content)):08x}{digest}.parquet"
    with files.create(files.join(table_path, name)) as handle:
        handle.write(content)
    ids = table.column("_id").to_pylist()
    return PartFile(name, len(content), table.num_rows, min(ids), max(ids))


def repeating_columns(table: pa.Table) -> list[str]:
    """Paths of the Parquet columns whose values repeat, as the first rows tell.

    A dictionary makes these small. For texts and embeddings it costs a quarter of the writing, and is then given up.
    """
    found = []
    for name in table.column_names:
        column = table.column(name)
        if isinstance(
            column.type, pa.StructType
        ):  # a semantic column: whose chunks, and whether they were cut
            found += [f"{name}.inference_id"]
            found += [f"{name}.chunks.list.element.{leaf}" for leaf in ("source_field", "is_truncated")]
            continue
        path = name
        if isinstance(column.type, pa.ListType):
            column, path = pc.list_flatten(column), f"{name}.list.element"
        some = column.slice(0, ROW_GROUP_ROWS)
        if len(some) and 2 * pc.count_distinct(some).as_py() <= len(some):
            found.append(path)
    return found


class OpenPart(pq.ParquetFile):
    """A part file that is open for reading; what is damaged in it is told in a sentence, not returned.

    Rows come in the types of the table, whichever program wrote the file.
    """

    def __init__(self, source: Any, name: str, read_dictionary: list[str] | None = None) -> None:
        self.part = name
        with _explained(name):
            _check_footer(source, name)
            super().__init__(source, read_dictionary=read_dictionary, page_checksum_verification=True)

    def read(self, *args: Any, **kwargs: Any) -> pa.Table:
        """See `pyarrow.parquet.ParquetFile`."""
        with _explained(self.part):
            return _complete(in_table_types(super().read(*args, **kwargs)))

    def read_row_group(self, *args: Any, **kwargs: Any) -> pa.Table:
        """See `pyarrow.parquet.ParquetFile`."""
        with _explained(self.part):
            return _complete(in_table_types(super().read_row_group(*args, **kwargs)))

    def iter_batches(self, *args: Any, **kwargs: Any) -> Iterator[pa.RecordBatch]:
        """See `pyarrow.parquet.ParquetFile`."""
        batches = super().iter_batches(*args, **kwargs)
        while True:
            with _explained(self.part):
                batch = next(batches, None)
                if batch is None:
                    return
                batch = _complete(in_table_types(batch))
            yield batch


def open_part(table_path: str, name: str, *, read_dictionary: list[str] | None = None) -> OpenPart:
    """Open one part file of a table, on a local disk or in an object store.

    Args:
        table_path: the table.
        name: the part, relative to it.
        read_dictionary: columns to read as dictionaries.

    Raises:
        DamagedPartError: it is not as it was written; also raised by what reads rows.
    """
    if "://" not in table_path:
        path = os.path.join(table_path, name)
        with _explained(name):
            source = pa.memory_map(path) if os.path.getsize(path) else pa.BufferReader(b"")
        return OpenPart(source, name, read_dictionary)
    from transforms import files

    handle = files.open_read(files.join(table_path, name))
    return OpenPart(pa.PythonFile(handle, mode="r"), name, read_dictionary)


def in_table_types(rows: Rows) -> Rows:
    """Rows in the types that the table has.

    Parquet files hold texts, lists and times; whether those are views, large or counted in nanoseconds in memory is
    what the program that wrote a file noted in it, and most of Arrow's functions know only the plain ones.
    """
    schema = pa.schema([field.with_type(_table_type(field.type)) for field in rows.schema])
    return rows if schema == rows.schema else rows.cast(schema)


def _complete(rows: Rows) -> Rows:
    """Refuse rows that no run can have written."""
    empty = [name for name in REQUIRED if name in rows.schema.names and rows.column(name).null_count]
    if empty:
        raise ValueError(f"another program wrote rows without [{', '.join(empty)}]")
    return rows


def _table_type(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(type_) or pa.types.is_large_string(type_):
        return pa.string()
    if pa.types.is_timestamp(type_):
        return pa.timestamp("us", type_.tz)
    if pa.types.is_map(type_):
        return pa.map_(_table_type(type_.key_type), _table_type(type_.item_type))
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(_table_type(field.type)) for field in type_])
    if any(is_kind(type_) for is_kind in _LISTS):
        return pa.list_(type_.value_field.with_type(_table_type(type_.value_type)))
    return type_


_LISTS = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
    pa.types.is_fixed_size_list,
)


def has_checksums(name: str) -> bool:
    """Whether a part's name vouches for its content."""
    return _SUMS.search(name) is not None


def is_whole(table_path: str, name: str) -> bool:
    """Whether the bytes of a part file are those that were written; true where its name does not say."""
    from transforms import files

    sums = _SUMS.search(name)
    if sums is None:
        return True
    digest = hashlib.blake2b(digest_size=16)
    with files.open_read(files.join(table_path, name)) as handle:
        while piece := handle.read(_AT_ONCE):
            digest.update(piece)
    return digest.hexdigest() == sums[2]


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
        return
    except OSError as error:
        if error.errno is not None or isinstance(error, DamagedPartError):
            raise  # the file is gone, or the disk fails: the system's own words
        problem = str(error)
    except (pa.ArrowException, UnicodeDecodeError, OverflowError, ValueError, KeyError) as error:
        problem = str(error) or type(error).__name__
    raise DamagedPartError(
        f"the part file {name} is damaged: {problem[:200]}; `verify --repair` makes its documents again from the source"
    )


def _check_footer(source: Any, name: str) -> None:
    sums = _SUMS.search(name)
    if sums is None:
        return
    size = source.size()
    source.seek(max(0, size - _TAIL))
    tail = source.read(_TAIL)
    length = int.from_bytes(tail[:4], "little") + _TAIL
    if not _TAIL < length <= size:
        raise DamagedPartError(f"the part file {name} is damaged: it has no footer")
    source.seek(size - length)
    if zlib.crc32(source.read(length)) != int(sums[1], 16):
        raise ValueError("its footer is not the one that was written")
    source.seek(0)


def _footer(content: memoryview) -> memoryview:
    return content[-int.from_bytes(content[-_TAIL:-4], "little") - _TAIL :]
