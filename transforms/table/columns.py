"""Semantic columns of the table: chunks and embeddings as Arrow, and back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.embeddings import DenseEmbeddings, Embeddings, SparseEmbeddings
from transforms.records import Chunk, EmbeddedField, joined_embeddings
from transforms.table.schema import ELEMENTS, SemanticColumn, semantic_type


@dataclass(frozen=True, slots=True)
class ChunkColumn:
    """The chunks that some rows of the table hold in one semantic field.

    Attributes:
        lengths: int64, number of chunks of each row; 0 for a row without text.
        chunks: struct array, the chunks of all rows in order.
    """

    lengths: npt.NDArray[np.int64]
    chunks: pa.StructArray

    @classmethod
    def of(cls, column: pa.StructArray | pa.ChunkedArray) -> "ChunkColumn":
        """Look into a column."""
        whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        lists = pc.struct_field(whole, "chunks")
        lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
        return cls(lengths.astype(np.int64), lists.flatten())

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """The row of each chunk."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """The position of each chunk in its row: its number among all, less the chunks of the rows before."""
        before = np.cumsum(self.lengths) - self.lengths
        return np.arange(self.lengths.sum()) - np.repeat(before, self.lengths)

    def field(self, name: str) -> pa.Array:
        """One value a chunk."""
        return pc.struct_field(self.chunks, name)

    def places(self) -> Iterator[tuple[str, int, int]]:
        """Yield source field, start and end offset of each chunk."""
        columns = (self.field(name).to_pylist() for name in ("source_field", "start_offset", "end_offset"))
        yield from zip(*columns, strict=True)


def from_arrow(chunks: pa.StructArray) -> Embeddings:
    """The embeddings of some chunks, one row each; `tokens` is 0, since the table does not hold it."""
    truncated = pc.struct_field(chunks, "is_truncated").to_numpy(zero_copy_only=False)
    column = pc.struct_field(chunks, "embeddings")
    tokens = np.zeros(len(chunks), np.int32)
    if not pa.types.is_map(column.type):
        return DenseEmbeddings(dense_values(column).reshape(len(chunks), -1), truncated, tokens)
    # A sliced array keeps the keys and items of its whole column; the offsets say which of them are its own.
    indptr = column.offsets.to_numpy().astype(np.int64)
    first, count = indptr[0], indptr[-1] - indptr[0]
    keys = column.keys.slice(first, count)
    if not pa.types.is_dictionary(keys.type):
        keys = keys.dictionary_encode()
    return SparseEmbeddings(
        indptr - first,
        keys.indices.to_numpy().astype(np.int32),
        column.items.slice(first, count).to_numpy(zero_copy_only=False).astype(np.float32),
        keys.dictionary.to_pylist(),
        truncated,
        tokens,
    )


def dense_values(embeddings: pa.ListArray | pa.ChunkedArray) -> npt.NDArray[Any]:
    """The numbers of dense embeddings, one embedding after the other."""
    whole = embeddings.combine_chunks() if isinstance(embeddings, pa.ChunkedArray) else embeddings
    values: npt.NDArray[Any] = whole.flatten().to_numpy(zero_copy_only=False)
    return values


def to_arrow(fields: Sequence[EmbeddedField], column: SemanticColumn) -> pa.Array:
    """One struct a document: the endpoint's id and the list of chunks; null where there is no text."""
    type_ = semantic_type(column.element)
    chunk_type = type_.field("chunks").type.value_type
    # Each attribute of all chunks.
    attributes = list(zip(*(chunk for field in fields for chunk in field.chunks), strict=True))
    names, _, starts, ends, *_ = attributes or [()] * len(Chunk._fields)
    embeddings = joined_embeddings(fields)
    truncated = (
        np.concatenate([part.is_truncated for part in embeddings]) if embeddings else np.zeros(0, bool)
    )
    values = pa.StructArray.from_arrays(
        [
            pa.array(names, pa.string()),
            pa.array(starts, pa.int32()),
            pa.array(ends, pa.int32()),
            pa.array(truncated, pa.bool_()),
            _embedding_array(embeddings, column.element),
        ],
        fields=list(chunk_type),
    )
    # Lists of chunks are one array of all chunks, and where each document's begin; a null stands for no text.
    lengths = np.array([len(field.chunks) for field in fields], np.int32)
    lists = pa.ListArray.from_arrays(pa.array(_offsets(lengths)), values).cast(type_.field("chunks").type)
    ids = pa.repeat(pa.scalar(column.inference_id, pa.string()), len(fields))
    return pa.StructArray.from_arrays([ids, lists], fields=list(type_), mask=pa.array(lengths == 0))


def _embedding_array(embeddings: Sequence[DenseEmbeddings | SparseEmbeddings], element: str) -> pa.Array:
    type_ = ELEMENTS[element]
    if not embeddings:
        return pa.array([], type_)
    if isinstance(embeddings[0], SparseEmbeddings):
        joined = SparseEmbeddings.concat([part for part in embeddings if isinstance(part, SparseEmbeddings)])
        # `concat` gives all parts one vocabulary; the table holds each token's text.
        tokens = pa.array(joined.vocabulary, pa.string()).take(pa.array(joined.token_ids))
        return pa.MapArray.from_arrays(
            pa.array(joined.indptr.astype(np.int32)), tokens, pa.array(joined.weights)
        )
    # Likewise a vector is a list of numbers; all have the same length.
    dense = np.concatenate([part.values for part in embeddings if isinstance(part, DenseEmbeddings)])
    count, dimensions = dense.shape
    offsets = _offsets(np.full(count, dimensions, np.int32))
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(dense.reshape(-1))).cast(type_)


def _offsets(lengths: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Where each list begins among the values of all, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
