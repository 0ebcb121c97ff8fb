"""Read documents from files, on local disks and object stores.

A source file is read in *splits*, the unit of parallel work: byte ranges of plain JSON lines, row groups of Parquet,
whole files otherwise. What is wrong with a line becomes a Failure that names file and line; the rest goes through.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import orjson

from transforms.read.formats import FORMATS, read_rows
from transforms.read.readers import BadDocumentError, SourceFormat, checked_id
from transforms.records import Document, Failure, Location, Sketch, Skipped, Split

Found = Document | Sketch | Skipped | Failure | None


def read_documents(split: Split, source: SourceFormat) -> Iterator[tuple[int, Found]]:
    """Read the documents of one split, in order; what cannot be read becomes a Failure.

    Yields:
        (line number from `split.first_line` on, the document, its sketch where it has yet to be extracted, what was
        skipped, the failure, or None for a blank line).

    Raises:
        OSError: the file cannot be opened. That is no bad document: the run must not go on without the file.
    """
    is_one_document = FORMATS[source.format].is_one_document
    for number, fields in read_rows(split, source):
        line = split.first_line + number
        if isinstance(fields, Sketch | Skipped | Failure):
            yield line, fields
            continue
        location = Location(split.path, 0 if is_one_document else line)
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
        document_id = checked_id(value, id_field)
    try:
        derived = content_hash(fields)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadDocumentError(f"the document cannot be stored as JSON: {error}") from None
    return Document(document_id or derived, fields, derived, location)


def content_hash(source: dict[str, Any]) -> str:
    """The hash of a document's content; the order of keys makes no difference.

    Raises:
        TypeError: a value has no JSON form (`orjson.JSONEncodeError`).
    """
    content = orjson.dumps(source, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(content, digest_size=16).hexdigest()
