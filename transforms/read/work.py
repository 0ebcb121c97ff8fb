"""Read the documents that a run has to work on: the plan names their lines, everything else is passed over."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam import pvalue
from apache_beam.metrics import Metrics

from transforms import files
from transforms.read.columns import plain_value
from transforms.read.documents import read_documents
from transforms.read.formats import FORMATS, SourceFormat
from transforms.read.readers import BadDocumentError
from transforms.records import DONE, FAILED, Document, Failure, PreviousRow, Split

WORK_SCHEMA = pa.schema(
    [
        pa.field("line", pa.int64()),
        pa.field("content_hash", pa.large_string()),
        pa.field("previous_part", pa.dictionary(pa.int32(), pa.string())),
        pa.field("previous_row", pa.int64()),
    ]
)
"""One row for each document of a split to work on, by line; `previous_*` is null for a new document."""


def work_path(folder: str, index: int) -> str:
    """Where the work list of a split is written."""
    return files.join(folder, f"work-{index:06d}.parquet")


def read_work(
    split: Split, source: SourceFormat, work: pa.Table, plain: dict[str, str]
) -> Iterator[Document | Failure]:
    """Read the documents of a split that its work list names.

    Args:
        split: what to read.
        source: how to read it.
        work: table of `WORK_SCHEMA`.
        plain: full name of each plain mapped field -> Arrow type of its column.
    """
    columns = (work.column(name).to_pylist() for name in WORK_SCHEMA.names)
    planned = zip(*columns, strict=True)
    entry = next(planned, None)
    for line, found in read_documents(split, source):
        if entry is None:
            return
        if line != entry[0]:
            continue
        yield _planned_document(split, source, line, found, entry, plain)
        entry = next(planned, None)
    while entry is not None:
        yield _source_changed(split, source, entry[0])
        entry = next(planned, None)


def _source_changed(split: Split, source: SourceFormat, line: int) -> Failure:
    # Without an id: what is in this line now may be another document, and that one did not fail.
    place = FORMATS[source.format].line(line)
    return Failure("read", None, split.path, place, "BadDocumentError", "the source changed during the run")


def _planned_document(
    split: Split,
    source: SourceFormat,
    line: int,
    found: Document | Failure | None,
    entry: tuple[Any, ...],
    plain: dict[str, str],
) -> Document | Failure:
    _, content_hash, part, row = entry
    if not isinstance(found, Document) or found.content_hash != content_hash:
        return _source_changed(split, source, line)
    previous = None if part is None else PreviousRow(part, row)
    try:
        columns = {name: plain_value(found.source, name, type_) for name, type_ in plain.items()}
    except BadDocumentError as error:
        return Failure("read", found.id, *found.location, type(error).__name__, str(error))
    return Document(found.id, found.source, found.content_hash, found.location, columns, previous)


@dataclass
class ReadWork(beam.PTransform):
    """Read the planned documents of splits.

    Two outputs: ``done`` holds the Documents, ``failed`` a Failure for each one that turned out unreadable.

    Attributes:
        source: how to read them.
        plain: full name of each plain mapped field -> Arrow type of its column.
        folder: the run's folder, with the work lists.
    """

    source: SourceFormat
    plain: dict[str, str]
    folder: str

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, splits: beam.pvalue.PCollection[Split]) -> Any:
        """Wire the stage."""
        read = _ReadSplit(self.source, self.plain, self.folder)
        return splits | beam.ParDo(read).with_outputs(FAILED, main=DONE)


class _ReadSplit(beam.DoFn):
    """Reads the planned documents of one split."""

    documents_read = Metrics.counter("read", "documents_read")
    failures = Metrics.counter("read", "failures")

    def __init__(self, source: SourceFormat, plain: dict[str, str], folder: str) -> None:
        self.source = source
        self.plain = plain
        self.folder = folder

    def process(self, split: Split) -> Iterator[Any]:
        """Read one split."""
        with files.open_read(work_path(self.folder, split.index)) as handle:
            work = pq.read_table(handle)
        for found in read_work(split, self.source, work, self.plain):
            if isinstance(found, Failure):
                self.failures.inc()
                yield pvalue.TaggedOutput(FAILED, found)
            else:
                self.documents_read.inc()
                yield found
