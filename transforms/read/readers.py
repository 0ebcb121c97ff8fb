"""One generator of rows for each kind of source file: JSON lines, Parquet, CSV, and files that are one document."""

import csv
import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import IO, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from transforms.read.archives import open_file
from transforms.read.extract.options import ExtractOptions
from transforms.records import Failure, Sketch, Skipped, Split

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""Ending of a compressed file -> Arrow's name of its compression."""

MARKDOWN_ENDINGS = (".md", ".markdown")

MAX_ID_BYTES = 512
"""Longest ``_id`` in UTF-8 bytes; Elasticsearch's limit."""


class BadDocumentError(ValueError):
    """A line or file of the source is not a document."""


@dataclass(frozen=True, slots=True)
class SourceFormat:
    """How the documents of a run's source are read.

    Attributes:
        format: key of `FORMATS`.
        id: field that holds the id; None derives it from the content.
        max_document_bytes: larger documents become failures.
        extract: bounds of extraction, for the formats that extract.
    """

    format: str
    id: str | None
    max_document_bytes: int
    extract: ExtractOptions = field(default_factory=ExtractOptions)


Row = tuple[int, dict[str, Any] | BadDocumentError | Sketch | Skipped | Failure | None]
"""Line number within the split, from 0, and the fields, what is wrong with them, or None for a blank line.

A format that finds more than fields in a file gives a Sketch, Skipped or Failure, which know their place."""

Reader = Callable[[Split, SourceFormat], Iterator[Row]]
"""Reads the rows of a split."""


@contextmanager
def _unpacked(path: str) -> Iterator[IO[bytes]]:
    """Open a file, or a member of an archive, decompressing by its ending."""
    with open_file(path) as handle:
        kind = COMPRESSIONS.get(os.path.splitext(path)[1])
        if kind is None:
            yield handle
        else:
            packed = pa.CompressedInputStream(pa.PythonFile(handle, mode="r"), kind)
            with io.BufferedReader(packed, 1 << 20) as unpacked:
                yield unpacked


def _lines(handle: IO[bytes], end: int, position: int, limit: int) -> Iterator[tuple[bytes, bool]]:
    """Yield (line, whether it was too long and cut) for the lines that start before `end`."""
    while end < 0 or position < end:
        line = handle.readline(limit + 1)
        if not line:
            return
        position += len(line)
        # `readline` stops at the limit: then the rest of the line is passed over, piece by piece.
        too_long = len(line) > limit and not line.endswith(b"\n")
        rest = line
        while too_long and rest and not rest.endswith(b"\n"):
            rest = handle.readline(1 << 20)
            position += len(rest)
        yield line, too_long


def jsonl_rows(split: Split, source: SourceFormat) -> Iterator[Row]:
    """JSON lines: the lines that start in the split's range of bytes."""
    limit = source.max_document_bytes
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


def parquet_rows(split: Split, source: SourceFormat) -> Iterator[Row]:
    """Parquet: the rows of the split's row groups. `max_document_bytes` has no meaning here, a row is read whole."""
    with open_file(split.path) as handle:
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


def csv_rows(split: Split, source: SourceFormat) -> Iterator[Row]:
    """CSV with a header; a row counts by the line that it ends on, since fields may hold line breaks."""
    limit = source.max_document_bytes
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


def file_rows(split: Split, source: SourceFormat) -> Iterator[Row]:
    """Text and Markdown: the whole file is one document, with its name as id."""
    limit = source.max_document_bytes
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
    yield 0, {"_id": split.name, "path": split.name, "title": title(split.name, text), "text": text}


def title(name: str, text: str, *, is_markdown: bool | None = None) -> str:
    """The first Markdown heading, else the file's name without its ending.

    Args:
        name: the file's name, whose ending says whether it is Markdown.
        text: what is in it.
        is_markdown: whether it is Markdown, where the ending does not say.
    """
    base = os.path.basename(name)
    for packed in COMPRESSIONS:
        base = base.removesuffix(packed)
    stem, ending = os.path.splitext(base)
    if is_markdown is None:
        is_markdown = ending in MARKDOWN_ENDINGS
    heading = re.search(r"^#{1,6}[ \t]+(\S.*)$", text, re.MULTILINE) if is_markdown else None
    return heading.group(1).rstrip(" \t#\r") if heading else stem


def checked_id(value: Any, field: str) -> str:
    """A document's id as a string.

    Raises:
        BadDocumentError: it is missing, empty, too long or no string or number.
    """
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
