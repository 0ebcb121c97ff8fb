"""Scan the source: one cheap pass that reads every document and keeps only its id, content hash and line.

The plan of a run is made from these scans, so that nothing is embedded before it is known what must be, and a run
over an unchanged source does nothing else.
"""

import json
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from transforms import files
from transforms.read.columns import DocumentShape, SourceLook
from transforms.read.documents import read_documents
from transforms.read.rows.readers import BadDocumentError, SourceFormat
from transforms.records import Document, Failure, Sketch, Skipped, Split

SCAN_SCHEMA = pa.schema(
    [
        pa.field("id", pa.large_string()),
        pa.field("content_hash", pa.large_string()),
        pa.field("piece", pa.int32()),
        pa.field("line", pa.int64()),
        pa.field("deleted", pa.bool_(), nullable=False),
        pa.field("error", pa.large_string()),
        pa.field("message", pa.large_string()),
        pa.field("path", pa.large_string()),
        pa.field("stands_for", pa.dictionary(pa.int8(), pa.string())),
    ]
)
"""One row for each document or unreadable line; `piece` counts from 0 within the split, `line` within the piece.

`path` is null but for a failure of a whole file, which the split may have several of.

Strings are large ones: the launcher puts the scans of all splits together, and plain ones end at 2 GiB.
"""


def scan_split(
    split: Split, source: SourceFormat, deleted_field: str | None, shape: DocumentShape
) -> pa.Table:
    """Scan one split.

    Args:
        split: what to read.
        source: how to read it.
        deleted_field: name of the boolean field that marks a tombstone.
        shape: the mapping.

    Returns:
        A table of `SCAN_SCHEMA`. The schema's metadata has as JSON the number of lines of each piece, and where the
        format knows types, the documents and the skipped files by type, and as ``look`` what `SourceLook` found.
    """
    types: dict[str, Counter[str]] = {"types": Counter(), "skipped": Counter()}
    rows: list[tuple[object, ...]] = []
    batches: list[pa.RecordBatch] = []
    look = SourceLook.of(shape)
    lines = [0] * len(split.pieces)
    for number, piece in enumerate(split.pieces):
        for line, found in read_documents(piece, source):
            lines[number] = line - piece.first_line + 1
            if isinstance(found, Sketch):
                types["types"][found.content_type] += 1
            elif isinstance(found, Skipped):
                types["skipped"][found.content_type] += 1
            if found is None or isinstance(found, Skipped):
                continue
            if isinstance(found, Document):
                # Of a row that is known by its version, only what may be several values has been read.
                is_sketched = source.connection is not None and source.connection.updated_at is not None
                (look.see_several if is_sketched else look.see)(found.source)
            # Counted from the piece's start: where that lies in the file is known when all have been scanned.
            rows.append((number, lines[number] - 1, *_scan_row(found, piece.path, deleted_field)))
            if len(rows) >= 10_000:
                batches.append(_scan_batch(rows))
                rows = []
    batches.append(_scan_batch(rows))
    metadata = {
        name: json.dumps(counts) for name, counts in {"lines": lines, "look": look.to_json(), **types}.items()
    }
    return pa.Table.from_batches(batches, SCAN_SCHEMA).replace_schema_metadata(metadata)


def _scan_batch(rows: list[tuple[object, ...]]) -> pa.RecordBatch:
    """Some rows as columns; a row begins with its place."""
    columns = list(zip(*rows, strict=True)) or [()] * len(SCAN_SCHEMA)
    pieces, lines, ids, hashes, *rest = columns
    arrays = [
        pa.array(values, field.type)
        for values, field in zip((ids, hashes, pieces, lines, *rest), SCAN_SCHEMA, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SCAN_SCHEMA)


def _scan_row(found: Document | Sketch | Failure, path: str, deleted_field: str | None) -> tuple[object, ...]:
    """The columns of a row but for its place."""
    if isinstance(found, Failure):
        other = None if found.path == path else found.path
        return found.document_id, None, False, found.error, found.message, other, found.stands_for
    mark = found.source.get(deleted_field) if deleted_field and isinstance(found, Document) else None
    try:
        deleted = is_deleted(mark, deleted_field or "")
    except BadDocumentError as error:
        return found.id, None, False, type(error).__name__, str(error), None, "document"
    return found.id, found.content_hash, deleted, None, None, None, None


def is_deleted(value: Any, field: str) -> bool:
    """Whether a document's mark says that it is deleted; CSV has only text, and pandas writes ``True``.

    Raises:
        BadDocumentError: it says neither yes nor no.
    """
    if value is None:
        return False
    found = _MARKS.get(str(value).strip().lower())
    if found is None:
        raise BadDocumentError(f"source.deleted: [{field}] is [{str(value)[:40]}], neither true nor false")
    return found


_MARKS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False, "": False}


def write_scan(
    split: Split, source: SourceFormat, deleted_field: str | None, folder: str, shape: DocumentShape
) -> tuple[str, int]:
    """Scan one split into its file; writing the same file again after a retry is harmless: it has the same content.

    Returns:
        The file, and how many lines it tells of.
    """
    table = scan_split(split, source, deleted_field, shape)
    path = scan_path(folder, split.index)
    with files.create(path) as handle:
        pq.write_table(table, handle, compression="zstd")
    return path, table.num_rows


def scan_path(folder: str, index: int) -> str:
    """Where the scan of a split is written."""
    return files.join(folder, f"scan-{index:06d}.parquet")
