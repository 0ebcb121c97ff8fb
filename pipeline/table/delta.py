"""The published table: open it, read its state, commit a new version."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, CommitProperties, RemoveAction, create_table_with_add_actions

from pipeline.config.run_config import RunConfig
from pipeline.errors import PipelineError
from transforms import files
from transforms.records import PartFile
from transforms.table.parts import part_metadata
from transforms.table.schema import TABLE_FORMAT

STATE_COLUMNS = ["_id", "content_hash", "fingerprint"]

# Large strings, since plain ones end at 2 GiB: 67 million content hashes.
_STATE_SCHEMA = pa.schema(
    zip(
        STATE_COLUMNS,
        [pa.large_string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())],
        strict=True,
    )
)


@dataclass(frozen=True)
class TableState:
    """What part files say is up to date: one entry a row.

    Attributes:
        parts: the part files, relative to the table.
        ids: large string array, ``_id`` of each row.
        content_hashes: large string array.
        fingerprints: string array, dictionary-encoded.
        part: int32 array, position in `parts`.
        row: int64 array, row number in that part.
    """

    parts: list[str]
    ids: pa.Array
    content_hashes: pa.Array
    fingerprints: pa.Array
    part: npt.NDArray[np.int32]
    row: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)


def read_state(table_path: str, parts: Sequence[str]) -> TableState:
    """Read ids, hashes and fingerprints of some part files."""
    tables = []
    for part in parts:
        with files.open_read(files.join(table_path, part)) as handle:
            table = pq.read_table(handle, columns=STATE_COLUMNS, read_dictionary=["fingerprint"])
            tables.append(table.cast(_STATE_SCHEMA))
    lengths = [table.num_rows for table in tables]
    joined = pa.concat_tables([_STATE_SCHEMA.empty_table(), *tables]).unify_dictionaries()
    ids, hashes, fingerprints = (joined.column(name).combine_chunks() for name in STATE_COLUMNS)
    part_of_row = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    row = np.concatenate([np.arange(length) for length in lengths]) if lengths else np.zeros(0)
    return TableState(list(parts), ids, hashes, fingerprints, part_of_row, row.astype(np.int64))


def open_table(path: str, *, check_format: bool = True) -> DeltaTable | None:
    """Open a table that this program wrote; None when there is none yet.

    Args:
        path: the table.
        check_format: whether to look into a part file for the version of the table's layout.

    Raises:
        PipelineError: something else is there, or the table was written by a newer version.
    """
    try:
        if not DeltaTable.is_deltatable(path):
            return None
        table = DeltaTable(path)
    except (DeltaError, OSError) as error:
        raise PipelineError(
            f"table.path [{path}] cannot be read: {error}. It is damaged, not readable for this user, or written "
            "by a newer version of Delta Lake; it is left as it is."
        ) from None
    names = {field.name for field in table.schema().fields}
    if not set(STATE_COLUMNS) <= names:
        missing = ", ".join(sorted(set(STATE_COLUMNS) - names))
        raise PipelineError(
            f"table.path [{path}] holds a Delta table of another program: it has no column {missing}. "
            "Name another folder; this one is left as it is."
        )
    try:
        description = describe_table(table, path) if check_format else {}
    except (OSError, pa.ArrowException) as error:
        raise PipelineError(
            f"a part file of the table [{path}] cannot be read: {error}. `verify` tells which; `restore` goes back "
            "to a version without it."
        ) from None
    if description and description["format"] > TABLE_FORMAT:
        raise PipelineError(
            f"table.path [{path}] has format {description['format']}, written by a newer semantic-ingest; this one "
            f"knows formats up to {TABLE_FORMAT}. Upgrade, or name another folder."
        )
    return table


def active_parts(table: DeltaTable) -> list[str]:
    """The table's part files, relative to it, by name."""
    actions = pa.table(table.get_add_actions(flatten=True))
    return sorted(actions.column("path").to_pylist())


def describe_table(table: DeltaTable, path: str) -> dict[str, Any]:
    """Mapping, endpoints and models of the newest rows, as the part files tell; empty for a table without rows."""
    actions = pa.table(table.get_add_actions(flatten=True))
    if not actions.num_rows:
        return {}
    newest = actions.column("path")[
        pc.index(actions.column("modification_time"), pc.max(actions.column("modification_time"))).as_py()
    ]
    return part_metadata(path, newest.as_py())


def commit(
    path: str,
    base: DeltaTable | None,
    schema: pa.Schema,
    added: Sequence[PartFile],
    removed: Sequence[str],
    metadata: dict[str, Any],
) -> int:
    """Publish one new version: add parts and remove parts in a single step.

    The commit only succeeds on top of the version that the run was planned on. A schema that differs from the
    table's replaces it in the same commit; then `removed` must name every active part.

    Args:
        path: the table.
        base: the table as it was when the run was planned; None when there was none.
        schema: Arrow schema of the new parts.
        added: finished part files.
        removed: part files, relative to the table, that leave it.
        metadata: JSON values to keep with the commit.

    Returns:
        The new version.

    Raises:
        PipelineError: another run has committed since the plan was made; nothing is changed.
    """
    properties = CommitProperties(custom_metadata=metadata, max_commit_retries=0)
    delta_schema = Schema.from_arrow(schema.remove_metadata())
    adds: list[AddAction | RemoveAction] = [_add_action(part) for part in added]
    try:
        if base is None:
            create_table_with_add_actions(
                path,
                delta_schema,
                [_add_action(part) for part in added],
                mode="error",
                commit_properties=properties,
            )
            return 0
        if base.schema() == delta_schema:
            now = int(time.time() * 1000)
            actions = [*adds, *(RemoveAction(part, True, now) for part in removed)]
            base.create_write_transaction(
                actions, mode="append", schema=delta_schema, commit_properties=properties
            )
        else:
            base.create_write_transaction(
                adds, mode="overwrite", schema=delta_schema, commit_properties=properties
            )
    except (CommitFailedError, DeltaError) as error:
        if not isinstance(error, CommitFailedError) and "already exist" not in str(error):
            raise
        raise PipelineError(
            f"another run has changed the table [{path}] since this one was planned; nothing was published. "
            "Run again: the parts that are finished are kept."
        ) from None
    # The table object still shows the version that the plan was made on; a commit only succeeds right after that one.
    return int(base.version()) + 1


def _add_action(part: PartFile) -> AddAction:
    stats = {
        "numRecords": part.rows,
        "minValues": {"_id": part.first_id},
        "maxValues": {"_id": part.last_id},
        "nullCount": {"_id": 0},
    }
    return AddAction(part.path, part.size, {}, int(time.time() * 1000), True, json.dumps(stats))


def require_table(config: RunConfig, *, check_format: bool = True) -> DeltaTable:
    """Open the table of a config.

    Args:
        config: the run config.
        check_format: whether to refuse a newer format, which is told by a part file that must be readable.

    Raises:
        PipelineError: there is none, or it is not ours.
    """
    table = open_table(config.table.path, check_format=check_format)
    if table is None:
        raise PipelineError(f"table.path [{config.table.path}] has no table yet; `run` makes it")
    return table
