"""Use embeddings again: the same text and the same model give the same vector.

Where a chunk of a changed document has the text of a chunk of its previous row, the embedding is taken from there. It
need not be that of the same field: when a field is moved to another endpoint, what was made beside it is what it gets.
With late chunking the embedding of a chunk depends on its whole group, and is taken only where that is the same.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from models.embeddings import Embeddings
from models.late_chunking import LateChunking
from models.text import Utf16Text
from transforms import exact_json
from transforms.chunk.context import ChunkContexts
from transforms.chunk.groups import group_chunks, with_firsts
from transforms.embed.brought import Accepted, brought_embeddings
from transforms.embed.merge import MAX_CHUNKS
from transforms.field_values import joined_values
from transforms.records import Chunk, Document, Group, PreviousRow
from transforms.table.columns import ChunkColumn, from_arrow
from transforms.table.fingerprint import embedding_fingerprints
from transforms.table.parts import open_part

CACHED_ROW_GROUPS = 4


@dataclass(frozen=True, slots=True)
class ReusableChunks:
    """Embeddings of a previous row that still hold.

    Attributes:
        rows: position of a chunk in the new document -> row of `embeddings`.
        embeddings: the embeddings; `tokens` is 0, the model did not see them in this run.
    """

    rows: dict[int, int]
    embeddings: Embeddings


class PreviousRows:
    """The rows that changed documents replace, read on the worker by part file and row number.

    Args:
        table_path: the table.
        fingerprints: field name -> fingerprint that its embeddings must have to be used again.
        accepted: field name -> what embeddings that a document brings must be made by; others are made anew.
        contexts: field name -> template of its chunks' headers, for those that have one.
        late: name of each field with late chunking -> what groups its chunks.
    """

    def __init__(
        self,
        table_path: str,
        fingerprints: Mapping[str, str],
        accepted: Mapping[str, Accepted] | None = None,
        contexts: Mapping[str, str] | None = None,
        late: Mapping[str, LateChunking] | None = None,
    ) -> None:
        self.contexts = dict(contexts or {})
        self.late = dict(late or {})
        self.accepted = dict(accepted or {})
        self.table_path = table_path
        self.fingerprints = dict(fingerprints)
        self._groups: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()
        self._starts: dict[str, list[int]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Ship only what the worker needs to read the rows itself."""
        return {
            "table_path": self.table_path,
            "fingerprints": self.fingerprints,
            "accepted": self.accepted,
            "contexts": self.contexts,
            "late": self.late,
            "_groups": OrderedDict(),
            "_starts": {},
        }

    def reusable(
        self,
        document: Document,
        field: str,
        chunks: Sequence[Chunk],
        groups: Sequence[Group] | None = None,
    ) -> ReusableChunks | None:
        """Find the chunks of a document whose embeddings it brings along, or its previous row holds.

        Args:
            document: the document.
            field: the semantic field.
            chunks: its chunks there.
            groups: the same as they are embedded together, where the field has late chunking.
        """
        if field in document.brought and field in self.accepted:
            brought = brought_embeddings(document.brought[field], chunks, self.accepted[field])
            if brought is not None:
                return ReusableChunks(*brought)
        if document.previous is None or not chunks:
            return None
        row = self._row(document.previous)
        column = self._column(row, field)
        if column is None:
            return None
        if groups is None:
            known = self._known_inputs(row, column, self.contexts.get(field))
            matches = [
                (index, known[chunk.model_input])
                for index, chunk in enumerate(chunks)
                if chunk.model_input in known
            ]
        else:
            matches = _matching(groups, self._known_groups(row, column, self.late[field]))
        if not matches:
            return None
        old_rows = [old for _, old in matches]
        embeddings = from_arrow(ChunkColumn.of(row.column(column)).chunks.take(pa.array(old_rows)))
        return ReusableChunks({index: place for place, (index, _) in enumerate(matches)}, embeddings)

    def _column(self, row: pa.Table, field: str) -> str | None:
        """The column of a row that holds what the field's model makes: the field's own, else any."""
        held = embedding_fingerprints(row.column("fingerprint")[0].as_py())
        wanted = self.fingerprints[field]
        holding = (name for name in (field, *held) if held.get(name) == wanted and name in row.column_names)
        return next(holding, None)

    def _row(self, previous: PreviousRow) -> pa.Table:
        starts = self._starts.get(previous.part)
        if starts is None:
            starts = self._starts[previous.part] = self._row_group_starts(previous.part)
        # The last row group that starts at the row or before it.
        group = int(np.searchsorted(starts, previous.row, side="right")) - 1
        return self._group(previous.part, group).slice(previous.row - starts[group], 1)

    def _row_group_starts(self, part: str) -> list[int]:
        metadata = open_part(self.table_path, part).metadata
        rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        return np.concatenate([[0], np.cumsum(rows)[:-1]]).tolist() if rows else [0]

    def _group(self, part: str, group: int) -> pa.Table:
        key = (part, group)
        if key not in self._groups:
            parquet = open_part(self.table_path, part)
            semantic = [field.name for field in parquet.schema_arrow if pa.types.is_struct(field.type)]
            columns = ["_source", "fingerprint", *semantic]
            self._groups[key] = parquet.read_row_group(group, columns=columns)
            while len(self._groups) > CACHED_ROW_GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]

    def _known_inputs(self, row: pa.Table, field: str, context: str | None) -> dict[str, int]:
        """What the model saw of each chunk of the row -> the chunk's position."""
        column = ChunkColumn.of(row.column(field))
        if len(column.chunks) >= MAX_CHUNKS:
            # Some may be folded: then their embedding is not that of their text.
            return {}
        source = exact_json.loads(row.column("_source")[0].as_py())
        # The fingerprint of an embedding has its template, so the row's chunks had the same one.
        contexts = ChunkContexts(context, source) if context is not None else None
        texts: dict[str, Utf16Text] = {}
        known: dict[str, int] = {}
        for index, (name, start, end) in enumerate(column.places()):
            if name not in texts:
                texts[name] = Utf16Text(joined_values(source, name))
            header = contexts.of(name, start) if contexts is not None else ""
            known.setdefault(header + texts[name].slice(start, end), index)
        return known

    def _known_groups(self, row: pa.Table, field: str, late: LateChunking) -> dict[Group, int]:
        """The groups in which the row's chunks were embedded -> the position of their first chunk."""
        column = ChunkColumn.of(row.column(field))
        if len(column.chunks) >= MAX_CHUNKS:
            return {}
        source = exact_json.loads(row.column("_source")[0].as_py())
        # The fingerprint of an embedding has the model's window and tokenizer, so they were grouped as they are now.
        try:
            (groups,) = group_chunks(late, [(source, list(column.places()))])
        except ValueError:  # another program wrote them
            return {}
        known: dict[Group, int] = {}
        for first, group in with_firsts(groups):
            known.setdefault(group, first)
        return known


def _matching(groups: Sequence[Group], known: Mapping[Group, int]) -> list[tuple[int, int]]:
    """The position of each chunk whose group is known, and that of its embedding."""
    return [
        (first + place, known[group] + place)
        for first, group in with_firsts(groups)
        if group in known
        for place in range(len(group.spans))
    ]
