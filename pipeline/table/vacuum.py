"""Delete the files of old versions and what killed runs left behind."""

import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.config.run_config import RunConfig
from pipeline.errors import PipelineError
from pipeline.table.delta import require_table
from pipeline.table.log import TableLog, read_log
from pipeline.table.open_runs import OpenRun, open_runs, publishing, runs_folder
from pipeline.table.parts import list_entries, list_parts
from transforms import files
from transforms.table.parts import is_made_by


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
    require_table(config, check=False)
    path = config.table.path
    before = time.time() - older_than_days * 86_400
    with nullcontext() if dry_run else publishing(path):
        log = read_log(path)
        if log.damaged:
            raise PipelineError(
                f"[{log.damaged[0]}] of the table [{path}] is damaged, so it is not known what older versions need; "
                "nothing was deleted"
            )
        runs = [run for run in open_runs(path) if _is_over(run, path, before)]
        found = [*_leftover_parts(path, log, before), *(_leftover_run(path, run) for run in runs)]
        if not dry_run:
            files.delete([files.join(path, one.path) for one in found if one.why != "killed run"])
            for one in found:
                if one.why == "killed run":
                    files.delete_folder(files.join(path, one.path))
    gone = {one.path for one in found}
    restorable = [number for number, parts in log.versions.items() if parts and not parts & gone]
    present = set(list_parts(path)) - gone
    return {
        "dry_run": dry_run,
        "removed": [asdict(one) for one in sorted(found, key=lambda one: (one.why, one.path))],
        "bytes": sum(one.bytes for one in found),
        "oldest_restorable": min(
            (number for number in restorable if log.versions[number] <= present), default=max(log.versions)
        ),
    }


def _is_over(run: OpenRun, path: str, before: float) -> bool:
    """Whether a run has ended without saying so: its process is gone, or, on another machine, it shows no life."""
    if _is_going_on(run):
        return False
    signs = [entry.updated for entry in list_entries(run.folder, "*")]
    signs += [entry.updated for entry in list_parts(path, run.run_id).values()]
    return max(signs, default=0.0) < before


def _is_going_on(run: OpenRun) -> bool:
    return run.is_here and run.pid != os.getpid() and not run.is_dead


def _leftover_parts(path: str, log: TableLog, before: float) -> Iterator[Leftover]:
    kept_runs = [run.run_id for run in open_runs(path) if not _is_over(run, path, before)]
    active = log.active
    for name, entry in list_parts(path).items():
        logged = log.parts.get(name)
        if name in active or is_made_by(name, kept_runs):
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
    size = sum(entry.size for entry in list_entries(run.folder, "*"))
    return Leftover(f"{runs_folder('')}/{run.run_id}".lstrip("/"), "killed run", size)
