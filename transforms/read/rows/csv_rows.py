"""Reader of CSV: a header, or names from the config, and rows in any encoding and with any delimiter."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from typing import Any

from transforms.read.rows.readers import BadDocumentError, Row, SourceFormat
from transforms.read.rows.unpack import open_unpacked
from transforms.records import Piece

_DELIMITERS = ";\t|,"


def csv_rows(piece: Piece, source: SourceFormat) -> Iterator[Row]:
    """CSV; a row counts by the line that it begins on, since fields may hold line breaks."""
    csv.field_size_limit(source.max_document_bytes)
    encoding = (
        "utf-8-sig" if source.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else source.encoding
    )
    with open_unpacked(piece.path) as handle:
        # What is not valid becomes lone surrogates, which cost the row that they stand in.
        text = io.TextIOWrapper(handle, encoding=encoding, errors="surrogateescape", newline="")
        rest = _Lines(text, source.max_document_bytes)
        first, delimiter = next(rest, ""), source.delimiter
        passed = 0
        if first.rstrip("\r\n").lower().startswith("sep=") and len(first.rstrip("\r\n")) == 5:
            # Excel's way of naming the delimiter, in a line of its own.
            delimiter, first, passed = delimiter or first[4], "", 1
        rows = csv.reader(_chain(first, rest), strict=True, delimiter=delimiter or ",")
        try:
            header = list(source.columns) if source.columns is not None else next(rows, None)
        except csv.Error as error:
            yield (
                0,
                BadDocumentError(f"the header is not valid CSV: {rest.problem or error}", "rest of the file"),
            )
            return
        if header is None:
            return
        problem = _header_problem(header, source)
        if problem is not None:
            yield 0, BadDocumentError(problem, "rest of the file")
            return
        yield from _rows(rows, header, passed, rest)


class _Lines:
    """The lines of a file, none of which makes a row longer than a document may be.

    In place of one that does, the CSV reader gets something that it refuses, inside quotes and outside, and so begins
    with a new row behind it.

    Attributes:
        problem: why the last row was cut short; empty where it was not.
    """

    def __init__(self, text: io.TextIOWrapper, limit: int) -> None:
        self._text, self._limit = text, limit
        self._held = 0
        self.problem = ""

    def begin_row(self) -> None:
        """Count from here on."""
        self._held, self.problem = 0, ""

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._text.readline(self._limit + 1)
        if not line:
            raise StopIteration
        self._held += len(line)
        if self._held <= self._limit:
            return line
        while line and not line.endswith(("\n", "\r")):
            line = self._text.readline(1 << 20)
        self.problem = f"it is longer than source.max_document_bytes [{self._limit}]"
        return _REFUSED


_REFUSED = '"a"b\n'


def _chain(first: str, rest: _Lines) -> Iterator[str]:
    if first:
        yield first
    yield from rest


def _rows(rows: Any, header: list[str], passed: int, read: _Lines) -> Iterator[Row]:
    while True:
        read.begin_row()
        first = rows.line_num + passed
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            lines = rows.line_num + passed - first
            if read.problem:
                yield (
                    first,
                    BadDocumentError(
                        f"the row is not read: {read.problem}", "unknown" if lines > 1 else "document"
                    ),
                )
            elif lines > 1:
                # A quote that nothing closes swallows every row behind it.
                problem = f"a quote that was opened here swallowed {lines:,} lines: {error}"
                yield first, BadDocumentError(problem, "unknown")
            else:
                yield first, BadDocumentError(f"the row is not valid CSV: {error}")
            continue
        if row:
            yield first, _fields(header, row, rows.line_num + passed - first)


def _header_problem(header: list[str], source: SourceFormat) -> str | None:
    """Why rows under a header cannot be told apart, or None."""
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        return f"the header has the column [{twice[0]}] {header.count(twice[0])} times; rename one of them"
    if not _is_text("".join(header)):
        return f"the header is not valid {source.encoding}; name its encoding in source.encoding, for example latin-1"
    if source.id is not None and source.id not in header:
        return f"the header has no column [{source.id}], the id; it has {_named(header)}{_delimiter_hint(header)}"
    return None


def _named(header: list[str]) -> str:
    shown = ", ".join(f"[{name}]" for name in header[:20])
    return shown + (f" and {len(header) - 20} more" if len(header) > 20 else "")


def _delimiter_hint(header: list[str]) -> str:
    """A word on the delimiter where the whole header is one column with another one inside."""
    found = [mark for mark in _DELIMITERS if len(header) == 1 and mark in header[0]]
    return f". It looks separated by {found[0]!r}: set source.delimiter" if found else ""


def _fields(header: list[str], row: list[str], lines: int) -> dict[str, Any] | BadDocumentError:
    if len(row) != len(header):
        problem = f"the row has {len(row)} fields, the header has {len(header)}"
        return BadDocumentError(problem, "unknown" if lines > 1 else "document")
    if not _is_text("".join(row)):
        return BadDocumentError(
            "the row is not valid in the file's encoding; name that in source.encoding, for example latin-1"
        )
    return dict(zip(header, row, strict=True))


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
