"""Embeddings that a document brings along, as one from an Elasticsearch index does: used where they are this run's.

They are taken over chunk by chunk where the field has the same endpoint with the same model settings, and a chunk the
same offsets in the same source field, so that chunking and text agree too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.embeddings import DenseEmbeddings, Embeddings, SparseEmbeddings
from transforms.embed.merge import MAX_CHUNKS
from transforms.records import Chunk


@dataclass(frozen=True, slots=True)
class Accepted:
    """What brought embeddings of a field must be made by.

    Attributes:
        inference_id: the endpoint.
        model_settings: its task type, and for dense embeddings dimensions, similarity and element type.
    """

    inference_id: str
    model_settings: Mapping[str, Any]


def brought_embeddings(
    brought: Any, chunks: Sequence[Chunk], accepted: Accepted
) -> tuple[dict[int, int], Embeddings] | None:
    """Find the chunks whose embeddings a document brings.

    Args:
        brought: the field's entry in ``_inference_fields``, as Elasticsearch stores it.
        chunks: the document's chunks in the field.
        accepted: what the embeddings must be made by.

    Returns:
        Position of a chunk -> row of the embeddings, and these; None where there are none.
    """
    inference = brought.get("inference") if isinstance(brought, Mapping) else None
    if not isinstance(inference, Mapping) or not _agrees(inference, accepted):
        return None
    stored = _by_place(inference.get("chunks"))
    if not stored or len(stored) >= MAX_CHUNKS:
        return None  # some may be folded: then their embedding is not that of their text
    found = [
        (position, stored[place]) for position, chunk in enumerate(chunks) if (place := chunk.place) in stored
    ]
    embeddings = _embeddings([embedding for _, embedding in found], accepted) if found else None
    if embeddings is None:
        return None
    return {position: row for row, (position, _) in enumerate(found)}, embeddings


def _agrees(inference: Mapping[str, Any], accepted: Accepted) -> bool:
    settings = inference.get("model_settings") or {}
    names = ("task_type", "dimensions", "similarity", "element_type")
    return inference.get("inference_id") == accepted.inference_id and all(
        settings[name] == accepted.model_settings.get(name)
        for name in names
        if settings.get(name) is not None
    )


def _by_place(chunks: Any) -> dict[tuple[Any, ...], Any]:
    """Source field, start and end of each stored chunk -> its embedding."""
    if not isinstance(chunks, Mapping):
        return {}
    return {
        (name, chunk.get("start_offset"), chunk.get("end_offset")): chunk.get("embeddings")
        for name, listed in chunks.items()
        for chunk in (listed if isinstance(listed, list) else [listed])
        if isinstance(chunk, Mapping)
    }


def _embeddings(values: Sequence[Any], accepted: Accepted) -> Embeddings | None:
    """Stored embeddings as arrays; None where one is not what the settings say."""
    truncated, tokens = np.zeros(len(values), bool), np.zeros(len(values), np.int32)
    if accepted.model_settings.get("task_type") == "sparse_embedding":
        if not all(
            isinstance(one, Mapping) and one and all(_is_weight(w) for w in one.values()) for one in values
        ):
            return None
        return _sparse(values, truncated, tokens)
    kind = np.int8 if accepted.model_settings.get("element_type") in ("byte", "bit") else np.float32
    lengths = {len(one) if isinstance(one, list) else -1 for one in values}
    if len(lengths) != 1 or -1 in lengths:
        return None
    array: Any = np.array(values, kind)
    return DenseEmbeddings(array, truncated, tokens) if np.isfinite(array).all() else None


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < float("inf")


def _sparse(values: Sequence[Mapping[str, float]], truncated: Any, tokens: Any) -> SparseEmbeddings:
    vocabulary = sorted({token for one in values for token in one})
    ids = {token: number for number, token in enumerate(vocabulary)}
    rows = [sorted(one.items(), key=lambda entry: (-entry[1], entry[0])) for one in values]
    return SparseEmbeddings(
        np.cumsum([0, *map(len, rows)]).astype(np.int64),
        np.array([ids[token] for row in rows for token, _ in row], np.int32),
        np.array([weight for row in rows for _, weight in row], np.float32),
        vocabulary,
        truncated,
        tokens,
    )
