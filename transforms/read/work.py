"""Read the documents that a run has to work on: the plan names their lines, everything else is passed over."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam import pvalue
from apache_beam.metrics import Metrics
from apache_beam.utils.shared import Shared

from transforms import files
from transforms.batches import DocumentBatch
from transforms.handover.extraction import ExtractionFile
from transforms.read.columns import DocumentShape
from transforms.read.documents import Found, fetch_documents, read_documents
from transforms.read.extract.pool import Extractor
from transforms.read.folder import extract_document
from transforms.read.formats import FORMATS
from transforms.read.rows.readers import BadDocumentError, SourceFormat
from transforms.records import DONE, FAILED, Document, Failure, Piece, PreviousRow, Sketch, Split

WORK_SCHEMA = pa.schema(
    [
        pa.field("piece", pa.int32()),
        pa.field("line", pa.int64()),
        pa.field("id", pa.large_string()),
        pa.field("content_hash", pa.large_string()),
        pa.field("previous_part", pa.dictionary(pa.int32(), pa.string())),
        pa.field("previous_row", pa.int64()),
    ]
)
"""One row for each document of a split to work on, by piece of the split and line of the file;
`previous_*` is null for a new document."""


def work_path(folder: str, index: int) -> str:
    """Where the work list of a split is written."""
    return files.join(folder, f"work-{index:06d}.parquet")


BATCH_DOCUMENTS = 256
"""Documents that travel together at most."""

BATCH_CHARACTERS = 1 << 18
"""Characters of their texts, from which on no document is added."""

BATCH_SECONDS = 1.0
"""Age of a batch, from which on no document is added."""

Planned = tuple[Piece, Found, tuple[Any, ...]]
"""A piece, what was found where the plan has a document, and the document's row of the work list."""


def read_work(
    split: Split,
    source: SourceFormat,
    work: pa.Table,
    shape: DocumentShape,
    extraction: "Extraction | None" = None,
) -> Iterator[Document | Failure]:
    """Read the documents of a split that its work list names.

    Args:
        split: what to read.
        source: how to read it.
        work: table of `WORK_SCHEMA`.
        shape: the mapping.
        extraction: what extracts sketches; needed by formats that give them.
    """

    def finish(planned: Planned) -> Document | Failure:
        piece, found, entry = planned
        if isinstance(found, Sketch) and found.content_hash == entry[2]:
            assert extraction is not None
            found = extraction.document(found)
        if isinstance(found, Failure) and found.error == "ExtractionError":
            return found
        return _planned_document(piece, source, found, entry, shape)

    fetches = FORMATS[source.format].fetch is not None
    planned = _fetched(split.pieces[0], source, work) if fetches else _planned(split, source, work)
    # Sketches are extracted several at a time, by processes of their own.
    yield from map(finish, planned) if extraction is None else extraction.extractor.ahead(planned, finish)


def _planned(split: Split, source: SourceFormat, work: pa.Table) -> Iterator[Planned]:
    """Go through the split and the work list side by side."""
    columns = (work.column(name).to_pylist() for name in WORK_SCHEMA.names)
    for number, entries in groupby(zip(*columns, strict=True), key=itemgetter(0)):
        yield from _read_piece(split.pieces[number], source, (entry[1:] for entry in entries))


def _read_piece(piece: Piece, source: SourceFormat, planned: Iterator[tuple[Any, ...]]) -> Iterator[Planned]:
    entry = next(planned, None)
    for line, found in read_documents(piece, source):
        if entry is None:
            return
        if line != entry[0]:
            continue
        yield piece, found, entry
        entry = next(planned, None)
    while entry is not None:
        yield piece, None, entry
        entry = next(planned, None)


def _fetched(piece: Piece, source: SourceFormat, work: pa.Table) -> Iterator[Planned]:
    """Ask for the planned documents by id. One that has changed since the scan is taken as it is now."""
    columns = (work.column(name).to_pylist() for name in WORK_SCHEMA.names[1:])
    waiting = {entry[1]: entry for entry in zip(*columns, strict=True)}
    for found in fetch_documents(piece, source, list(waiting)):
        if isinstance(found, Document) and found.id in waiting:
            line, document_id, _, *previous = waiting.pop(found.id)
            yield piece, found, (line, document_id, found.content_hash, *previous)
    yield from ((piece, None, entry) for entry in waiting.values())


def _planned_document(
    piece: Piece, source: SourceFormat, found: Found, entry: tuple[Any, ...], shape: DocumentShape
) -> Document | Failure:
    line, document_id, content_hash, part, row = entry
    if not isinstance(found, Document) or (found.id, found.content_hash) != (document_id, content_hash):
        place = FORMATS[source.format].line(line)
        message = "the source changed during the run"
        return Failure("read", document_id, piece.path, place, "BadDocumentError", message)
    previous = None if part is None else PreviousRow(part, row)
    try:
        columns = shape.column_values(found.source)
    except BadDocumentError as error:
        return Failure("read", found.id, *found.location, type(error).__name__, str(error))
    return Document(
        found.id, found.source, found.content_hash, found.location, columns, previous, found.brought
    )


class Extraction:
    """Extracts sketches and keeps the account of it.

    Args:
        extractor: the child processes.
        folder: the run's folder, where the account is left; None leaves none.
    """

    def __init__(self, extractor: Extractor, folder: str | None = None) -> None:
        self.extractor = extractor
        self.account = ExtractionFile(folder)

    def document(self, sketch: Sketch) -> Document | Failure:
        """The document of a sketch, or the failure that it became."""
        document, extracted = extract_document(sketch, self.extractor)
        if extracted is not None:
            fields = extracted.fields
            self.account.add(
                sketch.location.path, extracted.seconds, fields.get("pages", 0), len(fields["text"])
            )
        return document


def in_batches(documents: Iterable[Document | Failure]) -> Iterator[DocumentBatch | Failure]:
    """Put neighbouring documents together: what is done once a batch costs next to nothing a document.

    A batch is closed with `BATCH_DOCUMENTS`, `BATCH_CHARACTERS`, or when it is `BATCH_SECONDS` old: documents that are
    slow to read do not wait for one another.
    """
    batch = DocumentBatch()
    characters, opened = 0, 0.0
    for found in documents:
        if isinstance(found, Failure):
            yield found
            continue
        opened = opened if batch else time.monotonic()
        batch.append(found)
        characters += sum(len(value) for value in found.source.values() if isinstance(value, str))
        if (
            len(batch) == BATCH_DOCUMENTS
            or characters >= BATCH_CHARACTERS
            or time.monotonic() - opened >= BATCH_SECONDS
        ):
            yield batch
            batch, characters = DocumentBatch(), 0
    if batch:
        yield batch


@dataclass
class ReadWork(beam.PTransform):
    """Read the planned documents of splits.

    Two outputs: ``done`` holds batches of Documents, ``failed`` a Failure for each one that turned out unreadable.

    Attributes:
        source: how to read them.
        shape: the mapping.
        folder: the run's folder, with the work lists.
    """

    source: SourceFormat
    shape: DocumentShape
    folder: str

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, splits: beam.pvalue.PCollection[Split]) -> Any:
        """Wire the stage."""
        read = _ReadSplit(self.source, self.shape, self.folder)
        return splits | beam.ParDo(read).with_outputs(FAILED, main=DONE)


class _ReadSplit(beam.DoFn):
    """Reads the planned documents of one split."""

    documents_read = Metrics.counter("read", "documents_read")
    failures = Metrics.counter("read", "failures")

    def __init__(self, source: SourceFormat, shape: DocumentShape, folder: str) -> None:
        self.source = source
        self.shape = shape
        self.folder = folder
        self._shared = Shared()

    def setup(self) -> None:
        """Share the child processes with the other threads of this process."""
        extracts = FORMATS[self.source.format].is_folder
        self._extractor = self._shared.acquire(lambda: Extractor(self.source.extract)) if extracts else None

    def process(self, split: Split) -> Iterator[DocumentBatch]:
        """Read one split."""
        with files.open_read(work_path(self.folder, split.index)) as handle:
            work = pq.read_table(handle)
        extraction = Extraction(self._extractor, self.folder) if self._extractor is not None else None
        for found in in_batches(read_work(split, self.source, work, self.shape, extraction)):
            if isinstance(found, Failure):
                self.failures.inc()
                yield pvalue.TaggedOutput(FAILED, found)
            else:
                self.documents_read.inc(len(found))
                yield found
        if extraction is not None:
            extraction.account.write()

    def teardown(self) -> None:
        """Let go of the child processes."""
        self._extractor = None
