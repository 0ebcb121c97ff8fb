"""What changed between two versions of the table."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from pipeline.errors import PipelineError
from transforms.index.snapshot import Snapshot
from transforms.index.state import IndexUnusable, Ints
from transforms.table.parts import open_part


@dataclass
class TableChanges:
    """The documents that differ between two versions.

    Attributes:
        old: the version that is compared with.
        new: the version that is wanted.
        inserted: part file of `new` -> numbers of its rows whose documents `old` does not have.
        updated: part file of `new` -> numbers of its rows whose documents are others in `old`.
        deleted: ``_id`` of each document that `new` does not have.
    """

    old: Snapshot
    new: Snapshot
    inserted: dict[str, Ints] = field(default_factory=dict)
    updated: dict[str, Ints] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)

    def to_arrow(self) -> pa.Table:
        """One row a document: ``_id`` and ``_change_type`` (`insert`, `update`, `delete`)."""
        tables = [_CHANGE.empty_table()]
        for kind, parts in (("insert", self.inserted), ("update", self.updated)):
            for name, rows in parts.items():
                ids = open_part(self.new.path, name).read(columns=["_id"])["_id"].take(pa.array(rows))
                tables.append(_changed(ids, kind))
        tables.append(_changed(pa.chunked_array([self.deleted], pa.string()), "delete"))
        return pa.concat_tables(tables)


_CHANGE = pa.schema([("_id", pa.string()), ("_change_type", pa.string())])


def _changed(ids: pa.ChunkedArray, kind: str) -> pa.Table:
    return pa.Table.from_arrays([ids, pa.array([kind] * len(ids), pa.string())], schema=_CHANGE)


def snapshot_of(path: str, version: int | None = None) -> Snapshot:
    """Look at one version of a table.

    Raises:
        PipelineError: there is no table, or no such version.
    """
    try:
        return Snapshot.of_table(path, version)
    except IndexUnusable as error:
        raise PipelineError(str(error)) from None


def table_changes(path: str, from_version: int, to_version: int | None = None) -> TableChanges:
    """Compare two versions of a table.

    Only part files that are in one of the two versions are read, and of these only ids, hashes and fingerprints. Rows
    that moved to another file and stayed the same are no changes, whoever moved them.

    Args:
        path: the table.
        from_version: the version that is known.
        to_version: the version that is wanted; None takes the newest. It may be the older one.

    Raises:
        PipelineError: a version is unknown, or its part files have been vacuumed.
    """
    old, new = snapshot_of(path, from_version), snapshot_of(path, to_version)
    before = dict(_rows(old, set(old.parts) - set(new.parts)))
    changes = TableChanges(old, new)
    for name in new.parts:
        if name in old.parts:
            continue
        inserted, updated = [], []
        for row, (id_, state) in enumerate(_rows(new, [name])):
            known = before.pop(id_, None)
            if known is None:
                inserted.append(row)
            elif known != state:
                updated.append(row)
        for rows, kept in ((inserted, changes.inserted), (updated, changes.updated)):
            if rows:
                kept[name] = np.array(rows, np.int64)
    changes.deleted = sorted(before)
    return changes


def _rows(snapshot: Snapshot, parts: Iterable[str]) -> Iterable[tuple[str, tuple[str, str]]]:
    """Id, and content hash with fingerprint, of every row of some part files."""
    for name in sorted(parts):
        try:
            part = open_part(snapshot.path, name)
        except OSError as error:
            raise PipelineError(
                f"{name} of version {snapshot.version} of the table [{snapshot.path}] cannot be read ({error}); was it "
                "vacuumed? What changed since then can no longer be told: take all rows instead."
            ) from None
        for batch in part.iter_batches(columns=["_id", "content_hash", "fingerprint"]):
            ids, hashes, fingerprints = (batch.column(column).to_pylist() for column in range(3))
            yield from zip(ids, zip(hashes, fingerprints, strict=True), strict=True)
