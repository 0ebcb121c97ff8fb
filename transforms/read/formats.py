"""The source formats. To add one, write a generator of its rows and give it a line in `FORMATS`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.read.archives import open_file
from transforms.read.folder import FIELDS, folder_rows
from transforms.read.rows.csv_rows import csv_rows
from transforms.read.rows.json_rows import json_rows, jsonl_rows
from transforms.read.rows.parquet_rows import parquet_rows
from transforms.read.rows.readers import (
    MARKDOWN_ENDINGS,
    BadDocumentError,
    Fetcher,
    Reader,
    Row,
    SourceFormat,
    file_rows,
)
from transforms.read.rows.table_rows import table_rows
from transforms.read.rows.unpack import COMPRESSIONS, DAMAGE, is_compressed
from transforms.read.servers.connection import ConnectionFailed
from transforms.read.servers.database import (
    check_database,
    column_names,
    database_rows,
    fetch_rows,
)
from transforms.read.servers.index import check_index, fetch_hits, index_rows
from transforms.records import Piece

Range = tuple[int, int]
"""Start and end of a piece of a file, end exclusive, in whatever unit its reader counts; -1 is the end of the file."""


def _whole(path: str, size: int, split_bytes: int) -> list[Range]:
    return [(0, -1)]


def _byte_ranges(path: str, size: int, split_bytes: int) -> list[Range]:
    if is_compressed(path) or size <= split_bytes:
        return [(0, -1)]
    return [(start, min(start + split_bytes, size)) for start in range(0, size, split_bytes)]


def _row_groups(path: str, size: int, split_bytes: int) -> list[Range]:
    """Ranges of row groups, each of about `split_bytes` uncompressed bytes."""
    if size <= split_bytes // 16:
        return [(0, -1)]  # not worth a look inside
    try:
        with open_file(path) as handle:
            metadata: Any = pq.read_metadata(handle)
    except (pa.ArrowException, OSError):
        return [(0, -1)]  # its reader says what is wrong with it
    ranges, start, held = [], 0, 0
    for group in range(metadata.num_row_groups):
        held += metadata.row_group(group).total_byte_size
        if held >= split_bytes or group == metadata.num_row_groups - 1:
            ranges.append((start, group + 1))
            start, held = group + 1, 0
    return ranges


@dataclass(frozen=True, slots=True)
class Format:
    """Everything that is particular about one source format.

    Attributes:
        read: reads the rows of a piece of a file.
        endings: the files of a folder that belong to it, each also with ``.gz`` or ``.zst`` behind it.
        cut: cuts a file into pieces that are read independently; takes its path, its size and the bytes of a piece.
        is_one_document: whether a whole file is one document; its failures then name no line.
        is_folder: whether all files belong to it, whatever they are.
        fetch: reads documents again by id; None for files, where they are found again by line.
        check: looks whether the source is there; None for files, which are listed anyway.
        lists: fields of its documents that may hold several values.
        names: the fields that its documents may have, where something else than the documents tells.
    """

    read: Reader
    endings: tuple[str, ...]
    cut: Callable[[str, int, int], list[Range]] = _whole
    is_one_document: bool = False
    is_folder: bool = False
    fetch: Fetcher | None = None
    check: Callable[[SourceFormat], None] | None = None
    lists: tuple[str, ...] = ()
    names: Callable[[SourceFormat], Sequence[str]] | None = None

    def matches(self, path: str) -> bool:
        """Whether a file of a folder belongs to the format."""
        if self.is_folder:
            return True
        endings = tuple(base + packed for base in self.endings for packed in ("", *COMPRESSIONS))
        return path.lower().endswith(endings)

    def line(self, number: int) -> int:
        """The line that names a document's place: `number`, or 0 where the document is the whole file."""
        return 0 if self.is_one_document else number


FORMATS = {
    "jsonl": Format(jsonl_rows, (".jsonl", ".ndjson", ".json"), cut=_byte_ranges),
    "json": Format(json_rows, (".json",)),
    "parquet": Format(parquet_rows, (".parquet",), cut=_row_groups),
    "csv": Format(csv_rows, (".csv", ".tsv")),
    "text": Format(file_rows, (".txt", ".text"), is_one_document=True),
    "markdown": Format(file_rows, MARKDOWN_ENDINGS, is_one_document=True),
    "files": Format(
        folder_rows,
        (),
        is_one_document=True,
        is_folder=True,
        lists=("author", "page_offsets"),
        names=lambda source: FIELDS,
    ),
    "table": Format(table_rows, (".parquet",)),
    "sql": Format(database_rows, (), fetch=fetch_rows, check=check_database, names=column_names),
    "elasticsearch": Format(index_rows, (), fetch=fetch_hits, check=check_index),
}


def read_rows(piece: Piece, source: SourceFormat) -> Iterator[Row]:
    """The rows of a piece of a file; a damaged file costs what is behind the damage, and one failure stands for it.

    Raises:
        OSError: the file cannot be opened, which says nothing about what it holds.
    """
    if piece.problem is not None:
        yield 0, BadDocumentError(piece.problem, "rest of the file")
        return
    number = -1
    try:
        for number, fields in FORMATS[source.format].read(piece, source):
            yield number, fields
    except (FileNotFoundError, PermissionError, ConnectionFailed):
        raise
    except DAMAGE as error:
        if FORMATS[source.format].is_folder or not is_compressed(piece.path):
            raise
        problem = f"the compressed file is damaged from here on: {error}"
        yield number + 1, BadDocumentError(problem, "rest of the file")
    except (UnicodeError, LookupError) as error:
        problem = f"the file cannot be read as source.encoding [{source.encoding}] from here on: {error}"
        yield number + 1, BadDocumentError(problem, "rest of the file")
