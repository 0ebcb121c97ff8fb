"""What changed between the index and a snapshot of the table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.index.join import read_arrow
from transforms.index.manifest import problems
from transforms.index.shard import PartRows
from transforms.index.snapshot import Snapshot, identity
from transforms.index.state import IndexState, Ints, document_keys
from transforms.table.parts import open_part


@dataclass(frozen=True)
class Change:
    """How the table moved since the index was written: what to add, what to delete, what changed its part."""

    state: IndexState
    parts: dict[str, int]
    add: tuple[PartRows, ...]
    dead: Ints
    moved: dict[int, int]


def plan_update(
    folder: Path, old: IndexState | None, snapshot: Snapshot, rebuild: bool
) -> tuple[str, Change | None]:
    """Decide between catching up (a change) and building anew (None), with the reason."""
    if rebuild:
        return "asked for", None
    if old is None:
        return "no usable index", None
    if old.table["id"] != snapshot.id:
        return "another table", None
    added = [name for name in snapshot.parts if name not in old.parts]
    if identity(snapshot.description) != identity(old.metadata):
        return "the mapping or an endpoint changed", None
    damage = next(problems(folder, old), None)
    if damage:
        return damage, None
    return "", _difference(folder, old, snapshot, added)


def _difference(folder: Path, old: IndexState, snapshot: Snapshot, added: Sequence[str]) -> Change:
    """Compare the documents of the parts that went with those of the parts that came.

    A document that is in both has only moved, as rows do when a part is rewritten without its neighbours.
    """
    documents = read_arrow(folder / old.generation / "documents.arrow")
    current = set(snapshot.parts)
    # What is left of the old documents: key -> number, for those whose part is gone.
    gone = pa.array([number for name, number in old.parts.items() if name not in current], pa.int32())
    rows = np.flatnonzero(pc.is_in(documents["part"], value_set=gone).to_numpy(zero_copy_only=False))
    left = dict(zip(documents["key"].take(pa.array(rows)).to_pylist(), rows.tolist(), strict=True))
    parts = {name: number for name, number in old.parts.items() if name in current}
    next_number = max(old.parts.values(), default=-1) + 1
    moved: dict[int, int] = {}
    add: list[PartRows] = []
    for number, name in enumerate(added, next_number):
        parts[name] = number
        new_rows = []
        for row, key in enumerate(_part_keys(snapshot.path, name)):
            known = left.pop(key, None)
            # What no new part has taken out of `left` by the end is dead.
            if known is None:
                new_rows.append(row)
            else:
                moved[known] = number
        if new_rows:
            add.append(PartRows(name, number, np.array(new_rows, np.int64), len(new_rows)))
    dead = np.array(sorted(left.values()), np.int64)
    return Change(old, parts, tuple(add), dead, moved)


def _part_keys(table_path: str, name: str) -> Iterator[bytes]:
    for batch in open_part(table_path, name).iter_batches(columns=["_id", "content_hash", "fingerprint"]):
        yield from document_keys(batch)
