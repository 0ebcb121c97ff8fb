"""The table's versions: what each of them changed, and going back to an older one. Nothing here needs a model."""

from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.transaction import CommitProperties

from pipeline.config.run_config import RunConfig
from pipeline.errors import PipelineError
from pipeline.table.delta import require_table, update_manifest
from pipeline.table.log import TableLog, read_log
from pipeline.table.open_runs import publishing, table_lock
from pipeline.table.parts import list_parts
from transforms import files
from transforms.table.log_digest import commit_mark, said_of


@dataclass(frozen=True)
class Version:
    """One version of the table.

    Attributes:
        version: its number.
        time: when it was committed, ISO 8601 in UTC.
        operation: ``run``, ``restore``, ``describe`` (a new mapping or model, before its rows) or what another
            program did.
        run_id: the run that made it.
        restored: for a restore, the version that it went back to.
        added: documents that were new.
        changed: documents that were replaced.
        deleted: documents that went.
        rows: documents in this version; None when the log no longer tells.
        parts: part files of this version.
        restorable: whether all its part files are still there.
    """

    version: int
    time: str
    operation: str
    run_id: str | None
    restored: int | None
    added: int | None
    changed: int | None
    deleted: int | None
    rows: int | None
    parts: int | None
    restorable: bool


def history(config: RunConfig, limit: int | None = None) -> list[Version]:
    """The table's versions, the newest first.

    Args:
        config: the run config.
        limit: how many to tell of; None for all.
    """
    table = require_table(config, check=False)
    log = read_log(config.table.path)
    present = set(list_parts(config.table.path))
    return [_version(entry, log, present) for entry in table.history(limit)]


def _version(entry: dict[str, Any], log: TableLog, present: set[str]) -> Version:
    number = int(entry["version"])
    made = said_of(entry)
    documents = made.get("documents") or {}
    parts = log.versions.get(number)
    restored = made.get("restored")
    operation = str(entry.get("operation"))
    for mark, ours in (("run_id", "run"), ("restored", "restore"), ("described", "describe")):
        operation = ours if mark in made else operation
    return Version(
        version=number,
        time=datetime.fromtimestamp(int(entry["timestamp"]) / 1000, UTC).isoformat(timespec="seconds"),
        operation=operation,
        run_id=made.get("run_id"),
        restored=restored,
        added=documents.get("added"),
        changed=documents.get("changed"),
        deleted=documents.get("deleted"),
        rows=None if parts is None else log.rows(number),
        parts=None if parts is None else len(parts),
        restorable=parts is not None and parts <= present,
    )


def restore(config: RunConfig, version: int) -> dict[str, Any]:
    """Go back to an older version: publish its rows as a new version, then let the index catch up.

    Returns:
        ``restored``, the new ``table_version``, ``rows``, and ``index_version`` where there is an index.

    Raises:
        PipelineError: there is no such version, its files are gone, or a run is in progress.
    """
    path = config.table.path
    with table_lock(path) if files.is_local(path) else nullcontext(), publishing(path):
        table = require_table(config, check=False)
        log = read_log(path)
        _check_restorable(path, log, version)
        if version != table.version():
            old = DeltaTable(path, version=version)
            mark = commit_mark(
                {"restored": version},
                log.versions[version],
                old.schema().to_json(),
                old.metadata().configuration,
            )
            try:
                table.restore(
                    version, commit_properties=CommitProperties(custom_metadata=mark, max_commit_retries=0)
                )
            except DeltaError as error:
                raise PipelineError(f"version {version} of [{path}] could not be restored: {error}") from None
        restored = require_table(config).version()
        update_manifest(path)
    return {
        "restored": version,
        "table_version": restored,
        "rows": log.rows(version),
        "index_version": _catch_up(config),
    }


def _check_restorable(path: str, log: TableLog, version: int) -> None:
    if version not in log.versions:
        raise PipelineError(
            f"the table [{path}] has no version {version} to go back to; it has {log.oldest} to {max(log.versions)}"
        )
    present = set(list_parts(path))
    missing = sorted(log.versions[version] - present)
    if missing:
        raise PipelineError(
            f"version {version} of the table [{path}] cannot be restored: {len(missing)} of its "
            f"{len(log.versions[version])} part files have been vacuumed, for example {missing[0]}. "
            "`history` shows which versions can be."
        )


def _catch_up(config: RunConfig) -> int | None:
    if config.index is None:
        return None
    from transforms.index.update import update_index

    return int(update_index(config.table.path, config.index.path).table_version)
