"""The chunk rows of a unit: which documents its chunks belong to, where they lie in their texts, and what they say."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from transforms.index.state import CHUNKS, Ints, UnitState
from transforms.index.texts import Texts
from transforms.table.columns import ChunkColumn


class ChunksDiffer(Exception):
    """Two fields of a unit turned out to have different chunks; they need units of their own."""


@dataclass(frozen=True)
class Spans:
    """The chunks of a batch, in order.

    Attributes:
        rows: row of each chunk's document in the batch.
        positions: position of the chunk in its document.
        sources: the field that holds its text.
        starts: first UTF-16 code unit.
        ends: UTF-16 code unit after the last one.
    """

    rows: Ints
    positions: Ints
    sources: list[str]
    starts: Ints
    ends: Ints


def field_spans(batch: pa.RecordBatch, unit: UnitState) -> Spans:
    """The chunks of a unit's semantic fields, which must be the same in all of them."""
    column = ChunkColumn.of(batch.column(unit.fields[0]))
    for name in unit.fields[1:]:
        other = ChunkColumn.of(batch.column(name))
        same = np.array_equal(column.lengths, other.lengths) and all(
            column.field(place).equals(other.field(place))
            for place in ("source_field", "start_offset", "end_offset")
        )
        if not same:
            raise ChunksDiffer(f"{unit.fields[0]} and {name} have different chunks")
    starts, ends = (column.field(name).to_numpy().astype(np.int64) for name in ("start_offset", "end_offset"))
    return Spans(column.rows, column.positions, column.field("source_field").to_pylist(), starts, ends)


def value_spans(texts: Texts, name: str) -> Spans:
    """Whole values as chunks: what BM25 needs of a text field that no semantic field embeds."""
    found = [
        (row, data, offsets)
        for (row, field_name), (_, data, offsets) in texts.values.items()
        if field_name == name
    ]
    rows = np.array([row for row, _, _ in found], np.int64)
    # A text whose UTF-8 has no byte more than it has characters is ASCII: its bytes are its UTF-16 code units.
    ends = np.array(
        [len(data) if offsets is None else len(offsets) - 1 for _, data, offsets in found], np.int64
    )
    zeros = np.zeros(len(rows), np.int64)
    return Spans(rows, zeros, [name] * len(rows), zeros, ends)


def chunk_rows(
    spans: Spans, unit: UnitState, texts: Texts, document: int
) -> tuple[pa.RecordBatch, list[str]]:
    """The rows of `CHUNKS` for a batch, and the chunks' texts."""
    source_numbers = {name: number for number, name in enumerate(unit.sources)}
    begins, sizes, pieces, pages = [], [], [], []
    for row, name, start, end in zip(
        spans.rows.tolist(), spans.sources, spans.starts.tolist(), spans.ends.tolist(), strict=True
    ):
        begin, data, offsets = texts.values.get((row, name), (0, b"", None))
        # UTF-16 offsets become bytes of UTF-8; in ASCII they are the same.
        first, last = (start, end) if offsets is None else (int(offsets[start]), int(offsets[end]))
        piece = data[first:last]
        begins.append(begin + first)
        sizes.append(len(piece))
        text = piece.decode("utf-8", "replace")
        pieces.append(text)
        # A separator before the first letter may still lie on the page before.
        pages.append(texts.page(row, name, start + len(text) - len(text.lstrip())))
    columns = [
        pa.array((spans.rows + document).astype(np.int32)),
        pa.array([source_numbers[name] for name in spans.sources], pa.int16()),
        pa.array(spans.starts.astype(np.int32)),
        pa.array(spans.ends.astype(np.int32)),
        pa.array(begins, pa.int64()),
        pa.array(sizes, pa.int32()),
        pa.array(pages, pa.int32()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=CHUNKS), pieces
