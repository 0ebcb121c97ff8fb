"""Compare an index with the table that it should show, document by document and vector by vector."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from transforms.index import manifest
from transforms.index.join import read_arrow
from transforms.index.snapshot import Snapshot
from transforms.index.state import IndexState, IndexUnusable, Ints, UnitState, document_keys
from transforms.index.tantivy_schema import open_tantivy
from transforms.table.columns import ChunkColumn, dense_values
from transforms.table.parts import open_part


def verify_index(table_path: str, index_path: str) -> list[str]:
    """Check that an index shows its table's newest version, completely and correctly.

    Returns:
        Every problem found, a sentence each; none when the index is right.
    """
    folder = Path(index_path)
    try:
        state = IndexState.load(folder)
        snapshot = Snapshot.of_table(table_path)
    except IndexUnusable as error:
        return [str(error)]
    if state is None:
        return [f"there is no index at {index_path}"]
    problems = list(manifest.problems(folder, state))
    if problems:
        return problems
    if (state.table["id"], state.table["version"]) != (snapshot.id, snapshot.version):
        problems.append(
            f"the index shows version {state.table['version']}, the table is at {snapshot.version}"
        )
    if set(state.parts) != set(snapshot.parts):
        return [*problems, "the index shows other part files than the table has"]
    return [*problems, *_documents(folder, state, snapshot), *_tantivy(folder, state)]


def _documents(folder: Path, state: IndexState, snapshot: Snapshot) -> Iterator[str]:
    documents = read_arrow(folder / state.generation / "documents.arrow")
    part_numbers = documents["part"].to_numpy()
    alive = np.flatnonzero(part_numbers >= 0)
    known = dict(zip(documents["key"].take(pa.array(alive)).to_pylist(), alive.tolist(), strict=True))
    if len(known) != state.documents:
        yield f"index.json counts {state.documents} documents, the index has {len(known)}"
    units = {unit.name: _OpenRows(folder, state, unit) for unit in state.units if unit.fields}
    found, columns = 0, _compared_columns(state)
    for name in snapshot.parts:
        for batch in open_part(snapshot.path, name).iter_batches(batch_size=512, columns=columns):
            numbers = [known.get(key, -1) for key in document_keys(batch)]
            missing = numbers.count(-1)
            if missing:
                yield f"{missing} documents of {name} are not in the index"
                continue
            if (part_numbers[numbers] != state.parts[name]).any():
                yield f"documents of {name} are taken for those of another part file"
            found += len(numbers)
            for unit in units.values():
                yield from unit.compare(batch, np.array(numbers, np.int64), name)
    if found < len(known):
        yield f"{len(known) - found} documents of the index are not in the table"


def _compared_columns(state: IndexState) -> list[str]:
    """The columns that the index is held against; for texts and sparse weights, in tantivy, its manifest speaks."""
    columns = ["_id", "content_hash", "fingerprint"]
    for name, field in state.fields.items():
        leaves = ["start_offset", "end_offset"]
        leaves += ["embeddings"] if field.task_type == "text_embedding" else []
        columns += [f"{name}.chunks.list.element.{leaf}" for leaf in leaves]
    return columns


class _OpenRows:
    """The rows of a unit and the vectors of its dense fields."""

    def __init__(self, folder: Path, state: IndexState, unit: UnitState) -> None:
        self.state, self.unit = state, unit
        self.chunks = read_arrow(folder / state.generation / f"{unit.name}.chunks.arrow")
        self.documents = self.chunks["document"].to_numpy()
        self.vectors: dict[str, Any] = {}
        for name in unit.fields:
            field = state.fields[name]
            if field.task_type == "text_embedding" and unit.rows:
                path, shape = folder / state.vectors_path(name), (unit.rows, field.stored_dimensions)
                self.vectors[name] = np.memmap(path, field.dtype, "r", shape=shape)

    def compare(self, batch: pa.RecordBatch, numbers: Ints, part: str) -> Iterator[str]:
        """Say where the table's rows differ from the unit's."""
        # The unit's rows are sorted by document, so those of a document are one range.
        begins, ends = (np.searchsorted(self.documents, numbers, side) for side in ("left", "right"))
        lengths = ends - begins
        # Counted through, less the count at which each document begins.
        rows = np.arange(lengths.sum()) + np.repeat(begins - (np.cumsum(lengths) - lengths), lengths)
        for name in self.unit.fields:
            column = ChunkColumn.of(batch.column(name))
            if not np.array_equal(column.lengths, lengths):
                yield f"documents of {part} have another number of chunks in [{name}] than in the table"
                continue
            yield from self._compare_chunks(name, column, rows, part)

    def _compare_chunks(self, name: str, column: ChunkColumn, rows: Ints, part: str) -> Iterator[str]:
        for offset in ("start_offset", "end_offset"):
            if not np.array_equal(self.chunks[offset].to_numpy()[rows], column.field(offset).to_numpy()):
                yield f"chunks of {part} in [{name}] have another {offset} than in the table"
        if name in self.vectors:
            values = dense_values(column.field("embeddings"))
            if not np.array_equal(self._vectors_of(name, rows).reshape(-1), values):
                yield f"chunks of {part} have other embeddings in [{name}] than in the table"

    def _vectors_of(self, name: str, rows: Ints) -> Any:
        """The vectors of some rows, without a copy where they lie together, as those of a part mostly do."""
        together = len(rows) and (np.diff(rows) == 1).all()
        return self.vectors[name][rows[0] : rows[-1] + 1] if together else self.vectors[name][rows]


def _tantivy(folder: Path, state: IndexState) -> Iterator[str]:
    alive = read_arrow(folder / state.generation / "documents.arrow")["part"].to_numpy() >= 0
    for unit in state.units:
        documents = read_arrow(folder / state.generation / f"{unit.name}.chunks.arrow")["document"].to_numpy()
        expected = int(alive[documents].sum())
        found = open_tantivy(folder / state.generation / unit.name, unit.analyzer).searcher().num_docs
        if found != expected:
            yield f"tantivy holds {found} chunks of {', '.join(unit.fields or unit.sources)}, not {expected}"
