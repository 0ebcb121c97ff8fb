"""Read documents from files, on local disks and object stores.

A source file is read in *splits*, the unit of parallel work: byte ranges of plain JSON lines, row groups of Parquet,
whole files otherwise. What is wrong with a line becomes a Failure that names file and line; the rest goes through.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from transforms import exact_json
from transforms.read.formats import FORMATS, read_rows
from transforms.read.rows.readers import BadDocumentError, Row, SourceFormat, checked_id
from transforms.records import Document, Failure, Location, Piece, Sketch, Skipped

NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
NO_PARTITIONS: Mapping[str, str | None] = {}


Found = Document | Sketch | Skipped | Failure | None
_FOUND = (Document, Sketch, Skipped, Failure)


def read_documents(piece: Piece, source: SourceFormat) -> Iterator[tuple[int, Found]]:
    """Read the documents of a piece of a file, in order; what cannot be read becomes a Failure.

    Yields:
        (line number from `piece.first_line` on, the document, its sketch where it has yet to be extracted, what was
        skipped, the failure, or None for a blank line).

    Raises:
        OSError: the file cannot be opened. That is no bad document: the run must not go on without the file.
    """
    yield from _documents(piece, source, read_rows(piece, source))


def fetch_documents(piece: Piece, source: SourceFormat, ids: list[str]) -> Iterator[Found]:
    """Read the documents of some ids again, in any order, from a source that finds them by id."""
    fetch = FORMATS[source.format].fetch
    assert fetch is not None
    yield from (found for _, found in _documents(piece, source, fetch(piece, source, ids)))


def _documents(piece: Piece, source: SourceFormat, rows: Iterator[Row]) -> Iterator[tuple[int, Found]]:
    partitions = partition_fields(piece.path)
    is_one_document = FORMATS[source.format].is_one_document
    for number, fields in rows:
        line = piece.first_line + number
        if isinstance(fields, _FOUND):
            yield line, fields
            continue
        location = Location(piece.path, 0 if is_one_document else line)
        try:
            if isinstance(fields, BadDocumentError):
                raise fields
            yield line, None if fields is None else to_document(fields, source.id, location, partitions)
        except BadDocumentError as error:
            yield line, Failure("read", None, *location, "BadDocumentError", str(error), error.stands_for)


def partition_fields(path: str) -> dict[str, str | None]:
    """The fields that the folders around a file name, as Hive, Spark and Arrow write them: ``year=2023/part.parquet``.

    Values are text, as they stand there; the mapping gives them a type. A field of the document itself goes first.
    """
    fields: dict[str, str | None] = {}
    for folder in reversed(path.replace(os.sep, "/").split("/")[:-1]):
        name, equals, value = folder.partition("=")
        if not (equals and name):
            break
        fields[unquote(name)] = None if value == NULL_PARTITION else unquote(value)
    return dict(reversed(fields.items()))


def to_document(
    fields: dict[str, Any],
    id_field: str | None,
    location: Location,
    partitions: Mapping[str, str | None] = NO_PARTITIONS,
) -> Document:
    """Make a document of the fields of one line.

    What a search of Elasticsearch or elasticdump gives, with the document in ``_source`` and its id beside it, is
    that document.

    Raises:
        BadDocumentError: the id is missing, empty, too long or no string or number; or there is nothing in it.
    """
    outer = fields
    if _is_hit(fields):
        fields = fields["_source"]
    if partitions:
        fields = {**partitions, **fields}
    if not fields:
        raise BadDocumentError("the document is empty")
    document_id = None
    if id_field is not None:
        # Like in Elasticsearch, `_id` names the document and is no part of its `_source`.
        value = _take_id(outer, fields) if id_field == "_id" else fields.get(id_field)
        if value is None and _is_bulk_action(fields):
            raise BadDocumentError(
                f"the id field [{id_field}] is missing; the line is an action of the bulk API, not a document"
            )
        document_id = checked_id(value, id_field)
    # What inference has stored beside the values is no part of the document, but may save doing it again.
    brought = fields.pop("_inference_fields", None)
    try:
        derived = content_hash(fields)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadDocumentError(f"the document cannot be stored as JSON: {error}") from None
    known = brought if isinstance(brought, dict) else {}
    return Document(document_id or derived, fields, derived, location, brought=known)


def _is_hit(fields: dict[str, Any]) -> bool:
    """Whether these are not a document's fields but a search hit around it."""
    return isinstance(fields.get("_source"), dict) and all(
        name[:1] == "_" or name in ("fields", "highlight", "sort") for name in fields
    )


def _take_id(outer: dict[str, Any], fields: dict[str, Any]) -> Any:
    if fields is not outer:
        fields.pop("_id", None)
    return outer.pop("_id", None)


def _is_bulk_action(fields: dict[str, Any]) -> bool:
    return len(fields) == 1 and next(iter(fields)) in ("index", "create", "update", "delete")


def content_hash(source: dict[str, Any]) -> str:
    """The hash of a document's content; the order of keys makes no difference.

    Raises:
        TypeError: a value has no JSON form (`orjson.JSONEncodeError`).
    """
    content = exact_json.dumps(source, sort_keys=True)
    return hashlib.blake2b(content, digest_size=16).hexdigest()
