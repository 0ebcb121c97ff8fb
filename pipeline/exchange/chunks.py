"""The one stream of chunks that everything which leaves the table is made of."""

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from models.embeddings import DenseEmbeddings
from models.text import Utf16Text
from pipeline.errors import PipelineError, did_you_mean
from pipeline.exchange.rows import TableRows
from transforms.field_values import joined_values
from transforms.index.state import Ints
from transforms.table.columns import ChunkColumn, from_arrow


def chunk_texts(column: ChunkColumn, sources: Sequence[Mapping[str, Any]]) -> tuple[list[str], Ints, Ints]:
    """The text of each chunk, and its offsets in code points.

    Args:
        column: a semantic column.
        sources: ``_source`` of each row.
    """
    rows, fields = column.rows, column.field("source_field")
    first, last = (column.field(name).to_pylist() for name in ("start_offset", "end_offset"))
    texts: list[str] = []
    for start, end in itertools.pairwise(_runs(rows, fields)):
        text = Utf16Text(joined_values(sources[rows[start]], fields[start].as_py()))
        if text.length != len(text.text):
            for at in range(start, end):
                first[at], last[at] = text.position(first[at]), text.position(last[at])
        whole = text.text
        texts += [whole[one:other] for one, other in zip(first[start:end], last[start:end], strict=True)]
    return texts, np.array(first, np.int64), np.array(last, np.int64)


def _runs(rows: Ints, fields: pa.Array) -> list[int]:
    """Where the chunks of one text begin, and where the last ones end."""
    numbers = fields.dictionary_encode().indices.to_numpy()
    changes = (np.diff(rows) != 0) | (np.diff(numbers) != 0)
    return [*([0] if len(rows) else []), *(np.flatnonzero(changes) + 1).tolist(), len(rows)]


class Vocabulary:
    """Numbers for tokens, for engines whose sparse vectors have no names. A token keeps its number for ever.

    Attributes:
        tokens: the tokens, by number.
    """

    def __init__(self, tokens: Sequence[str] = ()) -> None:
        self.tokens = list(tokens)
        # A token that is looked up for the first time gets the next number.
        self._numbers: defaultdict[str, int] = defaultdict(itertools.count(len(self.tokens)).__next__)
        self._numbers.update(zip(self.tokens, itertools.count(), strict=False))

    def __len__(self) -> int:
        return len(self.tokens)

    def numbers(self, tokens: Sequence[str]) -> npt.NDArray[np.int32]:
        """The numbers of some tokens; a new token gets the next one."""
        numbers = np.fromiter(map(self._numbers.__getitem__, tokens), np.int32, len(tokens))
        fresh = itertools.islice(reversed(self._numbers), len(self._numbers) - len(self.tokens))
        self.tokens += [*fresh][::-1]
        return numbers


def chunk_ids(document_ids: Sequence[str], field: str, positions: Sequence[int]) -> pa.Array:
    """The ids of chunks: always the same for the same place, and UUIDs, since some engines take nothing else.

    Args:
        document_ids: the document of each chunk.
        field: the semantic field.
        positions: the position of each chunk in its document.
    """
    ends = [f"\0{field}\0{position}" for position in range(max(positions, default=-1) + 1)]
    digests = b"".join(
        hashlib.blake2b((id_ + ends[position]).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        for id_, position in zip(document_ids, positions, strict=True)
    )
    digits = np.frombuffer(digests.hex().encode(), np.uint8).reshape(-1, 32)
    # Groups of 8, 4, 4, 4 and 12 digits; two of them say that it is version 8 of RFC 9562, made by a rule of our own.
    ids = np.insert(digits, (8, 12, 16, 20), ord("-"), axis=1)
    ids[:, 14], ids[:, 19] = ord("8"), ord("b")
    offsets = np.arange(len(ids) + 1, dtype=np.int32) * 36
    return pa.StringArray.from_buffers(
        len(ids), pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(ids))
    )


@dataclass(frozen=True)
class ChunkSchema:
    """What a row of the chunk stream of one semantic field holds.

    Attributes:
        field: the semantic field.
        kind: ``float``, ``byte`` or ``sparse``.
        size: numbers in each embedding; None where it is sparse.
        similarity: how dense embeddings are compared; None where they are sparse.
        plain: plain columns of the table -> their type.
    """

    field: str
    kind: str
    size: int | None
    similarity: str | None
    plain: Mapping[str, pa.DataType]

    @property
    def is_sparse(self) -> bool:
        """Whether there are tokens and weights instead of an embedding."""
        return self.kind == "sparse"

    def to_arrow(self) -> pa.Schema:
        """The Arrow schema."""
        names = ("chunk_id", "_id", "field", "source_field")
        columns: list[tuple[str, pa.DataType]] = [(name, pa.string()) for name in names]
        offsets = ("start_offset", "end_offset", "start_code_point", "end_code_point")
        columns += [(name, pa.int32()) for name in offsets]
        columns.append(("text", pa.string()))
        if self.is_sparse:
            columns += [("token_ids", pa.list_(pa.int32())), ("weights", pa.list_(pa.float32()))]
        else:
            element = pa.int8() if self.kind == "byte" else pa.float32()
            columns.append(("embedding", pa.list_(element, self.size)))
        return pa.schema([*columns, *self.plain.items()])


def chunk_schemas(
    rows: TableRows, fields: Sequence[str] = (), columns: Sequence[str] = ()
) -> list[ChunkSchema]:
    """What the streams of some semantic fields hold.

    Args:
        rows: the rows.
        fields: the semantic fields; none for all.
        columns: plain columns that every chunk repeats.

    Raises:
        PipelineError: a name is unknown.
    """
    for name in fields:
        if name not in rows.fields:
            raise PipelineError(
                f"the table has no semantic field [{name}]{did_you_mean(name, rows.fields)}; it has "
                f"{', '.join(rows.fields) or 'none'}"
            )
    plain = _plain_types(rows, columns)
    return [_schema(name, rows.fields[name]["model_settings"], plain) for name in fields or rows.fields]


def _schema(field: str, settings: Mapping[str, Any], plain: Mapping[str, pa.DataType]) -> ChunkSchema:
    if settings["task_type"] == "sparse_embedding":
        return ChunkSchema(field, "sparse", None, None, plain)
    element = settings.get("element_type") or "float"
    size = int(settings["dimensions"]) // (8 if element == "bit" else 1)
    kind = "float" if element == "float" else "byte"
    return ChunkSchema(field, kind, size, str(settings.get("similarity") or "cosine"), plain)


def _plain_types(rows: TableRows, columns: Sequence[str]) -> dict[str, pa.DataType]:
    if not columns or not rows.snapshot.parts:
        return {}
    from transforms.table.parts import open_part

    schema = open_part(rows.snapshot.path, rows.snapshot.parts[-1]).schema_arrow
    known = [name for name in schema.names if name not in (*rows.fields, "_id", "_source")]
    for name in columns:
        if name not in known:
            raise PipelineError(
                f"the table has no column [{name}]{did_you_mean(name, known)}; it has {', '.join(known)}"
            )
    return {name: schema.field(name).type for name in columns}


def python_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows for clients that write JSON: integers beyond 63 bits are plain numbers, not decimals."""
    rows: list[dict[str, Any]] = batch.to_pylist()
    for name, kind in zip(batch.schema.names, batch.schema.types, strict=True):
        is_list = pa.types.is_list(kind)
        if pa.types.is_decimal(kind.value_type if is_list else kind):
            for row in rows:
                if (value := row[name]) is not None:
                    row[name] = (
                        [None if one is None else int(one) for one in value] if is_list else int(value)
                    )
    return rows


def iter_chunks(rows: TableRows, schema: ChunkSchema, vocabulary: Vocabulary) -> Iterator[pa.RecordBatch]:
    """Yield one row a chunk, in a fixed order; memory stays that of one row group of the table.

    Args:
        rows: the rows of the table.
        schema: what is wanted of them.
        vocabulary: numbers of tokens; tokens that it lacks are added.
    """
    for part in rows.parts():
        yield from part_chunks(rows, part, schema, vocabulary)


def part_chunks(
    rows: TableRows, part: str, schema: ChunkSchema, vocabulary: Vocabulary
) -> Iterator[pa.RecordBatch]:
    """The chunks of one part file; see `iter_chunks`."""
    for table in rows.read(part, ["_id", "_source", *schema.plain, schema.field]):
        if schema.field in table.column_names:
            batch = _batch(table, schema, vocabulary)
            if batch.num_rows:
                yield batch


def _batch(table: pa.Table, schema: ChunkSchema, vocabulary: Vocabulary) -> pa.RecordBatch:
    column = ChunkColumn.of(table[schema.field])
    sources = [orjson.loads(source) for source in table["_source"].to_pylist()]
    texts, first, last = chunk_texts(column, sources)
    arrow = schema.to_arrow()
    parents = pa.array(column.rows)
    repeated = ["_id", *(name for name in schema.plain if name in table.column_names)]
    plain = {name: table[name].combine_chunks().take(parents) for name in repeated}
    columns: dict[str, Any] = {
        "chunk_id": chunk_ids(plain["_id"].to_pylist(), schema.field, column.positions.tolist()),
        "field": [schema.field] * len(texts),
        **{name: column.field(name) for name in ("source_field", "start_offset", "end_offset")},
        "start_code_point": first,
        "end_code_point": last,
        "text": texts,
        **_embedding_columns(column, arrow, vocabulary),
        **plain,
    }
    arrays = [_array(columns.get(one.name), one.type, len(texts)) for one in arrow]
    return pa.RecordBatch.from_arrays(arrays, schema=arrow)


def _array(values: Any, type_: pa.DataType, length: int) -> pa.Array:
    if values is None:
        return pa.nulls(length, type_)
    return values if isinstance(values, pa.Array) and values.type == type_ else pa.array(values, type_)


def _embedding_columns(column: ChunkColumn, schema: pa.Schema, vocabulary: Vocabulary) -> dict[str, pa.Array]:
    if not len(column.chunks):
        return {}
    embeddings = from_arrow(column.chunks)
    if isinstance(embeddings, DenseEmbeddings):
        values = pa.array(embeddings.values.reshape(-1))
        return {"embedding": pa.FixedSizeListArray.from_arrays(values, type=schema.field("embedding").type)}
    starts = pa.array(embeddings.indptr.astype(np.int32))
    numbers = vocabulary.numbers(embeddings.vocabulary)[embeddings.token_ids]
    return {
        "token_ids": pa.ListArray.from_arrays(starts, pa.array(numbers)),
        "weights": pa.ListArray.from_arrays(starts, pa.array(embeddings.weights)),
    }
