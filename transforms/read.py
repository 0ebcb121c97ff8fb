"""Read documents from files: JSON lines, Parquet, CSV, text and Markdown, on local disks and object stores.

A source file is read in *splits*, the unit of parallel work: byte ranges of plain JSON lines, row groups of Parquet,
whole files otherwise. What is wrong with a line becomes a Failure that names file and line; the rest goes through.
"""

import csv
import hashlib
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import IO, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from transforms import files
from transforms.records import Document, Failure, Location

MAX_ID_BYTES = 512
"""Longest ``_id`` in UTF-8 bytes; Elasticsearch's limit."""

EXTENSIONS = {
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "parquet": (".parquet",),
    "csv": (".csv",),
    "text": (".txt", ".text"),
    "markdown": (".md", ".markdown"),
}
"""Source format -> the files of a folder that belong to it, each also with ``.gz`` or ``.zst`` behind it."""

COMPRESSIONS = (".gz", ".zst")


@dataclass(frozen=True, slots=True)
class Split:
    """A piece of one source file.

    Attributes:
        index: its place in source order, over all files.
        path: the file.
        start: first byte (JSON lines), row group (Parquet), else 0.
        end: end of the range, exclusive; -1 for the whole file.
        name: the file's path below the configured folder: the id of a text document.
        first_line: line number of its first line; known once everything before it has been read.
    """

    index: int
    path: str
    start: int
    end: int
    name: str
    first_line: int = 1


@dataclass(frozen=True, slots=True)
class SourceFormat:
    """How documents are read.

    Attributes:
        format: ``jsonl``, ``parquet``, ``csv``, ``text`` or ``markdown``.
        id: field that holds the id; None derives it from the content.
        max_document_bytes: larger documents become failures.
    """

    format: str
    id: str | None
    max_document_bytes: int


class BadDocumentError(ValueError):
    """A line or file of the source is not a document."""


Row = tuple[int, dict[str, Any] | BadDocumentError | None]
"""Line number within the split, from 0, and the fields, what is wrong with them, or None for a blank line."""


def list_splits(paths: list[str], format: str, split_bytes: int) -> list[Split]:
    """Find the source files and cut them into splits, in source order (paths as given, files by name).

    Raises:
        FileNotFoundError: a path matches no file.
    """
    splits: list[Split] = []
    seen: set[str] = set()
    for configured in paths:
        root, found = _expand(configured, format)
        if not found:
            raise FileNotFoundError(f"source.path [{configured}] matches no {format} file")
        for path, size in found:
            if path in seen:
                continue
            seen.add(path)
            name = path[len(root) :].lstrip("/\\") or os.path.basename(path)
            for start, end in _ranges(path, size, format, split_bytes):
                splits.append(Split(len(splits), path, start, end, name))
    return splits


def _expand(configured: str, format: str) -> tuple[str, list[tuple[str, int]]]:
    """The folder that names are relative to, and the files of one configured path."""
    if files.is_glob(configured):
        return files.root_of(configured), files.list_files(configured)
    is_folder = os.path.isdir(configured) if files.is_local(configured) else configured.endswith("/")
    if not is_folder:
        return os.path.dirname(configured), files.list_files(configured)
    endings = tuple(base + packed for base in EXTENSIONS[format] for packed in ("", *COMPRESSIONS))
    found = files.list_files(files.join(configured, "**"), hidden=False)
    return configured, [(path, size) for path, size in found if path.lower().endswith(endings)]


def _ranges(path: str, size: int, format: str, split_bytes: int) -> list[tuple[int, int]]:
    if format == "jsonl" and not path.endswith(COMPRESSIONS):
        return [(start, min(start + split_bytes, size)) for start in range(0, size, split_bytes)]
    if format == "parquet":
        with files.open_read(path) as handle:
            metadata = pq.read_metadata(handle)
        return _row_group_ranges(metadata, split_bytes)
    return [(0, -1)]


def _row_group_ranges(metadata: Any, split_bytes: int) -> list[tuple[int, int]]:
    ranges, start, held = [], 0, 0
    for group in range(metadata.num_row_groups):
        held += metadata.row_group(group).total_byte_size
        if held >= split_bytes or group == metadata.num_row_groups - 1:
            ranges.append((start, group + 1))
            start, held = group + 1, 0
    return ranges


def read_documents(split: Split, source: SourceFormat) -> Iterator[tuple[int, Document | Failure | None]]:
    """Read the documents of one split, in order; what cannot be read becomes a Failure.

    Yields:
        (line number from `split.first_line` on, the document, failure, or None for a blank line).

    Raises:
        OSError: the file cannot be opened. That is no bad document: the run must not go on without the file.
    """
    for number, fields in _rows(split, source):
        line = split.first_line + number
        location = Location(split.path, 0 if source.format in ("text", "markdown") else line)
        try:
            if isinstance(fields, BadDocumentError):
                raise fields
            yield line, None if fields is None else to_document(fields, source.id, location)
        except BadDocumentError as error:
            yield line, Failure("read", None, *location, "BadDocumentError", str(error))


def to_document(fields: dict[str, Any], id_field: str | None, location: Location) -> Document:
    """Make a document of the fields of one line.

    Raises:
        BadDocumentError: the id is missing, empty, too long or no string or number; or there is nothing in it.
    """
    if not fields:
        raise BadDocumentError("the document is empty")
    document_id = None
    if id_field is not None:
        # Like in Elasticsearch, `_id` names the document and is no part of its `_source`.
        value = fields.pop("_id", None) if id_field == "_id" else fields.get(id_field)
        document_id = _checked_id(value, id_field)
    try:
        content = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadDocumentError(f"the document cannot be stored as JSON: {error}") from None
    content_hash = hashlib.blake2b(content, digest_size=16).hexdigest()
    return Document(document_id or content_hash, fields, content_hash, location)


def _checked_id(value: Any, field: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        what = "is missing" if value is None else f"is a {type(value).__name__}, not a string or number"
        raise BadDocumentError(f"the id field [{field}] {what}")
    document_id = str(value)
    if not document_id:
        raise BadDocumentError(f"the id field [{field}] is empty")
    size = len(document_id.encode("utf-8", "surrogatepass"))
    if size > MAX_ID_BYTES:
        raise BadDocumentError(f"the id is too long: {size} bytes, at most {MAX_ID_BYTES} are allowed")
    return document_id


@contextmanager
def _unpacked(path: str) -> Iterator[IO[bytes]]:
    """Open a file, decompressing by its ending."""
    with files.open_read(path) as handle:
        kind = {".gz": "gzip", ".zst": "zstd"}.get(os.path.splitext(path)[1])
        if kind is None:
            yield handle
        else:
            packed = pa.CompressedInputStream(pa.PythonFile(handle, mode="r"), kind)
            with io.BufferedReader(packed, 1 << 20) as unpacked:
                yield unpacked


def _rows(split: Split, source: SourceFormat) -> Iterator[Row]:
    """The rows of a split; a damaged archive costs what is behind the damage, and one failure stands for it."""
    number = -1
    try:
        for number, fields in _ROWS[source.format](split, source.max_document_bytes):
            yield number, fields
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        if not split.path.endswith(COMPRESSIONS):
            raise
        yield number + 1, BadDocumentError(f"the compressed file is damaged from here on: {error}")


def _lines(handle: IO[bytes], end: int, position: int, limit: int) -> Iterator[tuple[bytes, bool]]:
    """Yield (line, whether it was too long and cut) for the lines that start before `end`."""
    while end < 0 or position < end:
        line = handle.readline(limit + 1)
        if not line:
            return
        position += len(line)
        too_long = len(line) > limit and not line.endswith(b"\n")
        rest = line
        while too_long and rest and not rest.endswith(b"\n"):
            rest = handle.readline(1 << 20)
            position += len(rest)
        yield line, too_long


def _jsonl_rows(split: Split, limit: int) -> Iterator[Row]:
    with _unpacked(split.path) as handle:
        position = split.start
        if position > 0:
            # The line that the range starts in belongs to the range before it.
            handle.seek(position - 1)
            position += _skip_line(handle) - 1
        for number, (line, too_long) in enumerate(_lines(handle, split.end, position, limit)):
            if split.start == 0 and number == 0:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if too_long:
                yield number, BadDocumentError(f"the line is longer than source.max_document_bytes [{limit}]")
            else:
                yield number, None if line.isspace() else _json_object(line)


def _skip_line(handle: IO[bytes]) -> int:
    """Read on to the end of the line; returns how many bytes were passed."""
    passed = 0
    while piece := handle.readline(1 << 20):
        passed += len(piece)
        if piece.endswith(b"\n"):
            break
    return passed


def _json_object(line: bytes) -> dict[str, Any] | BadDocumentError:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as wrong:
            place = f"byte {line[wrong.start]:#04x} at column {wrong.start + 1}"
            return BadDocumentError(f"the line is not valid UTF-8: {place}; convert the file to UTF-8")
        return BadDocumentError(
            f"the line is not valid JSON: {str(error).split(': line ')[0]} at column {error.colno}"
        )
    if not isinstance(fields, dict):
        return BadDocumentError(f"the line holds a JSON {type(fields).__name__}, not an object")
    return fields


def _parquet_rows(split: Split, limit: int) -> Iterator[Row]:
    with files.open_read(split.path) as handle:
        table = pq.ParquetFile(handle)
        number = 0
        groups = list(range(split.start, split.end))
        for batch in table.iter_batches(batch_size=512, row_groups=groups):
            for fields in batch.to_pylist():
                yield number, _json_values(fields)
                number += 1


def _json_values(fields: dict[str, Any]) -> dict[str, Any] | BadDocumentError:
    try:
        values: dict[str, Any] = orjson.loads(orjson.dumps(fields, default=_json_default))
    except (TypeError, ValueError) as error:
        return BadDocumentError(f"the row cannot be stored as JSON: {error.__cause__ or error}")
    return values


def _json_default(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    raise TypeError(f"a value of type {type(value).__name__} has no JSON form")


def _csv_rows(split: Split, limit: int) -> Iterator[Row]:
    csv.field_size_limit(limit)
    with _unpacked(split.path) as handle:
        text = io.TextIOWrapper(handle, encoding="utf-8-sig", errors="surrogateescape", newline="")
        rows = csv.reader(text, strict=True)
        header = next(rows, None)
        while header is not None:
            first = rows.line_num
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield first, BadDocumentError(f"the row is not valid CSV: {error}")
                continue
            if row:
                yield first, _csv_fields(header, row)


def _csv_fields(header: list[str], row: list[str]) -> dict[str, Any] | BadDocumentError:
    if len(row) != len(header):
        return BadDocumentError(f"the row has {len(row)} fields, the header has {len(header)}")
    fields: dict[str, Any] = dict(zip(header, row, strict=True))
    try:
        "".join(row).encode("utf-8")
    except UnicodeEncodeError:
        return BadDocumentError("the row is not valid UTF-8")
    return fields


def _file_rows(split: Split, limit: int) -> Iterator[Row]:
    with _unpacked(split.path) as handle:
        content = handle.read(limit + 1)
    if len(content) > limit:
        yield 0, BadDocumentError(f"the file is larger than source.max_document_bytes [{limit}]")
        return
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield 0, BadDocumentError(f"the file is not valid UTF-8: byte {error.start}")
        return
    yield 0, {"_id": split.name, "path": split.name, "title": _title(split.name, text), "text": text}


def _title(name: str, text: str) -> str:
    """The first Markdown heading, else the file's name without its ending."""
    base = os.path.basename(name)
    for packed in COMPRESSIONS:
        base = base.removesuffix(packed)
    stem, ending = os.path.splitext(base)
    heading = (
        re.search(r"^#{1,6}[ \t]+(\S.*)$", text, re.MULTILINE) if ending in EXTENSIONS["markdown"] else None
    )
    return heading.group(1).rstrip(" \t#\r") if heading else stem


_ROWS = {
    "jsonl": _jsonl_rows,
    "parquet": _parquet_rows,
    "csv": _csv_rows,
    "text": _file_rows,
    "markdown": _file_rows,
}
