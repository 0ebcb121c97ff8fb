"""Write documents as Parquet part files of the table.

Workers write complete part files under names that no reader looks at; only the commit makes them part of the table.
Everything is Arrow from the model's arrays to the file.
"""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import apache_beam as beam
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from models.embeddings import DenseEmbeddings, SparseEmbeddings
from transforms import files
from transforms.measure import Histogram, count_words, histogram
from transforms.progress import ProgressFile
from transforms.records import ChunkedDocument, EmbeddedField, PartFile

METADATA_KEY = b"semantic_ingest"
"""Key of a part file's schema metadata that holds the table's description."""

ROW_GROUP_ROWS = 500

_ELEMENTS = {
    "float": pa.list_(pa.float32()),
    "byte": pa.list_(pa.int8()),
    "sparse": pa.map_(pa.string(), pa.float32()),
}


@dataclass(frozen=True, slots=True)
class SemanticColumn:
    """The column of one semantic_text field.

    Attributes:
        name: full name of the field.
        inference_id: the endpoint that embeds it.
        element: ``float``, ``byte`` (int8 values: element types byte and bit) or ``sparse``.
    """

    name: str
    inference_id: str
    element: str


@dataclass(frozen=True)
class TableLayout:
    """What a row holds.

    Attributes:
        plain: full name of each plain field -> Arrow type of its column.
        semantic: the semantic columns.
        fingerprint: of the rows that this run writes.
        description: JSON of mapping, endpoints and models; stored in every part file.
    """

    plain: dict[str, str]
    semantic: tuple[SemanticColumn, ...]
    fingerprint: str
    description: str

    def schema(self) -> pa.Schema:
        """The Arrow schema of the table."""
        fixed = [
            pa.field(name, pa.string())
            for name in ("_id", "_source", "content_hash", "fingerprint", "run_id")
        ]
        fixed.append(pa.field("ingested_at", pa.timestamp("us", tz="UTC")))
        plain = [pa.field(name, pa.type_for_alias(alias)) for name, alias in self.plain.items()]
        semantic = [pa.field(column.name, semantic_type(column.element)) for column in self.semantic]
        return pa.schema([*fixed, *plain, *semantic], metadata={METADATA_KEY: self.description.encode()})


def semantic_type(element: str) -> pa.DataType:
    """Arrow type of a semantic column whose embeddings are ``float``, ``byte`` or ``sparse``."""
    chunk = pa.struct(
        [
            pa.field("source_field", pa.string()),
            pa.field("start_offset", pa.int32()),
            pa.field("end_offset", pa.int32()),
            pa.field("is_truncated", pa.bool_()),
            pa.field("embeddings", _ELEMENTS[element]),
        ]
    )
    return pa.struct([pa.field("inference_id", pa.string()), pa.field("chunks", pa.list_(chunk))])


def build_table(
    documents: Sequence[ChunkedDocument], layout: TableLayout, run_id: str, ingested_at: datetime
) -> pa.Table:
    """Build the table's rows for documents whose semantic fields are all embedded, in order."""
    schema = layout.schema()
    rows = [document.document for document in documents]
    columns: list[Any] = [
        pa.array([row.id for row in rows], pa.string()),
        pa.array([orjson.dumps(row.source).decode() for row in rows], pa.string()),
        pa.array([row.content_hash for row in rows], pa.string()),
        pa.array([layout.fingerprint] * len(rows), pa.string()),
        pa.array([run_id] * len(rows), pa.string()),
        pa.array([ingested_at] * len(rows), schema.field("ingested_at").type),
    ]
    columns += [
        pa.array([row.columns.get(name) for row in rows], schema.field(name).type) for name in layout.plain
    ]
    columns += [
        _semantic_array([document.embedded[column.name] for document in documents], column)
        for column in layout.semantic
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _semantic_array(fields: Sequence[EmbeddedField], column: SemanticColumn) -> pa.Array:
    """One struct a document: the endpoint's id and the list of chunks; null where there is no text."""
    type_ = semantic_type(column.element)
    chunk_type = type_.field("chunks").type.value_type
    chunks = [chunk for field in fields for chunk in field.chunks]
    embeddings = [field.embeddings for field in fields if field.embeddings is not None and field.chunks]
    truncated = (
        np.concatenate([part.is_truncated for part in embeddings]) if embeddings else np.zeros(0, bool)
    )
    values = pa.StructArray.from_arrays(
        [
            pa.array([chunk.source_field for chunk in chunks], pa.string()),
            pa.array([chunk.start_offset for chunk in chunks], pa.int32()),
            pa.array([chunk.end_offset for chunk in chunks], pa.int32()),
            pa.array(truncated, pa.bool_()),
            _embedding_array(embeddings, column.element),
        ],
        fields=list(chunk_type),
    )
    lengths = np.array([len(field.chunks) for field in fields], np.int32)
    lists = pa.ListArray.from_arrays(pa.array(_offsets(lengths)), values).cast(type_.field("chunks").type)
    ids = pa.array([column.inference_id] * len(fields), pa.string())
    return pa.StructArray.from_arrays([ids, lists], fields=list(type_), mask=pa.array(lengths == 0))


def _embedding_array(embeddings: Sequence[DenseEmbeddings | SparseEmbeddings], element: str) -> pa.Array:
    type_ = _ELEMENTS[element]
    if not embeddings:
        return pa.array([], type_)
    if isinstance(embeddings[0], SparseEmbeddings):
        joined = SparseEmbeddings.concat([part for part in embeddings if isinstance(part, SparseEmbeddings)])
        tokens = pa.array(joined.vocabulary, pa.string()).take(pa.array(joined.token_ids))
        return pa.MapArray.from_arrays(
            pa.array(joined.indptr.astype(np.int32)), tokens, pa.array(joined.weights)
        )
    dense = np.concatenate([part.values for part in embeddings if isinstance(part, DenseEmbeddings)])
    count, dimensions = dense.shape
    offsets = _offsets(np.full(count, dimensions, np.int32))
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(dense.reshape(-1))).cast(type_)


def _offsets(lengths: np.ndarray[Any, np.dtype[np.int32]]) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def write_part(table: pa.Table, table_path: str, run_id: str) -> PartFile:
    """Write rows as one part file under a fresh name.

    The name is unique, so a retried bundle writes another file and the commit takes only the one it was told of.
    """
    name = f"part-{run_id}-{uuid.uuid4().hex[:12]}.parquet"
    with files.create(files.join(table_path, name)) as handle:
        pq.write_table(
            table, handle, compression="zstd", row_group_size=ROW_GROUP_ROWS, write_page_index=True
        )
        size = handle.tell()
    ids = table.column("_id").to_pylist()
    return PartFile(name, size, table.num_rows, min(ids), max(ids))


def count_work(documents: Sequence[ChunkedDocument]) -> dict[str, int]:
    """Sum up what was done for these documents."""
    counts = dict.fromkeys(("chunks", "embedded", "reused", "tokens", "truncated", "merged"), 0)
    for document in documents:
        for name, field in document.embedded.items():
            if field.embeddings is None:
                continue
            made = len(document.chunks[name])
            counts["chunks"] += len(field.chunks)
            counts["embedded"] += made - field.reused
            counts["reused"] += field.reused
            counts["tokens"] += int(field.embeddings.tokens.sum())
            counts["truncated"] += int(field.embeddings.is_truncated.sum())
            counts["merged"] += int(made > len(field.chunks))
    return counts


def token_lengths(documents: Sequence[ChunkedDocument]) -> dict[str, Histogram]:
    """Tokens a chunk by field, of the chunks that the model has seen in this run."""
    seen: dict[str, list[int]] = {}
    for document in documents:
        for name, field in document.embedded.items():
            if field.embeddings is not None:
                seen.setdefault(name, []).extend(field.embeddings.tokens.tolist())
    return {name: histogram(count for count in counts if count) for name, counts in seen.items()}


def word_lengths(documents: Sequence[ChunkedDocument]) -> dict[str, Histogram]:
    """Words a chunk by field. Counting words costs as much as chunking, so one document in sixteen stands for all."""
    sample = [document for document in documents if document.document.content_hash.startswith("0")]
    names = sample[0].chunks if sample else ()
    return {
        name: histogram(count_words(chunk.text) for document in sample for chunk in document.chunks[name])
        for name in names
    }


class WriteParts(beam.DoFn):
    """Collect embedded documents into part files; yields a PartFile for each one that is finished.

    A part is closed when it has `part_rows` documents or about `part_bytes` of memory, and at the end of a bundle.
    """

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
        progress_folder: str | None = None,
    ) -> None:
        self.layout = layout
        self.table_path = table_path
        self.run_id = run_id
        self.ingested_at = ingested_at
        self.part_rows = part_rows
        self.part_bytes = part_bytes
        self.progress_folder = progress_folder

    def setup(self) -> None:
        """Start the progress file of this worker."""
        self._progress = ProgressFile(self.progress_folder)

    def start_bundle(self) -> None:
        """Start with an empty buffer."""
        self._buffer: list[ChunkedDocument] = []
        self._bytes = 0

    def process(self, document: ChunkedDocument) -> Iterator[PartFile]:
        """Take one document; yields when a part is full."""
        self._buffer.append(document)
        self._bytes += _memory(document)
        self._progress.add(count_work([document]))
        if len(self._buffer) >= self.part_rows or self._bytes >= self.part_bytes:
            yield self._write()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Write what is left."""
        if self._buffer:
            yield WindowedValue(self._write(), GlobalWindow().max_timestamp(), (GlobalWindow(),))
        self._progress.flush()

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
        self.start_bundle()
        return part


def _memory(document: ChunkedDocument) -> int:
    """Roughly the bytes that a buffered document takes."""
    size = 500
    for field in document.embedded.values():
        size += sum(len(chunk.text) for chunk in field.chunks)
        if isinstance(field.embeddings, DenseEmbeddings):
            size += field.embeddings.values.nbytes
        elif field.embeddings is not None:
            size += field.embeddings.weights.nbytes * 4
    return size
