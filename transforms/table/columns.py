"""Embeddings as Arrow columns, and back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.embeddings import DenseEmbeddings, Embeddings, SparseEmbeddings
from transforms.records import EmbeddedField
from transforms.table.schema import ELEMENTS, SemanticColumn, semantic_type


def from_arrow(struct: pa.StructArray, rows: Sequence[int]) -> Embeddings:
    """Embeddings of some chunks of a single row's semantic struct."""
    chunks = struct.flatten()[1].flatten()
    truncated = chunks.field("is_truncated").take(pa.array(rows)).to_numpy(zero_copy_only=False)
    column = chunks.field("embeddings").take(pa.array(rows))
    tokens = np.zeros(len(rows), np.int32)
    if not pa.types.is_map(column.type):
        values = column.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), -1)
        return DenseEmbeddings(values, truncated, tokens)
    return _sparse(column, truncated, tokens)


def _sparse(
    column: pa.MapArray, truncated: npt.NDArray[np.bool_], tokens: npt.NDArray[np.int32]
) -> SparseEmbeddings:
    indptr = column.offsets.to_numpy().astype(np.int64)
    keys = column.keys.slice(indptr[0], indptr[-1] - indptr[0]).dictionary_encode()
    weights = column.items.slice(indptr[0], indptr[-1] - indptr[0]).to_numpy(zero_copy_only=False)
    return SparseEmbeddings(
        indptr - indptr[0],
        keys.indices.to_numpy().astype(np.int32),
        weights.astype(np.float32),
        keys.dictionary.to_pylist(),
        truncated,
        tokens,
    )


def to_arrow(fields: Sequence[EmbeddedField], column: SemanticColumn) -> pa.Array:
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
    type_ = ELEMENTS[element]
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
