"""The fingerprint of a row: what it depends on besides its document. It is made, read and compared here only.

In the table it is a JSON object: for each semantic field ``<embedding>.<chunking>``, and under ``_row`` what concerns
the row as a whole. Where only the second part of a field changed, its embeddings hold for every text that stays.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from transforms.table.schema import TABLE_FORMAT

NO_EMBEDDING = ""
"""In a row's fingerprint: the row was kept when the field's model changed, and has no embedding in that field."""

GROUPING = 1
"""Raised when a change to this code puts other chunks together, or pools them otherwise, with late chunking."""

_ROW = "_row"


@dataclass(frozen=True)
class FieldIdentity:
    """What the chunks of a semantic field depend on besides the document.

    Attributes:
        embedding: fingerprint of the model, which changes when the same text would get another embedding.
        inference_ids: the endpoints that embed documents and queries.
        sources: the fields whose texts are embedded.
        chunking: the chunking settings as JSON.
    """

    embedding: str
    inference_ids: tuple[str, str]
    sources: tuple[str, ...]
    chunking: Mapping[str, Any]


def embedding_fingerprint(model: str, context: str | None, *, late_chunking: bool = False) -> str:
    """The fingerprint of a field's embeddings: its model's, and what the model sees besides the chunk.

    Args:
        model: fingerprint of the model.
        context: template of what stands before each chunk.
        late_chunking: whether chunks are embedded within their value; a mapping has that or a context.
    """
    if late_chunking:
        return _digest([model, {"late_chunking": GROUPING}])
    return model[:16] if context is None else _digest([model, context])


def make_fingerprint(
    fields: Mapping[str, FieldIdentity],
    columns: Sequence[Mapping[str, Any]],
    analyzers: Mapping[str, str],
    lists: Sequence[str],
) -> str:
    """Make the fingerprint of the rows that a run writes.

    Args:
        fields: semantic field -> what its chunks depend on.
        columns: the plain columns: name, type, format and whatever else shapes their values.
        analyzers: text field -> its analyzer.
        lists: the columns that the config makes lists, sorted.
    """
    parts = {
        name: f"{one.embedding}.{_digest([one.inference_ids, one.sources, one.chunking])}"
        for name, one in fields.items()
    }
    return _to_json({**parts, _ROW: _digest([TABLE_FORMAT, columns, analyzers, lists])})


def embedding_fingerprints(fingerprint: str) -> dict[str, str]:
    """Semantic field -> fingerprint of the embedding that a row holds; `NO_EMBEDDING` where it lost it."""
    parts = _parts(fingerprint)
    return {name: part.partition(".")[0] for name, part in parts.items() if name != _ROW}


def stale_fields(fingerprint: str, current: Mapping[str, str]) -> set[str]:
    """The `current` fields in which a row holds an embedding that another model made.

    Args:
        fingerprint: the row's.
        current: semantic field -> fingerprint that its embedding should have.
    """
    held = embedding_fingerprints(fingerprint)
    return {name for name, wanted in current.items() if held.get(name) not in (None, NO_EMBEDDING, wanted)}


def without_embeddings(fingerprint: str, fields: set[str]) -> str:
    """The fingerprint of a row that lost its embeddings in some fields."""
    return _to_json({**_parts(fingerprint), **dict.fromkeys(fields, NO_EMBEDDING)})


def is_fingerprint(fingerprint: str) -> bool:
    """Whether this program made it, as far as its form tells."""
    return _ROW in _parts(fingerprint)


def _parts(fingerprint: str) -> dict[str, str]:
    parts: dict[str, str] = orjson.loads(fingerprint)
    return parts


def _to_json(parts: Mapping[str, str]) -> str:
    return json.dumps(parts, sort_keys=True, separators=(",", ":"))


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()
