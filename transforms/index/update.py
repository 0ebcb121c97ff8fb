"""Bring the local index up to the table's version.

The index is derived from the table and nothing else. An update reads only what changed: of the part files
that came and went since the version that the index shows, it keeps the documents that are in both, adds the
new ones and deletes the others. Everything is written aside; renaming ``index.json`` is the moment at which
the new state is there, so a killed update leaves the old index as it was, and a process that searches keeps
what it has opened.
"""

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from transforms.index.chunk_rows import ChunksDiffer
from transforms.index.difference import Change, plan_update
from transforms.index.join import (
    join_chunks,
    join_documents,
    join_fields,
    join_tantivy,
    join_texts,
    read_arrow,
)
from transforms.index.manifest import make_manifest
from transforms.index.shard import PartRows, ShardTask, build_shard
from transforms.index.snapshot import Snapshot, largest_weight, new_state
from transforms.index.state import IndexState, IndexUnusable, Ints, UnitState
from transforms.parent import end_with_parent
from transforms.table.parts import open_part

COMPACTION_RATIO = 0.25
"""An index in which more than this share of the chunks is deleted is built anew."""

PROCESS_ROWS = 5_000
"""Starting a process takes about two seconds; fewer documents than this a process are not worth it."""


@dataclass(frozen=True)
class IndexReport:
    """What an update did.

    Attributes:
        table_version: version of the table that the index shows now.
        generation: name of the index's state; a new one for each update that changed something.
        rebuilt: why the index was built anew; empty when it caught up.
        documents: documents that can be found.
        chunks: chunks that can be found, in all units.
        added: documents that were indexed.
        deleted: documents that were taken out, replaced ones included.
        seconds: how long it took.
        bytes: size of the index on disk.
    """

    table_version: int
    generation: str
    rebuilt: str
    documents: int
    chunks: int
    added: int
    deleted: int
    seconds: float
    bytes: int


def update_index(
    table_path: str,
    index_path: str,
    *,
    rebuild: bool = False,
    workers: int = 1,
    snapshot: Snapshot | None = None,
) -> IndexReport:
    """Make the index show the table.

    Args:
        table_path: the Delta Lake table.
        index_path: folder of the index; made when it is missing.
        rebuild: build it anew even where it could catch up.
        workers: processes that index documents.
        snapshot: the part files to show, by default those of the table's newest version.

    Raises:
        IndexUnusable: there is no table, another process is updating the index, or a part cannot be indexed.
    """
    started = time.perf_counter()
    snapshot = snapshot or Snapshot.of_table(table_path)
    folder = Path(index_path)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        old = None if rebuild else _usable_state(folder)
        reason, change = plan_update(folder, old, snapshot, rebuild)
        if change is None:
            state, added, deleted = _build(folder, snapshot, workers)
        else:
            state, added, deleted, reason = _catch_up(folder, change, snapshot, workers)
        _remove_old(folder, state)
    return IndexReport(
        table_version=snapshot.version,
        generation=state.generation,
        rebuilt=reason,
        documents=state.documents,
        chunks=state.chunks,
        added=added,
        deleted=deleted,
        seconds=time.perf_counter() - started,
        bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes from updating the index; the operating system frees the lock when the process ends."""
    lock = FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise IndexUnusable(f"another process is updating the index {folder}; wait for it to end") from None
    try:
        yield
    finally:
        lock.release()


def _usable_state(folder: Path) -> IndexState | None:
    try:
        return IndexState.load(folder)
    except IndexUnusable:
        return None


def _build(folder: Path, snapshot: Snapshot, workers: int) -> tuple[IndexState, int, int]:
    """Build the index anew; fields whose chunks turn out to differ get units of their own in a second try."""
    parts = []
    for number, name in enumerate(snapshot.parts):
        parts.append(PartRows(name, number, None, open_part(snapshot.path, name).metadata.num_rows))
    serial = _next_serial(folder)
    try:
        state = new_state(snapshot, serial, shared=True)
        _write_generation(folder, state, None, parts, np.zeros(0, np.int64), {}, workers)
    except ChunksDiffer:
        state = new_state(snapshot, serial, shared=False)
        _write_generation(folder, state, None, parts, np.zeros(0, np.int64), {}, workers)
    return state, state.documents, 0


def _next_serial(folder: Path) -> int:
    numbers = [int(path.name[1:]) for path in folder.glob("[eg][0-9]*") if path.name[1:].isdigit()]
    return max(numbers, default=0) + 1


def _catch_up(
    folder: Path, change: Change, snapshot: Snapshot, workers: int
) -> tuple[IndexState, int, int, str]:
    """Write the next generation.

    Returns:
        The state, documents added, documents deleted, and why the index was built anew after all, if it was.
    """
    old = change.state
    added = sum(part.count for part in change.add)
    deleted = len(change.dead)
    state = deepcopy(old)
    state.table = {"path": snapshot.path, "id": snapshot.id, "version": snapshot.version}
    state.parts = change.parts
    if not added and not len(change.dead) and not change.moved:
        state.save(folder)
        return state, 0, 0, ""
    state.generation = f"g{_next_serial(folder):06d}"
    state.metadata = snapshot.description
    for name, field in state.fields.items():
        field.definition = state.metadata["fields"][name]
        if field.task_type == "sparse_embedding":
            # The step stays, or the old levels would mean other weights; heavier ones get more bits.
            largest = largest_weight(replace(snapshot, parts=tuple(part.name for part in change.add)), name)
            field.bits = max(field.bits, round(largest / field.step).bit_length())
    if _dead_ratio(old, deleted) > COMPACTION_RATIO:
        return (*_build(folder, snapshot, workers)[:2], deleted, "compaction")
    try:
        _write_generation(folder, state, old, list(change.add), change.dead, change.moved, workers)
    except ChunksDiffer as difference:
        return (*_build(folder, snapshot, workers)[:2], deleted, str(difference))
    return state, added, deleted, ""


def _write_generation(
    folder: Path,
    state: IndexState,
    old: IndexState | None,
    parts: list[PartRows],
    dead: Ints,
    moved: dict[int, int],
    workers: int,
) -> None:
    """Write all files of a new generation aside, then make it the one that is opened."""
    target = folder / state.generation
    aside = folder / f"build-{state.generation}"
    for leftover in (target, aside):
        if leftover.exists():
            shutil.rmtree(leftover)
    target.mkdir()
    (folder / state.epoch).mkdir(exist_ok=True)
    shards = _build_shards(aside, state, parts, workers)
    documents = join_documents(folder, state, old, shards, dead, moved)
    texts = join_texts(folder, state, old, shards)
    for unit in state.units:
        join_chunks(folder, state, old, unit, shards, texts)
        join_tantivy(folder, state, old, unit, shards, dead)
        join_fields(folder, state, old, unit, shards)
    alive = documents["part"].to_numpy() >= 0
    state.rows, state.documents = len(documents), int(alive.sum())
    state.chunks = sum(int(alive[_documents_of(target, unit)].sum()) for unit in state.units)
    shutil.rmtree(aside, ignore_errors=True)
    state.manifest = make_manifest(folder, state, old)
    state.save(folder)


def _documents_of(generation: Path, unit: UnitState) -> Ints:
    return read_arrow(generation / f"{unit.name}.chunks.arrow")["document"].to_numpy()


def _build_shards(aside: Path, state: IndexState, parts: list[PartRows], workers: int) -> list[Path]:
    """Index the parts' rows, in several processes where there is enough to do."""
    total = sum(part.count for part in parts)
    if not total:
        return []
    processes = max(1, min(workers, total // PROCESS_ROWS))
    tasks, first = [], state.rows
    for number, share in enumerate(_shares(parts, processes)):
        tasks.append(ShardTask(str(aside / str(number)), state.table["path"], state, tuple(share), first))
        first += sum(part.count for part in share)
    if len(tasks) == 1:
        return [Path(build_shard(tasks[0]))]
    with ProcessPoolExecutor(
        len(tasks), mp_context=get_context("spawn"), initializer=end_with_parent, initargs=(os.getpid(),)
    ) as pool:
        return [Path(path) for path in pool.map(build_shard, tasks)]


def _shares(parts: list[PartRows], processes: int) -> list[list[PartRows]]:
    """Cut the rows into as many shares as there are processes, in order."""
    total = sum(part.count for part in parts)
    shares: list[list[PartRows]] = []
    done = 0
    for number in range(processes):
        # Share `number` has the rows from `done` to `last`, counted over all parts; `at` is where a part begins.
        last = total * (number + 1) // processes
        share, at = [], 0
        for part in parts:
            begin, end = max(done, at) - at, min(last, at + part.count) - at
            if begin < end:
                rows = part.rows if part.rows is not None else np.arange(part.count)
                share.append(replace(part, rows=rows[begin:end], count=end - begin))
            at += part.count
        shares.append(share)
        done = last
    return shares


def _dead_ratio(old: IndexState, deleted: int) -> float:
    """Share of the documents in the arrays that nothing shows once `deleted` more are gone."""
    return 1 - (old.documents - deleted) / old.rows if old.rows else 0.0


def _remove_old(folder: Path, state: IndexState) -> None:
    """Remove what the state does not name. Whoever has it open keeps it: the files are mapped into memory."""
    for path in folder.iterdir():
        if path.is_dir() and path.name not in (state.generation, state.epoch):
            shutil.rmtree(path, ignore_errors=True)
        elif path.name.startswith("index.json.") or path.name.endswith(".tmp"):
            path.unlink(missing_ok=True)
