"""Write documents as Parquet part files of the table.

Workers write complete part files under names that no reader looks at; only the commit makes them part of the table.
Everything is Arrow from the model's arrays to the file.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from models.embeddings import DenseEmbeddings
from transforms import exact_json
from transforms.batches import ChunkedBatch
from transforms.chunk.boundaries import count_words_of
from transforms.lengths import Histogram, histogram
from transforms.records import ChunkedDocument, EmbeddedField, PartFile, joined_embeddings
from transforms.table.columns import to_arrow
from transforms.table.parts import write_part
from transforms.table.schema import TableLayout


def build_table(
    documents: Sequence[ChunkedDocument], layout: TableLayout, run_id: str, ingested_at: datetime
) -> pa.Table:
    """Build the table's rows for documents whose semantic fields are all embedded, in order."""
    schema = layout.schema()
    rows = [document.document for document in documents]
    columns: list[Any] = [
        pa.array([row.id for row in rows], pa.string()),
        pa.array([exact_json.dumps(row.source) for row in rows], pa.string()),
        pa.array([row.content_hash for row in rows], pa.string()),
        pa.repeat(pa.scalar(layout.fingerprint, pa.string()), len(rows)),
        pa.repeat(pa.scalar(run_id, pa.string()), len(rows)),
        pa.repeat(pa.scalar(ingested_at, schema.field("ingested_at").type), len(rows)),
    ]
    columns += [
        pa.array([row.columns.get(name) for row in rows], schema.field(name).type) for name in layout.plain
    ]
    columns += [
        to_arrow([document.embedded[column.name] for document in documents], column)
        for column in layout.semantic
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def count_work(documents: Sequence[ChunkedDocument]) -> dict[str, int]:
    """Sum up what was done for these documents."""
    counts = dict.fromkeys(("chunks", "embedded", "reused", "tokens", "truncated", "merged"), 0)
    for name, fields in _by_name(documents).items():
        made = [len(document.chunks[name]) for document in documents]
        stored, reused = [len(field.chunks) for field in fields], sum(field.reused for field in fields)
        counts["chunks"] += sum(stored)
        counts["embedded"] += sum(made) - reused
        counts["reused"] += reused
        counts["merged"] += sum(before > after for before, after in zip(made, stored, strict=True))
        for part in joined_embeddings(fields):
            counts["tokens"] += int(part.tokens.sum(dtype=np.int64))
            counts["truncated"] += int(part.is_truncated.sum())
    return counts


def _by_name(documents: Sequence[ChunkedDocument]) -> dict[str, list[EmbeddedField]]:
    """Each semantic field of the documents, all of which have the same ones."""
    names = documents[0].embedded if documents else ()
    return {name: [document.embedded[name] for document in documents] for name in names}


def token_lengths(documents: Sequence[ChunkedDocument]) -> dict[str, Histogram]:
    """Tokens a chunk by field, of the chunks that the model has seen in this run."""
    histograms = {}
    for name, fields in _by_name(documents).items():
        if parts := joined_embeddings(fields):
            counts = np.concatenate([part.tokens for part in parts])
            histograms[name] = histogram(counts[counts > 0].tolist())
    return histograms


def word_lengths(documents: Sequence[ChunkedDocument]) -> dict[str, Histogram]:
    """Words a chunk by field. Counting words costs as much as chunking, so one document in sixteen stands for all."""
    sample = [document for document in documents if document.document.content_hash.startswith("0")]
    names = sample[0].chunks if sample else ()
    return {
        name: histogram(count_words_of([chunk.text for one in sample for chunk in one.chunks[name]]))
        for name in names
    }


@dataclass
class WriteParts(beam.PTransform):
    """Collect embedded documents into part files; gives a PartFile for each one that is finished.

    A part is closed when it has `part_rows` documents or about `part_bytes` of memory, before its first document is
    `part_seconds` old, and at the end of a bundle: whoever stops or kills a run loses no more than that.

    No document fails here: what cannot be written (a full disk, say) ends the run.

    Attributes:
        layout: what a row holds.
        table_path: the table.
        run_id: the run.
        ingested_at: its start, for the rows.
        part_rows: documents of a part at most.
        part_bytes: memory that they take, roughly, at most.
        part_seconds: age of its first document, in seconds, that it is written before.
    """

    layout: TableLayout
    table_path: str
    run_id: str
    ingested_at: datetime
    part_rows: int
    part_bytes: int
    part_seconds: float

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, documents: beam.pvalue.PCollection[ChunkedBatch]) -> beam.pvalue.PCollection[PartFile]:
        """Wire the stage."""
        write = _CollectParts(
            self.layout,
            self.table_path,
            self.run_id,
            self.ingested_at,
            self.part_rows,
            self.part_bytes,
            self.part_seconds,
        )
        return documents | beam.ParDo(write)


class _CollectParts(beam.DoFn):
    """Collects documents within a bundle; its arguments are those of `WriteParts`."""

    documents_written = Metrics.counter("write", "documents_written")
    chunks_written = Metrics.counter("write", "chunks_written")
    parts_written = Metrics.counter("write", "parts_written")

    def __init__(
        self,
        layout: TableLayout,
        table_path: str,
        run_id: str,
        ingested_at: datetime,
        part_rows: int,
        part_bytes: int,
        part_seconds: float,
    ) -> None:
        self.layout = layout
        self.table_path = table_path
        self.run_id = run_id
        self.ingested_at = ingested_at
        self.part_rows = part_rows
        self.part_bytes = part_bytes
        self.part_seconds = part_seconds

    def start_bundle(self) -> None:
        """Start with an empty buffer."""
        self._buffer: list[ChunkedDocument] = []
        self._bytes = 0
        self._opened = self._came = 0.0
        self._longest_wait = 0.0

    def process(self, documents: ChunkedBatch) -> Iterator[PartFile]:
        """Take the documents of one call of the model; yields when a part is full."""
        now = time.monotonic()
        if self._buffer:
            self._longest_wait = max(self._longest_wait, now - self._came)
        for document in documents:
            if not self._buffer:
                self._opened = now
            self._came = now
            self._buffer.append(document)
            self._bytes += _memory(document)
            if len(self._buffer) >= self.part_rows or self._bytes >= self.part_bytes:
                yield self._write()
        # A part closes with the last call that is sure to be in time: the next one may take as long as any before it.
        if self._buffer and now - self._opened + self._longest_wait >= self.part_seconds:
            yield self._write()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Write what is left."""
        if self._buffer:
            yield WindowedValue(self._write(), GlobalWindow().max_timestamp(), (GlobalWindow(),))

    def _write(self) -> PartFile:
        counts = count_work(self._buffer)
        table = build_table(self._buffer, self.layout, self.run_id, self.ingested_at)
        part = replace(
            write_part(table, self.table_path, self.run_id),
            counts=counts,
            token_lengths=token_lengths(self._buffer),
            word_lengths=word_lengths(self._buffer),
        )
        self.documents_written.inc(part.rows)
        self.chunks_written.inc(counts["chunks"])
        self.parts_written.inc()
        self._buffer, self._bytes = [], 0
        return part


def _memory(document: ChunkedDocument) -> int:
    """Roughly the bytes that a buffered document takes."""
    size = 500
    for field in document.embedded.values():
        count, batch = len(field.chunks), field.batch
        size += sum([len(chunk.text) for chunk in field.chunks])
        if isinstance(batch, DenseEmbeddings):
            size += count * batch.values.nbytes // len(batch)
        elif batch is not None:
            size += int(batch.indptr[field.first + count] - batch.indptr[field.first]) * 16
    return size
