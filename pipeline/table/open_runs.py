"""Runs that have begun and not ended: their folders, and the finished parts that a killed one left behind.

A run's folder `<table>/_runs/<run id>/` exists from its start until its commit is done. So a folder that is still
there belongs to a run that is going on or was killed, and its part files that no version of the table names are
finished work that the next run takes over. Losing a folder costs work, never correctness.
"""

import logging
import os
import socket
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from pipeline.errors import PipelineError
from pipeline.table.parts import list_parts
from transforms import files

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenRun:
    """A run that has not ended.

    Attributes:
        run_id: its id.
        folder: its folder.
        started: when it began, ISO 8601.
        host: machine that launched it.
        pid: its process there.
        process: tells that process from a later one with the same number; empty where the system does not say.
        machine: tells machines and containers apart that share a host name, and process numbers with it.
    """

    run_id: str
    folder: str
    started: str
    host: str
    pid: int
    process: str = ""
    machine: str = ""

    @property
    def is_here(self) -> bool:
        """Whether it was launched where this process can see it: the same machine and the same space of processes."""
        return self.host == socket.gethostname() and self.machine in ("", _machine())

    @property
    def is_dead(self) -> bool:
        """Whether it certainly is not going on: launched on this machine, by a process that is gone."""
        if not self.is_here:
            return False
        if self.pid == os.getpid():
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return bool(self.process) and _process_identity(self.pid) not in ("", self.process)

    def parts(self, table_path: str) -> list[str]:
        """Finished part files of this run, relative to the table."""
        return list(list_parts(table_path, self.run_id))


def runs_folder(table_path: str) -> str:
    """Folder of the open runs of a table. Delta Lake leaves names that begin with an underscore alone."""
    return files.join(table_path, "_runs")


def begin_run(table_path: str, run_id: str, started: datetime) -> str:
    """Create a run's folder.

    Returns:
        The folder.

    Raises:
        PipelineError: the table's folder cannot be written.
    """
    folder = files.join(runs_folder(table_path), run_id)
    marker = {
        "started": started.isoformat(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process": _process_identity(os.getpid()),
        "machine": _machine(),
    }
    try:
        with files.create(files.join(folder, "run.json")) as handle:
            handle.write(orjson.dumps(marker))
    except OSError as error:
        raise PipelineError(
            f"table.path [{table_path}] cannot be written: {error.strerror or error}"
        ) from None
    return folder


def _machine() -> str:
    """Boot and process namespace of this process, where the system has /proc.

    Two containers may share a host name, and both count their processes from 1.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _process_identity(pid: int) -> str:
    """Boot and start time of a process, where the system has /proc; process numbers are used again after a reboot."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # The name of the program is in brackets and may hold anything; the 20th field behind it is the start time.
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
    return f"{boot}/{started}"


def open_runs(table_path: str) -> list[OpenRun]:
    """The runs of a table that have not ended, oldest first."""
    found = []
    for path, _ in files.list_files(runs_folder(table_path), "*/run.json"):
        folder = path.replace("\\", "/").rpartition("/")[0]
        try:
            with files.open_read(path) as handle:
                found.append(_described_run(folder, orjson.loads(handle.read())))
        except OSError:
            # It ended between the listing and now.
            continue
        except (ValueError, TypeError):
            log.warning("[%s] is damaged or none of ours; that run is left alone", path)
    return sorted(found, key=lambda run: run.started)


def _described_run(folder: str, marker: Any) -> OpenRun:
    """The run that a marker describes.

    Raises:
        TypeError: it describes none.
    """
    run = OpenRun(folder.rpartition("/")[2], folder, **marker)
    wanted = {"started": str, "host": str, "pid": int, "process": str, "machine": str}
    if not all(isinstance(getattr(run, name), kind) for name, kind in wanted.items()) or run.pid <= 0:
        raise TypeError("not a marker")
    return run


def clear_dead_runs(table_path: str, runs: Sequence[OpenRun], logged: Collection[str]) -> None:
    """Remove what killed runs left behind, after a commit has taken over what was of use.

    Args:
        table_path: the table.
        runs: the other open runs.
        logged: part files that any version of the table names. They stay: an older version may be restored, and a
            run that was killed between its commit and its end has left its folder behind.
    """
    keep = set(logged)
    for run in runs:
        if run.is_dead:
            files.delete([files.join(table_path, part) for part in run.parts(table_path) if part not in keep])
            files.delete_folder(run.folder)


@contextmanager
def table_lock(table_path: str) -> Iterator[None]:
    """Hold the table's lock; the operating system frees it when the process ends, however it ends.

    Raises:
        PipelineError: another run holds it, or the table is not on a local disk.
    """
    from filelock import FileLock, Timeout

    if not files.is_local(table_path):
        raise PipelineError(f"--lock needs a table on a local disk, not [{table_path}]")
    os.makedirs(runs_folder(table_path), exist_ok=True)
    lock = FileLock(os.path.join(runs_folder(table_path), ".lock"), timeout=0)
    try:
        with lock:
            yield
    except Timeout:
        going = ", ".join(f"{run.run_id} (process {run.pid} on {run.host})" for run in open_runs(table_path))
        raise PipelineError(
            f"another run of the table [{table_path}] is in progress: {going or 'just starting'}. "
            "Nothing was done; start again when it has ended."
        ) from None


PUBLISH_SECONDS = 120
"""So long a command waits for others that publish or delete; each of them takes a moment."""


@contextmanager
def publishing(table_path: str) -> Iterator[None]:
    """Hold the lock of what changes the published table: commits, and deletions of part files.

    Whoever deletes looks into the log with the lock held, so nothing is published in between that needs what goes. On
    an object store there is no lock: there only one command at a time may delete.

    Raises:
        PipelineError: another command has held it for too long.
    """
    from filelock import FileLock, Timeout

    if not files.is_local(table_path):
        yield
        return
    os.makedirs(runs_folder(table_path), exist_ok=True)
    lock = FileLock(os.path.join(runs_folder(table_path), ".publish"), timeout=PUBLISH_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise PipelineError(
            f"another command has been publishing or deleting in the table [{table_path}] for {PUBLISH_SECONDS} s; "
            "nothing was changed. Start again when it has ended."
        ) from None
    try:
        yield
    finally:
        lock.release()


def now() -> datetime:
    """The current time, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class RunContext:
    """What all graphs of one run share.

    Attributes:
        run_id: the run's id, part of every part file's name.
        started: when it began; the rows' ``ingested_at``.
        folder: folder of the run's own small files, below the table.
        progress_folder: where workers leave their progress; None for none.
    """

    run_id: str
    started: datetime
    folder: str
    progress_folder: str | None = None
