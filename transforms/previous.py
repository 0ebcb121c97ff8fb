"""Use embeddings again: where a chunk of a changed document has the text of a chunk of its previous row, and the
model is the same, the vector is the same too.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from models.embeddings import DenseEmbeddings, Embeddings, SparseEmbeddings
from transforms import files
from transforms.merge import MAX_CHUNKS
from transforms.records import Chunk, Document, PreviousRow
from transforms.text_values import field_values
from transforms.utf16 import Utf16Text

CACHED_ROW_GROUPS = 4

NO_EMBEDDING = ""
"""In a row's fingerprint: the row was kept when the field's model changed, and has no embedding in that field."""


@dataclass(frozen=True, slots=True)
class ReusableChunks:
    """Embeddings of a previous row that still hold.

    Attributes:
        rows: position of a chunk in the new document -> row of `embeddings`.
        embeddings: the embeddings; `tokens` is 0, the model did not see them in this run.
    """

    rows: dict[int, int]
    embeddings: Embeddings


def parse_fingerprint(fingerprint: str) -> dict[str, str]:
    """Field name -> fingerprint of its embedding, of a row's ``fingerprint`` column (see `pipeline.layout`)."""
    fields: dict[str, str] = orjson.loads(fingerprint)
    return {name: value.partition(".")[0] for name, value in fields.items()}


def has_stale_embedding(fingerprint: str, current: Mapping[str, str]) -> bool:
    """Whether a row holds an embedding of one of the `current` fields that another model made."""
    held = parse_fingerprint(fingerprint)
    return any(held.get(name) not in (None, NO_EMBEDDING, wanted) for name, wanted in current.items())


class PreviousRows:
    """The rows that changed documents replace, read on the worker by part file and row number.

    Args:
        table_path: the table.
        fingerprints: field name -> fingerprint that its embeddings must have to be used again.
    """

    def __init__(self, table_path: str, fingerprints: Mapping[str, str]) -> None:
        self.table_path = table_path
        self.fingerprints = dict(fingerprints)
        self._groups: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()
        self._starts: dict[str, list[int]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Ship only what the worker needs to read the rows itself."""
        return {
            "table_path": self.table_path,
            "fingerprints": self.fingerprints,
            "_groups": OrderedDict(),
            "_starts": {},
        }

    def reusable(self, document: Document, field: str, chunks: Sequence[Chunk]) -> ReusableChunks | None:
        """Find the chunks of a document whose embeddings its previous row holds."""
        if document.previous is None or not chunks:
            return None
        row = self._row(document.previous, field)
        if row is None:
            return None
        known = self._known_texts(row, field)
        matches = [(index, known[chunk.text]) for index, chunk in enumerate(chunks) if chunk.text in known]
        if not matches:
            return None
        old_rows = [old for _, old in matches]
        embeddings = _embeddings(row.column(field).combine_chunks(), old_rows)
        return ReusableChunks({index: place for place, (index, _) in enumerate(matches)}, embeddings)

    def _row(self, previous: PreviousRow, field: str) -> pa.Table | None:
        starts = self._starts.get(previous.part)
        if starts is None:
            starts = self._starts[previous.part] = self._row_group_starts(previous.part)
        group = int(np.searchsorted(starts, previous.row, side="right")) - 1
        table = self._group(previous.part, group)
        if field not in table.column_names:
            return None
        row = table.slice(previous.row - starts[group], 1)
        same = parse_fingerprint(row.column("fingerprint")[0].as_py()).get(field) == self.fingerprints[field]
        return row if same else None

    def _row_group_starts(self, part: str) -> list[int]:
        with files.open_read(files.join(self.table_path, part)) as handle:
            metadata = pq.read_metadata(handle)
        rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        return np.concatenate([[0], np.cumsum(rows)[:-1]]).tolist() if rows else [0]

    def _group(self, part: str, group: int) -> pa.Table:
        key = (part, group)
        if key not in self._groups:
            with files.open_read(files.join(self.table_path, part)) as handle:
                parquet = pq.ParquetFile(handle)
                wanted = [
                    name
                    for name in ("_source", "fingerprint", *self.fingerprints)
                    if name in parquet.schema_arrow.names
                ]
                self._groups[key] = parquet.read_row_group(group, columns=wanted)
            while len(self._groups) > CACHED_ROW_GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]

    def _known_texts(self, row: pa.Table, field: str) -> dict[str, int]:
        """Text of each chunk of the row -> the chunk's position."""
        value = row.column(field)[0]
        if not value.is_valid:
            return {}
        source = orjson.loads(row.column("_source")[0].as_py())
        texts: dict[str, Utf16Text] = {}
        known: dict[str, int] = {}
        chunks = row.column(field).combine_chunks().flatten()[1].flatten()
        if len(chunks) >= MAX_CHUNKS:
            # Some may be folded: then their embedding is not that of their text.
            return {}
        places = zip(
            *(chunks.field(name).to_pylist() for name in ("source_field", "start_offset", "end_offset")),
            strict=True,
        )
        for index, (name, start, end) in enumerate(places):
            if name not in texts:
                texts[name] = Utf16Text("\n".join(field_values(source, name)))
            known.setdefault(texts[name].slice(start, end), index)
        return known


def _embeddings(struct: pa.StructArray, rows: Sequence[int]) -> Embeddings:
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
