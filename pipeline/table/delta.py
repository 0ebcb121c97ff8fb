"""The published table: open it, read its state, commit a new version."""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, CommitProperties, RemoveAction

from pipeline.config.run_config import RunConfig
from pipeline.errors import PipelineError
from transforms import files
from transforms.index.snapshot import Snapshot
from transforms.index.state import IndexUnusable
from transforms.records import PartFile
from transforms.table.description import DESCRIPTION, PREVIOUS
from transforms.table.log_digest import commit_mark, log_problem, parse_logged
from transforms.table.parts import DamagedPartError, open_part
from transforms.table.schema import TABLE_FORMAT, TableLayout

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
        table = open_part(table_path, part, read_dictionary=["fingerprint"]).read(columns=STATE_COLUMNS)
        tables.append(table.replace_schema_metadata(None).cast(_STATE_SCHEMA))
    lengths = [table.num_rows for table in tables]
    joined = pa.concat_tables([_STATE_SCHEMA.empty_table(), *tables]).unify_dictionaries()
    ids, hashes, fingerprints = (joined.column(name).combine_chunks() for name in STATE_COLUMNS)
    part_of_row = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    row = np.concatenate([np.arange(length) for length in lengths]) if lengths else np.zeros(0)
    return TableState(list(parts), ids, hashes, fingerprints, part_of_row, row.astype(np.int64))


def read_whole(table_path: str, parts: Sequence[str]) -> tuple[TableState, list[str]]:
    """Read ids, hashes and fingerprints of the part files that are there and whole, and name the others.

    Raises:
        FileNotFoundError: every part is gone, as behind a mount that is not there; that is no damage to repair.
    """
    try:
        return read_state(table_path, parts), []
    except (DamagedPartError, FileNotFoundError):
        lost = [name for name in parts if not _is_readable(table_path, name)]
    whole = [name for name in parts if name not in set(lost)]
    if not whole and not any(files.exists(files.join(table_path, name)) for name in parts):
        raise FileNotFoundError(f"all {len(parts)} part files of the table [{table_path}] are gone")
    return read_state(table_path, whole), lost


def _is_readable(table_path: str, name: str) -> bool:
    try:
        read_state(table_path, [name])
    except (DamagedPartError, FileNotFoundError):
        return False
    return True


def open_table(path: str, *, check: bool = True) -> DeltaTable | None:
    """Open a table that this program wrote; None when there is none yet.

    Args:
        path: the table.
        check: whether to refuse a log that is damaged; what leads out of the damage does not.

    Raises:
        PipelineError: something else is there, or the table was written by a newer version, or its log is damaged.
    """
    try:
        if not DeltaTable.is_deltatable(path):
            return None
        table = DeltaTable(path)
        problem = log_problem(table) if check else None
    except (DeltaError, OSError, ValueError) as error:
        raise PipelineError(
            f"table.path [{path}] cannot be read: {error}. It is damaged, not readable for this user, or written "
            "by a newer version of Delta Lake; it is left as it is. Where the newest file of its log is damaged, the "
            "table without that file is the version before, and the next run makes the newest again."
        ) from None
    if problem:
        raise PipelineError(f"table.path [{path}]: {problem}.")
    names = {field.name for field in table.schema().fields}
    if not set(STATE_COLUMNS) <= names:
        missing = ", ".join(sorted(set(STATE_COLUMNS) - names))
        raise PipelineError(
            f"table.path [{path}] holds a Delta table of another program: it has no column {missing}. "
            "Name another folder; this one is left as it is."
        )
    description = parse_logged("description", table.metadata().configuration.get(DESCRIPTION, "{}"))
    if description.get("format", 0) > TABLE_FORMAT:
        raise PipelineError(
            f"table.path [{path}] has format {description['format']}, written by a newer semantic-ingest; this one "
            f"knows formats up to {TABLE_FORMAT}. Upgrade, or name another folder."
        )
    return table


def active_parts(table: DeltaTable) -> list[str]:
    """The table's part files, relative to it, by name."""
    actions = pa.table(table.get_add_actions(flatten=True))
    return sorted(unquote(name) for name in actions.column("path").to_pylist())


def describe_table(path: str, table: DeltaTable) -> dict[str, Any]:
    """Mapping, fields, endpoints and models of a table's rows.

    Raises:
        PipelineError: the part file that tells cannot be read.
    """
    try:
        return Snapshot.of_delta(path, table).description
    except IndexUnusable as error:
        raise PipelineError(str(error)) from None
    except (OSError, pa.ArrowException) as error:
        raise PipelineError(
            f"a part file of the table [{path}] cannot be read: {error}. `verify` tells which; `restore` goes back "
            "to a version without it."
        ) from None


def commit(
    path: str,
    base: DeltaTable | None,
    layout: TableLayout,
    added: Sequence[PartFile],
    removed: Sequence[str],
    metadata: dict[str, Any],
) -> int:
    """Publish one new version: add parts and remove parts in a single step.

    The commit only succeeds on top of the version that the run was planned on. A schema that differs from the
    table's replaces it in the same commit; then `removed` must name every active part. A description that differs is
    committed on its own before the rows, see `transforms.table.description`.

    Args:
        path: the table.
        base: the table as it was when the run was planned; None when there was none.
        layout: schema and description of the new parts.
        added: finished part files.
        removed: part files, relative to the table, that leave it.
        metadata: JSON values to keep with the commit.

    Returns:
        The new version.

    Raises:
        PipelineError: another run has committed since the plan was made; nothing is changed.
    """
    schema = Schema.from_arrow(layout.schema())
    try:
        table = _described(path, base, layout)
        parts = (
            [name for name in active_parts(table) if name not in set(removed)]
            if table.schema() == schema
            else []
        )
        mark = commit_mark(
            metadata,
            [*parts, *(part.path for part in added)],
            schema.to_json(),
            table.metadata().configuration,
        )
        properties = CommitProperties(custom_metadata=mark, max_commit_retries=0)
        adds: list[AddAction | RemoveAction] = [_add_action(part) for part in added]
        if table.schema() == schema:
            now = int(time.time() * 1000)
            actions = [*adds, *(RemoveAction(part, True, now) for part in removed)]
            table.create_write_transaction(
                actions, mode="append", schema=schema, commit_properties=properties
            )
        else:
            table.create_write_transaction(
                adds, mode="overwrite", schema=schema, commit_properties=properties
            )
    except (CommitFailedError, DeltaError) as error:
        raise _explained(path, error) from None
    # The table object still shows the version that the plan was made on; a commit only succeeds right after that one.
    return int(table.version()) + 1


def commit_description(path: str, base: DeltaTable, layout: TableLayout) -> int:
    """Publish a description that has changed where no row has; returns the table's version."""
    try:
        return int(_described(path, base, layout).version())
    except (CommitFailedError, DeltaError) as error:
        raise _explained(path, error) from None


def update_manifest(path: str) -> None:
    """Write the names of the newest version's part files where engines look that know no Delta Lake.

    They stand in ``_symlink_format_manifest/manifest``, one a line, as Hive, Athena and Presto read them. The table is
    published already, so a manifest that cannot be written is only told of; the next run writes it.
    """
    try:
        table = DeltaTable(path)
        manifest = files.join(path, "_symlink_format_manifest", "manifest")
        listed: list[str] = []
        if files.exists(manifest):
            with files.open_read(manifest) as handle:
                listed = handle.read().decode().split("\n")
        if {name for name in listed if name} != set(table.file_uris()) or not listed:
            table.generate()
    except (DeltaError, OSError) as error:
        logging.getLogger(__name__).warning("the manifest of %s was not written: %s", path, error)


def _described(path: str, base: DeltaTable | None, layout: TableLayout) -> DeltaTable:
    """The table that rows are committed to, with its new description; made where there was none."""
    described = {"described": True}
    if base is None:
        schema, properties = Schema.from_arrow(layout.schema()), {DESCRIPTION: layout.description}
        mark = commit_mark(described, [], schema.to_json(), properties)
        return DeltaTable.create(
            path,
            schema,
            mode="error",
            configuration=properties,
            commit_properties=CommitProperties(custom_metadata=mark, max_commit_retries=0),
            raise_if_key_not_exists=False,
        )
    if base.metadata().configuration.get(DESCRIPTION) == layout.description:
        return base
    replaced = json.dumps(describe_table(path, base), sort_keys=True)
    changed = {DESCRIPTION: layout.description}
    if replaced != layout.description:
        changed[PREVIOUS] = replaced
    version = base.version()
    properties = {**base.metadata().configuration, **changed}
    mark = commit_mark(described, active_parts(base), base.schema().to_json(), properties)
    base.alter.set_table_properties(
        changed,
        raise_if_not_exists=False,
        commit_properties=CommitProperties(custom_metadata=mark, max_commit_retries=0),
    )
    return DeltaTable(path, version=version + 1)


def _explained(path: str, error: Exception) -> Exception:
    if not isinstance(error, CommitFailedError) and "already exist" not in str(error):
        return error
    return PipelineError(
        f"another run has changed the table [{path}] since this one was planned; nothing was published. "
        "Run again: the parts that are finished are kept."
    )


def _add_action(part: PartFile) -> AddAction:
    stats = {
        "numRecords": part.rows,
        "minValues": {"_id": part.first_id},
        "maxValues": {"_id": part.last_id},
        "nullCount": {"_id": 0},
    }
    return AddAction(part.path, part.size, {}, int(time.time() * 1000), True, json.dumps(stats))


def require_table(config: RunConfig, *, check: bool = True) -> DeltaTable:
    """Open the table of a config.

    Args:
        config: the run config.
        check: whether to refuse a log that is damaged.

    Raises:
        PipelineError: there is none, or it is not ours.
    """
    table = open_table(config.table.path, check=check)
    if table is None:
        raise PipelineError(f"table.path [{config.table.path}] has no table yet; `run` makes it")
    return table
