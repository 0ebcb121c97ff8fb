"""Index some of a table's documents aside: a shard, which the update then joins to the index.

A shard has the files of an index (texts, vectors, chunk rows, tantivy folders) for its own documents. Shards
are built by several processes at once and share nothing; document numbers are final from the start, so
joining them is appending files and naming tantivy segments.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.embeddings import SparseEmbeddings
from transforms import exact_json
from transforms.index.chunk_rows import chunk_rows, field_spans, value_spans
from transforms.index.filter_values import filter_type, filter_values
from transforms.index.sparse_terms import bit_terms, write_tokens
from transforms.index.state import (
    CHUNK_BITS,
    CHUNKS,
    KEY_BYTES,
    IndexState,
    IndexUnusable,
    Ints,
    UnitState,
    document_keys,
)
from transforms.index.tantivy_schema import spaced, sparse_field, text_analyzer, unit_schema
from transforms.index.texts import Texts, write_texts
from transforms.table.columns import ChunkColumn, dense_values, from_arrow
from transforms.table.parts import open_part

BATCH_BYTES = 32 * 1024 * 1024
"""Rows are read in batches of about this many bytes of Arrow memory."""

WRITER_BYTES = 256 * 1024 * 1024
"""Memory of a tantivy writer: when it is full, a segment is written."""


@dataclass(frozen=True)
class PartRows:
    """Rows of one part file.

    Attributes:
        name: the part, relative to the table.
        number: the part's number in the index.
        rows: row numbers to index, ascending; None for all.
        count: how many rows that is.
    """

    name: str
    number: int
    rows: Ints | None
    count: int


@dataclass(frozen=True)
class ShardTask:
    """What one process indexes.

    Attributes:
        folder: where the shard is written.
        table_path: the table.
        state: the index that the shard will belong to.
        parts: the rows to index.
        first_document: number of the first document.
    """

    folder: str
    table_path: str
    state: IndexState
    parts: tuple[PartRows, ...]
    first_document: int


@dataclass
class _Unit:
    """A unit while it is being written."""

    state: UnitState
    writer: Any
    schema: Any
    chunks: Any
    vectors: dict[str, IO[bytes]] = field(default_factory=dict)
    norms: dict[str, IO[bytes]] = field(default_factory=dict)
    tokens: dict[str, Counter[str]] = field(default_factory=dict)


def build_shard(task: ShardTask) -> str:
    """Index the task's rows into its folder.

    Returns:
        The folder.

    Raises:
        ChunksDiffer: fields that were expected to have the same chunks do not.
        IndexUnusable: a row does not fit the index.
    """
    folder = Path(task.folder)
    folder.mkdir(parents=True)
    units = [_open_unit(folder, unit, task.state) for unit in task.state.units]
    documents: list[pa.RecordBatch] = []
    document = task.first_document
    try:
        with (folder / "texts.bin").open("wb") as texts:
            for part in task.parts:
                for batch in _batches(task, part):
                    documents.append(_document_rows(batch, part.number, task.state))
                    written = write_texts(batch, task.state, texts)
                    for unit in units:
                        _index_batch(batch, unit, written, document, task.state)
                    document += batch.num_rows
    except BaseException:
        for unit in units:
            _abandon_unit(unit)
        raise
    with pa.OSFile(str(folder / "documents.arrow"), "wb") as file:
        schema = documents_schema(task.state)
        with pa.ipc.new_file(file, schema) as out:
            for rows in documents:
                out.write_batch(rows)
    for unit in units:
        _close_unit(folder, unit)
    return task.folder


def _abandon_unit(unit: _Unit) -> None:
    """Let go of a unit's files, so that its folder can be removed: a second try writes to the same place."""
    for stream in (*unit.vectors.values(), *unit.norms.values(), unit.chunks):
        stream.close()
    unit.writer.rollback()
    unit.writer.wait_merging_threads()


def documents_schema(state: IndexState) -> pa.Schema:
    """Schema of ``documents.arrow``; a field that filters can use is a list of all its values."""
    plain = [pa.field(name, pa.list_(filter_type(field.type))) for name, field in state.filters().items()]
    fixed = [("_id", pa.large_string()), ("key", pa.binary(KEY_BYTES)), ("part", pa.int32())]
    return pa.schema([*(pa.field(*column) for column in fixed), *plain])


def _open_unit(folder: Path, unit: UnitState, state: IndexState) -> _Unit:
    import tantivy

    path = folder / unit.name
    path.mkdir()
    schema = unit_schema(unit, state)
    index = tantivy.Index(schema, path=str(path))
    index.register_tokenizer(unit.analyzer, text_analyzer(unit.analyzer))
    chunks = pa.ipc.new_file(str(folder / f"{unit.name}.chunks.arrow"), CHUNKS)
    opened = _Unit(unit, index.writer(WRITER_BYTES, 1), schema, chunks)
    for name in unit.fields:
        if state.fields[name].task_type == "text_embedding":
            opened.vectors[name] = (folder / Path(state.vectors_path(name)).name).open("wb")
            opened.norms[name] = (folder / Path(state.norms_path(name)).name).open("wb")
        else:
            opened.tokens[name] = Counter()
    return opened


def _close_unit(folder: Path, unit: _Unit) -> None:
    unit.writer.commit()
    unit.writer.wait_merging_threads()
    unit.chunks.close()
    for file in (*unit.vectors.values(), *unit.norms.values()):
        file.close()
    for name, counts in unit.tokens.items():
        write_tokens(folder / f"tokens-{unit.state.name}-{unit.state.fields.index(name)}.arrow", counts)


def _batches(task: ShardTask, part: PartRows) -> Iterator[pa.RecordBatch]:
    """Read the wanted rows of a part, a bounded number of bytes at a time."""
    file = open_part(task.table_path, part.name)
    wanted = ["_id", "_source", "content_hash", "fingerprint", *task.state.fields]
    columns = [name for name in wanted if name in file.schema_arrow.names]
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    # From the part's own statistics, so that rows with many vectors come in small batches.
    row_bytes = sum(group.total_byte_size for group in groups) / max(file.metadata.num_rows, 1)
    first = 0
    for batch in file.iter_batches(
        batch_size=int(max(1, min(4096, BATCH_BYTES / max(row_bytes, 1)))), columns=columns
    ):
        # The wanted rows are numbered within the part; `first` turns them into rows of this batch.
        last = first + batch.num_rows
        if part.rows is None:
            yield batch
        else:
            inside = part.rows[(part.rows >= first) & (part.rows < last)] - first
            if len(inside):
                yield batch.take(pa.array(inside))
        first = last


def _document_rows(batch: pa.RecordBatch, part: int, state: IndexState) -> pa.RecordBatch:
    schema = documents_schema(state)
    columns = [
        batch.column("_id").cast(pa.large_string()),
        pa.array(document_keys(batch), pa.binary(KEY_BYTES)),
    ]
    columns.append(pa.array(np.full(batch.num_rows, part, np.int32)))
    filters = state.filters()
    sources = [exact_json.loads(raw) for raw in batch.column("_source").to_pylist()] if filters else []
    for plain in filters.values():
        values = [filter_values(plain, source) for source in sources]
        columns.append(pa.array(values, pa.list_(filter_type(plain.type))))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _index_batch(batch: pa.RecordBatch, unit: _Unit, texts: Texts, document: int, state: IndexState) -> None:
    spans = field_spans(batch, unit.state) if unit.state.fields else value_spans(texts, unit.state.sources[0])
    rows, pieces = chunk_rows(spans, unit.state, texts, document)
    unit.chunks.write_batch(rows)
    slices = [
        (sparse_field(state.field_number(name)), _bit_slices(batch, name, unit, state))
        for name in unit.tokens
    ]
    for name in unit.vectors:
        _write_vectors(batch, name, state, unit)
    # One number names a chunk: its document above, its position in the document in the lowest bits.
    ids = ((spans.rows + document) << CHUNK_BITS) + spans.positions
    _add_documents(unit, ids.tolist(), rows, pieces, slices)


def _bit_slices(batch: pa.RecordBatch, name: str, unit: _Unit, state: IndexState) -> list[str]:
    """The bit-slice terms of each chunk's quantized weights, as one blank-separated string a chunk."""
    embeddings = from_arrow(ChunkColumn.of(batch.column(name)).chunks)
    assert isinstance(embeddings, SparseEmbeddings)
    # One step for the whole index: level 255 is the largest weight that there was when it was built.
    levels = np.rint(embeddings.weights / state.fields[name].step).astype(np.int64)
    tokens, vocabulary = embeddings.token_ids.astype(np.int64), embeddings.vocabulary
    counts = np.bincount(tokens, minlength=len(vocabulary)).tolist()
    unit.tokens[name].update(dict(zip(vocabulary, counts, strict=True)))
    terms, terms_of_weight = bit_terms(vocabulary, levels, tokens)
    # Weights become terms, some none and some several: chunk i ends behind the terms of its last weight.
    ends = np.concatenate([[0], np.cumsum(terms_of_weight)])[embeddings.indptr]
    lists = pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), terms)
    return pc.binary_join(lists, " ").to_pylist()


def _write_vectors(batch: pa.RecordBatch, name: str, state: IndexState, unit: _Unit) -> None:
    column = ChunkColumn.of(batch.column(name))
    values = dense_values(column.field("embeddings"))
    field_state = state.fields[name]
    if len(values) != len(column.chunks) * field_state.stored_dimensions:
        raise IndexUnusable(
            f"[{name}] has embeddings that are not of {field_state.dimensions} dimensions, as its endpoint says"
        )
    # Lengths are taken once, so that a search divides instead of summing squares.
    vectors = np.ascontiguousarray(values, field_state.dtype).reshape(-1, field_state.stored_dimensions)
    unit.vectors[name].write(vectors.data)
    unit.norms[name].write(np.linalg.norm(vectors.astype(np.float32), axis=1).astype("<f4").data)


def _add_documents(
    unit: _Unit, ids: list[int], rows: pa.RecordBatch, pieces: list[str], slices: list[tuple[str, list[str]]]
) -> None:
    import tantivy

    documents, sources = rows.column("document").to_pylist(), rows.column("source").to_pylist()
    for at, piece in enumerate(pieces):
        # Typed adders: a keyword argument is typed by its value, and a wrong type kills the writer's thread.
        document = tantivy.Document()
        document.add_unsigned("chunk", ids[at])
        document.add_unsigned("document", documents[at])
        document.add_text(f"text{sources[at]}", spaced(piece))
        for name, values in slices:
            document.add_text(name, values[at])
        unit.writer.add_document(document)
