"""Hold embeddings against each other: those of the table's parts, and those that a service gives today."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.embeddings import Embeddings, SparseEmbeddings
from models.text import Utf16Text
from transforms import exact_json
from transforms.chunk.context import ChunkContexts
from transforms.embed.merge import MAX_CHUNKS
from transforms.field_values import joined_values
from transforms.records import SemanticField
from transforms.table.columns import ChunkColumn, from_arrow
from transforms.table.fingerprint import NO_EMBEDDING, embedding_fingerprints
from transforms.table.parts import open_part

ROWS_LOOKED_AT = 200


@dataclass(frozen=True)
class KnownChunk:
    """A chunk of the table.

    Attributes:
        text: its text as the model saw it, with the header that its field puts before it.
        embeddings: its embedding, the only row.
    """

    text: str
    embeddings: Embeddings


def known_chunk(path: str, parts: Sequence[str], field: SemanticField, fingerprint: str) -> KnownChunk | None:
    """A chunk of a field that some model embedded whole; None where the first rows of the parts have none.

    Args:
        path: the table.
        parts: where to look.
        field: the field.
        fingerprint: of the embedding.
    """
    name = field.name
    for part in parts:
        file = open_part(path, part)
        if name not in file.schema_arrow.names or not file.num_row_groups:
            continue
        rows = file.read_row_group(0, columns=["_source", "fingerprint", name]).slice(0, ROWS_LOOKED_AT)
        column = ChunkColumn.of(rows.column(name))
        held = rows.column("fingerprint").to_pylist()
        truncated = column.field("is_truncated").to_pylist()
        merged = column.lengths >= MAX_CHUNKS  # then an embedding may be that of several chunks
        for chunk, (row, place) in enumerate(zip(column.rows.tolist(), column.places(), strict=True)):
            if embedding_fingerprints(held[row]).get(name) == fingerprint and not (
                truncated[chunk] or merged[row]
            ):
                source, start, end = place
                document = exact_json.loads(rows.column("_source")[row].as_py())
                text = Utf16Text(joined_values(document, source)).slice(start, end)
                if field.context is not None:
                    text = ChunkContexts(field.context, document).of(source, start) + text
                return KnownChunk(text, from_arrow(column.chunks.slice(chunk, 1)))
    return None


def likeness(one: Embeddings, other: Embeddings, *, bits: bool = False) -> float:
    """The cosine of two embeddings, each the only row of its batch; 0 where their lengths differ.

    Args:
        one: an embedding.
        other: the other one.
        bits: whether dense values are packed bits; then of vectors of -1 and 1.
    """
    if isinstance(one, SparseEmbeddings) or isinstance(other, SparseEmbeddings):
        return _cosine(*_aligned(_weights(one), _weights(other)))
    left, right = (np.asarray(each.values[0]) for each in (one, other))
    if bits:
        left, right = (
            np.unpackbits(each.view(np.uint8)).astype(np.float64) * 2 - 1 for each in (left, right)
        )
    return _cosine(left.astype(np.float64), right.astype(np.float64)) if left.shape == right.shape else 0.0


def _weights(embeddings: Embeddings) -> Mapping[str, float]:
    if not isinstance(embeddings, SparseEmbeddings):
        return {}
    tokens = (embeddings.vocabulary[token] for token in embeddings.token_ids.tolist())
    return dict(zip(tokens, embeddings.weights.tolist(), strict=True))


def _aligned(
    one: Mapping[str, float], other: Mapping[str, float]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    tokens = list({**one, **other})
    left, right = (np.array([each.get(token, 0.0) for token in tokens]) for each in (one, other))
    return left, right


def _cosine(left: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> float:
    lengths = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / lengths if lengths else float(not left.any() and not right.any())


def embedding_lengths(path: str, part: str, name: str) -> list[int]:
    """The different lengths of the dense embeddings in the first rows of a part."""
    file = open_part(path, part)
    if name not in file.schema_arrow.names or not file.num_row_groups:
        return []
    batch = next(file.iter_batches(batch_size=64, columns=[name]), None)
    if batch is None or not pa.types.is_struct(batch.schema.field(name).type):
        return []
    embeddings = ChunkColumn.of(batch.column(name)).field("embeddings")
    return [] if pa.types.is_map(embeddings.type) else pc.unique(pc.list_value_length(embeddings)).to_pylist()


def expected_numbers(settings: Mapping[str, Any]) -> int | None:
    """How many numbers an embedding of a model has in the table; None where its settings do not say."""
    dimensions = settings.get("dimensions")
    return int(dimensions) // (8 if settings.get("element_type") == "bit" else 1) if dimensions else None


def is_uneven(metadata: pq.FileMetaData, name: str, expected: int) -> bool:
    """Whether a part's dense embeddings of a field cannot all have the expected length; reads no embedding.

    The file says how many values each column of a row group has. A row without chunks counts once in every column
    below its list; as a null only in those that may hold one, which the number of an offset may not.
    """
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = {(column := group.column(at)).path_in_schema: column for at in range(group.num_columns)}
        chunks = columns.get(f"{name}.chunks.list.element.source_field")
        values = columns.get(f"{name}.chunks.list.element.embeddings.list.element")
        if chunks is None or values is None or chunks.statistics is None or values.statistics is None:
            continue
        if values.statistics.num_values != expected * chunks.statistics.num_values:
            return True
    return False


def mixed_models(fingerprints: Counter[str], description: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each field whose rows hold embeddings of several models; it names these.

    Args:
        fingerprints: of rows -> number of rows.
        description: what the table says of its fields.
    """
    held: dict[str, Counter[str]] = {}
    for fingerprint, rows in fingerprints.items():
        for name, embedding in embedding_fingerprints(fingerprint).items():
            if embedding != NO_EMBEDDING:
                held.setdefault(name, Counter())[embedding] += rows
    for name, models in held.items():
        field = description["fields"].get(name)
        if field is not None and len(models) > 1:
            told = ", ".join(_told(embedding, rows, field) for embedding, rows in models.most_common())
            yield f"[{name}] mixes the embeddings of {len(models)} models: {told}"


def _told(embedding: str, rows: int, field: Mapping[str, Any]) -> str:
    known = embedding == field.get("embedding_fingerprint")
    model = f", [{field.get('model', {}).get('model_id')}] of [{field['inference_id']}]" if known else ""
    return f"{rows:,} rows of {embedding}{model}"
