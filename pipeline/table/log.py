"""The table's log as far back as it goes: which part files each version has, and since when others are gone."""

import json
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable

from transforms import files


@dataclass(frozen=True)
class LoggedPart:
    """A part file that some version of the table names.

    Attributes:
        size: its size in bytes, as the log has it.
        rows: documents in it, as the log has it; None where the log does not say.
        ids: its first and its last ``_id``; None where the log does not say.
        removed_at: when the newest version stopped naming it, in milliseconds; None while it does.
    """

    size: int
    rows: int | None
    ids: tuple[str, str] | None = None
    removed_at: int | None = None


@dataclass
class TableLog:
    """What the log says.

    Attributes:
        oldest: the oldest version that can still be read.
        parts: every part file that a version from `oldest` on names.
        versions: version -> names of its part files.
        damaged: files of the log that cannot be read; versions before them are not described.
    """

    oldest: int
    parts: dict[str, LoggedPart] = field(default_factory=dict)
    versions: dict[int, frozenset[str]] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)

    def rows(self, version: int) -> int:
        """Number of documents of a version."""
        return sum(self.parts[name].rows or 0 for name in self.versions[version])

    @property
    def active(self) -> frozenset[str]:
        """The part files of the newest version."""
        return self.versions[max(self.versions)]


def read_log(path: str) -> TableLog:
    """Read the log of a table from the oldest version that is still described to the newest."""
    read = dict(_commits(path))
    newest = DeltaTable(path).version()
    damaged = [f"_delta_log/{version:020}.json" for version, actions in read.items() if actions is None]
    commits = {version: actions for version, actions in read.items() if actions is not None}
    try:
        log = _replayed(path, commits, newest)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        # What is written well and says nonsense: only the newest version is known, as the library reads it.
        parts = _parts_of(path, newest)
        log = TableLog(newest, parts, {newest: frozenset(parts)}, [f"_delta_log ({error})"])
    log.damaged += damaged
    return log


def _replayed(path: str, commits: dict[int, list[dict[str, Any]]], newest: int) -> TableLog:
    versions = sorted(version for version in commits if version <= newest)
    # Behind a checkpoint older commits may have been cleared away; that version is read through the checkpoint.
    unbroken = versions == list(range(newest + 1))
    first = 0 if unbroken else _first_readable(path, versions, newest)
    log = TableLog(first)
    current: set[str] = set()
    if first > 0 or first not in commits:
        log.parts |= _parts_of(path, first)
        current = set(log.parts)
    else:
        _replay(log, current, commits[first])
    log.versions[first] = frozenset(current)
    for version in range(first + 1, newest + 1):
        _replay(log, current, commits[version])
        log.versions[version] = frozenset(current)
    return log


def _commits(path: str) -> Iterator[tuple[int, list[dict[str, Any]] | None]]:
    """Each commit and its actions; None for one that cannot be read."""
    for name, _ in files.list_files(files.join(path, "_delta_log"), "*.json"):
        stem = posixpath.basename(name.replace("\\", "/")).removesuffix(".json")
        if stem.isdigit():
            with files.open_read(name) as handle:
                lines = handle.read().splitlines()
            try:
                yield int(stem), [json.loads(line) for line in lines if line.strip()]
            except ValueError:
                yield int(stem), None


def _first_readable(path: str, versions: list[int], newest: int) -> int:
    """The oldest version from which commits follow one another and that can be opened."""
    start = newest
    for version in reversed(versions):
        if version < start - 1:
            break
        start = version
    for version in range(start, newest):
        try:
            DeltaTable(path, version=version)
        except Exception:  # noqa: S112 - the library raises several kinds for a version that is no longer described
            continue
        return version
    return newest


def _parts_of(path: str, version: int) -> dict[str, LoggedPart]:
    actions = pa.table(DeltaTable(path, version=version).get_add_actions(flatten=True))
    names = [unquote(name) for name in actions.column("path").to_pylist()]
    rows = (
        actions.column("num_records").to_pylist()
        if "num_records" in actions.column_names
        else [None] * len(names)
    )
    sizes = actions.column("size_bytes").to_pylist()
    return {name: LoggedPart(size, count) for name, size, count in zip(names, sizes, rows, strict=True)}


def _replay(log: TableLog, current: set[str], actions: list[dict[str, Any]]) -> None:
    for action in actions:
        if "remove" in action:
            name = unquote(action["remove"]["path"])
            known = log.parts.get(name, LoggedPart(action["remove"].get("size") or 0, None))
            removed_at = action["remove"].get("deletionTimestamp") or 0
            log.parts[name] = LoggedPart(known.size, known.rows, known.ids, removed_at)
            current.discard(name)
    for action in actions:
        if "add" in action:
            stats = json.loads(action["add"].get("stats") or "{}")
            name = unquote(action["add"]["path"])
            first, last = (stats.get(bound, {}).get("_id") for bound in ("minValues", "maxValues"))
            ids = None if first is None or last is None else (first, last)
            log.parts[name] = LoggedPart(action["add"]["size"], stats.get("numRecords"), ids)
            current.add(name)
