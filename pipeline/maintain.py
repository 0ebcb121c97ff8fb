"""Look after a published table: its history, going back to an older version, and clearing away what is left over.

Nothing here needs a model. `pipeline.verify` checks the table against itself.
"""

import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from apache_beam.io.filesystems import FileSystems
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.transaction import CommitProperties

from pipeline.config import RunConfig
from pipeline.errors import PipelineError
from pipeline.open_runs import OpenRun, open_runs, runs_folder, table_lock
from pipeline.table import open_table
from pipeline.table_log import TableLog, read_log
from transforms import files


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


@dataclass(frozen=True)
class Version:
    """One version of the table.

    Attributes:
        version: its number.
        time: when it was committed, ISO 8601 in UTC.
        operation: ``run``, ``restore`` or what another program did.
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
    table = require_table(config)
    log = read_log(config.table.path)
    present = {name for name, _ in part_files(config.table.path)}
    return [_version(entry, log, present) for entry in table.history(limit)]


def _version(entry: dict[str, Any], log: TableLog, present: set[str]) -> Version:
    number = int(entry["version"])
    made = entry.get("semantic_ingest") or {}
    made = json.loads(made) if isinstance(made, str) else made
    documents = made.get("documents") or {}
    parts = log.versions.get(number)
    restored = made.get("restored")
    operation = (
        "run" if "run_id" in made else "restore" if restored is not None else str(entry.get("operation"))
    )
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
    with table_lock(path) if files.is_local(path) else nullcontext():
        table = require_table(config)
        log = read_log(path)
        _check_restorable(path, log, version)
        if version != table.version():
            metadata = {"semantic_ingest": {"restored": version}}
            try:
                table.restore(version, commit_properties=CommitProperties(custom_metadata=metadata))
            except DeltaError as error:
                raise PipelineError(f"version {version} of [{path}] could not be restored: {error}") from None
        restored = require_table(config).version()
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
    present = {name for name, _ in part_files(path)}
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
    from transforms.write_index import update_index

    return int(update_index(config.table.path, config.index.path).table_version)


@dataclass(frozen=True)
class Leftover:
    """Something that can go.

    Attributes:
        path: relative to the table.
        why: ``old version``, ``orphaned part``, ``unfinished file`` or ``killed run``.
        bytes: its size.
    """

    path: str
    why: str
    bytes: int


def vacuum(config: RunConfig, *, older_than_days: float = 7.0, dry_run: bool = False) -> dict[str, Any]:
    """Clear away what nothing needs: part files of old versions, and what killed runs left behind.

    What belongs to the newest version, to a run that is going on, or is younger than the limit, stays.

    Args:
        config: the run config.
        older_than_days: how long old versions can be restored and killed runs be taken over.
        dry_run: delete nothing.

    Returns:
        ``removed`` (path, why, bytes), ``bytes``, ``dry_run`` and ``oldest_restorable``.
    """
    require_table(config)
    path = config.table.path
    before = time.time() - older_than_days * 86_400
    log = read_log(path)
    runs = [run for run in open_runs(path) if _is_over(run, path, before)]
    found = [*_leftover_parts(path, log, before), *(_leftover_run(path, run) for run in runs)]
    if not dry_run:
        files.delete([files.join(path, one.path) for one in found if one.why != "killed run"])
        for one in found:
            if one.why == "killed run":
                files.delete_folder(files.join(path, one.path))
    gone = {one.path for one in found}
    restorable = [number for number, parts in log.versions.items() if not parts & gone]
    present = {name for name, _ in part_files(path)} - gone
    return {
        "dry_run": dry_run,
        "removed": [asdict(one) for one in sorted(found, key=lambda one: (one.why, one.path))],
        "bytes": sum(one.bytes for one in found),
        "oldest_restorable": min(number for number in restorable if log.versions[number] <= present),
    }


def _is_over(run: OpenRun, path: str, before: float) -> bool:
    """Whether a run has ended without saying so: its process is gone, or, on another machine, it shows no life."""
    if _is_going_on(run):
        return False
    signs = [entry.updated for entry in _entries(files.join(run.folder, "*"))]
    signs += [entry.updated for entry in _entries(files.join(path, f"part-{run.run_id}-*.parquet"))]
    return max(signs, default=0.0) < before


def _is_going_on(run: OpenRun) -> bool:
    return run.host == socket.gethostname() and run.pid != os.getpid() and not run.is_dead


def _leftover_parts(path: str, log: TableLog, before: float) -> Iterator[Leftover]:
    kept_runs = [run.run_id for run in open_runs(path) if not _is_over(run, path, before)]
    active = log.active
    for name, entry in part_files(path):
        logged = log.parts.get(name)
        if name in active or any(name.startswith(f"part-{run}-") for run in kept_runs):
            continue
        if logged is not None and (logged.removed_at or 0) / 1000 < before:
            yield Leftover(name, "old version", entry.size)
        elif logged is None and entry.updated < before:
            yield Leftover(name, "orphaned part", entry.size)
    if files.is_local(path):
        yield from _unfinished_files(path, before)


def _unfinished_files(path: str, before: float) -> Iterator[Leftover]:
    """What writers left that were killed in the middle of a file; on an object store there is none."""
    folder = runs_folder(path)
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        run = os.path.join(folder, name)
        # Killed while its marker was written: nobody knows this run, so only its age tells.
        if (
            os.path.isdir(run)
            and not os.path.exists(os.path.join(run, "run.json"))
            and os.stat(run).st_mtime < before
        ):
            yield Leftover(os.path.relpath(run, path), "killed run", 0)
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith(".") and entry.name.endswith(".tmp") and entry.stat().st_mtime < before:
                yield Leftover(entry.name, "unfinished file", entry.stat().st_size)


def _leftover_run(path: str, run: OpenRun) -> Leftover:
    size = sum(entry.size for entry in _entries(files.join(run.folder, "*")))
    return Leftover(f"{runs_folder('')}/{run.run_id}".lstrip("/"), "killed run", size)


@dataclass(frozen=True)
class _Entry:
    path: str
    size: int
    updated: float


def _entries(pattern: str) -> list[_Entry]:
    found = FileSystems.match([pattern])[0].metadata_list
    return [_Entry(entry.path, entry.size_in_bytes, entry.last_updated_in_seconds or 0.0) for entry in found]


def part_files(path: str) -> list[tuple[str, _Entry]]:
    """The part files that are there, by name relative to the table."""
    entries = _entries(files.join(path, "part-*.parquet"))
    return sorted((entry.path.replace("\\", "/").rpartition("/")[2], entry) for entry in entries)


def print_history(versions: Sequence[Version], output: str) -> None:
    """Print versions to stdout."""
    if output == "json":
        print(json.dumps({"versions": [asdict(version) for version in versions]}, indent=2))
        return
    names = (
        "version",
        "time",
        "operation",
        "added",
        "changed",
        "deleted",
        "rows",
        "parts",
        "restorable",
        "run_id",
    )
    _print_table(names, [[getattr(version, name) for name in names] for version in versions])


def print_restore(result: dict[str, Any], output: str) -> None:
    """Print what `restore` did to stdout."""
    if output == "json":
        print(json.dumps(result, indent=2))
        return
    index = "" if result["index_version"] is None else f"; the index shows version {result['index_version']}"
    print(
        f"version {result['table_version']} has the {result['rows']:,} rows of version {result['restored']}{index}"
    )


def print_vacuum(result: dict[str, Any], output: str) -> None:
    """Print what `vacuum` removed to stdout."""
    if output == "json":
        print(json.dumps(result, indent=2))
        return
    _print_table(
        ("path", "why", "bytes"), [[one["path"], one["why"], one["bytes"]] for one in result["removed"]]
    )
    verb = "would be removed" if result["dry_run"] else "removed"
    print(
        f"{len(result['removed']):,} files, {result['bytes']:,} bytes {verb}; oldest version that can be restored: "
        f"{result['oldest_restorable']}"
    )


def _print_table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(
            *("" if value is None else f"{value:,}" if type(value) is int else str(value) for value in row)
        )
    # Piped into a file or a pager a line is never folded.
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)
