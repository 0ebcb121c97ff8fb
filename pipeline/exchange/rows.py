"""What is sent to another system: the rows of one version of the table, all of them or those that changed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.table.changes import snapshot_of, table_changes
from transforms.index.snapshot import Snapshot
from transforms.index.state import Ints
from transforms.table.parts import open_part


@dataclass(frozen=True)
class TableRows:
    """Rows of one version of a table.

    Attributes:
        snapshot: the version.
        selected: part file -> the rows that are wanted; None for all of all parts.
        deleted: ``_id`` of documents that the receiver has to delete.
        since: the versions that the receiver may show now; empty where it has nothing.
    """

    snapshot: Snapshot
    selected: Mapping[str, Ints] | None = None
    deleted: Sequence[str] = ()
    since: tuple[int, ...] = ()

    @property
    def fields(self) -> Mapping[str, Any]:
        """The semantic fields: endpoint, model settings, chunking settings."""
        fields: Mapping[str, Any] = self.snapshot.description["fields"]
        return fields

    def parts(self, after: str | None = None) -> list[str]:
        """The part files that hold wanted rows, in a fixed order.

        Args:
            after: leave out what comes before this part, and the part itself.
        """
        names = [name for name in self.snapshot.parts if self.selected is None or name in self.selected]
        return names[names.index(after) + 1 :] if after in names else names

    def count(self) -> int:
        """Number of wanted rows."""
        if self.selected is not None:
            return sum(map(len, self.selected.values()))
        return sum(open_part(self.snapshot.path, name).metadata.num_rows for name in self.snapshot.parts)

    def read(self, part: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The wanted rows of one part, a row group at a time, in order. Columns that it lacks are left out."""
        file = open_part(self.snapshot.path, part)
        # As numbers of a dictionary, tokens take a third of the time. It would have those of unwanted rows, too.
        if self.selected is None and (tokens := _token_columns(file)):
            file = open_part(self.snapshot.path, part, read_dictionary=tokens)
        names = [name for name in dict.fromkeys(columns) if name in file.schema_arrow.names]
        first = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            wanted = None if self.selected is None else self.selected[part]
            if wanted is None:
                yield file.read_row_group(group, columns=names).replace_schema_metadata(None)
            else:
                inside = wanted[(wanted >= first) & (wanted < first + rows)] - first
                if len(inside):
                    table = file.read_row_group(group, columns=names).take(pa.array(inside))
                    yield table.replace_schema_metadata(None)
            first += rows


def _token_columns(file: pq.ParquetFile) -> list[str]:
    paths = [file.schema.column(at).path for at in range(len(file.schema))]
    return [path for path in paths if path.endswith(".embeddings.key_value.key")]


def all_rows(path: str, version: int | None = None) -> TableRows:
    """Every row of one version, by default of the newest.

    Raises:
        PipelineError: there is no table, or no such version.
    """
    snapshot = snapshot_of(path, version)
    return TableRows(snapshot)


def select_rows(path: str, since: int | None = None) -> TableRows:
    """All rows of the newest version, or what changed since another one."""
    return all_rows(path) if since is None else changed_rows(path, [since])


def changed_rows(path: str, since: Sequence[int], version: int | None = None) -> TableRows:
    """What brings a receiver to a version that shows, document by document, one of several older ones.

    A load that was broken off leaves some documents of the version that it was loading and some of the one before.
    Whatever differs from any of them is sent again, which is safe.

    Args:
        path: the table.
        since: the versions.
        version: the version that is wanted; None takes the newest.

    Raises:
        PipelineError: a version is unknown, or its part files have been vacuumed.
    """
    snapshot = snapshot_of(path, version)
    selected: dict[str, list[Ints]] = {}
    deleted: set[str] = set()
    for old in since:
        changes = table_changes(path, old, snapshot.version)
        deleted.update(changes.deleted)
        for parts in (changes.inserted, changes.updated):
            for name, rows in parts.items():
                selected.setdefault(name, []).append(rows)
    joined = {name: np.unique(np.concatenate(rows)) for name, rows in selected.items()}
    return TableRows(snapshot, joined, sorted(deleted), tuple(since))
