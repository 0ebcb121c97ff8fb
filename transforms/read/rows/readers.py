"""What every reader of a source format gets and gives, and the readers of files that are one document each."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from transforms.read.extract.options import ExtractOptions
from transforms.read.rows.titles import markdown_title
from transforms.read.rows.unpack import COMPRESSIONS, open_unpacked
from transforms.read.servers.connection import Connection
from transforms.records import Document, Failure, Piece, Sketch, Skipped, StandsFor

MARKDOWN_ENDINGS = (".md", ".markdown")

MAX_ID_BYTES = 512
"""Longest ``_id`` in UTF-8 bytes; Elasticsearch's limit."""


class BadDocumentError(ValueError):
    """A line or file of the source is not a document.

    Attributes:
        stands_for: what was lost with it.
    """

    def __init__(self, message: str, stands_for: StandsFor = "document") -> None:
        super().__init__(message)
        self.stands_for = stands_for


@dataclass(frozen=True, slots=True)
class SourceFormat:
    """How the documents of a run's source are read.

    Attributes:
        format: key of `transforms.read.formats.FORMATS`.
        id: field that holds the id; None derives it from the content.
        max_document_bytes: larger documents become failures.
        extract: bounds of extraction, for the formats that extract.
        connection: where the source is, for those that are no files.
        delimiter: between the fields of CSV; None is a comma, or what the file says in a first line ``sep=``.
        encoding: of CSV.
        columns: names of the columns of CSV without a header.
    """

    format: str
    id: str | None
    max_document_bytes: int
    extract: ExtractOptions = field(default_factory=ExtractOptions)
    connection: Connection | None = None
    delimiter: str | None = None
    encoding: str = "utf-8"
    columns: tuple[str, ...] | None = None


Row = tuple[int, dict[str, Any] | BadDocumentError | Document | Sketch | Skipped | Failure | None]
"""Line number within the piece, from 0, and the fields, what is wrong with them, or None for a blank line.

A format that finds more than fields gives a Document, Sketch, Skipped or Failure, which know their place."""

Reader = Callable[[Piece, SourceFormat], Iterator[Row]]
"""Reads the rows of a piece of a file."""

Fetcher = Callable[[Piece, SourceFormat, list[str]], Iterator[Row]]
"""Reads the rows of some ids."""


def checked_id(value: Any, field: str) -> str:
    """The id that a document's field holds.

    Raises:
        BadDocumentError: it is missing, empty, too long, or no string or number.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
        what = "is missing" if value is None else f"is a {type(value).__name__}, not a string or number"
        raise BadDocumentError(f"the id field [{field}] {what}")
    document_id = str(value)
    if not document_id:
        raise BadDocumentError(f"the id field [{field}] is empty")
    size = len(document_id.encode("utf-8", "surrogatepass"))
    if size > MAX_ID_BYTES:
        raise BadDocumentError(f"the id is too long: {size} bytes, at most {MAX_ID_BYTES} are allowed")
    return document_id


def file_rows(piece: Piece, source: SourceFormat) -> Iterator[Row]:
    """Text and Markdown: the whole file is one document, with its name as id."""
    limit = source.max_document_bytes
    with open_unpacked(piece.path) as handle:
        content = handle.read(limit + 1)
    if len(content) > limit:
        yield 0, BadDocumentError(f"the file is larger than source.max_document_bytes [{limit}]")
        return
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield 0, BadDocumentError(f"the file is not valid UTF-8: byte {error.start}; convert it to UTF-8")
        return
    yield 0, {"_id": piece.name, "path": piece.name, "title": title(piece.name, text), "text": text}


def title(name: str, text: str, *, is_markdown: bool | None = None) -> str:
    """The title of a Markdown text, else the file's name without its ending.

    Args:
        name: the file's name, whose ending says whether it is Markdown.
        text: what is in it.
        is_markdown: whether it is Markdown, where the ending does not say.
    """
    base = os.path.basename(name)
    if base.lower().endswith(COMPRESSIONS):
        base = os.path.splitext(base)[0]
    stem, ending = os.path.splitext(base)
    if is_markdown is None:
        is_markdown = ending.lower() in MARKDOWN_ENDINGS
    return (markdown_title(text) if is_markdown else None) or stem
