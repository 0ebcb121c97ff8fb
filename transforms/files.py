"""Files on local disks and object stores, through Beam's FileSystems.

Listed, read, and written so that a half-written file never carries its final name.
"""

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from tempfile import SpooledTemporaryFile
from typing import IO, cast

from apache_beam.io.filesystem import CompressionTypes, FileSystem
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

if FileSystems._pipeline_options is None:
    # Object stores refuse to work without options; with empty ones they take everything from the environment. Beam
    # sets its own on the workers that it starts itself, but not in the launcher and not in external worker pools.
    FileSystems.set_options(PipelineOptions([]))

SPOOL_BYTES = 64 * 1024 * 1024
"""What is written to an object store waits in memory up to this size, on disk beyond it."""


def is_local(path: str) -> bool:
    """Whether a path names a file of this machine."""
    return "://" not in path


def join(folder: str, *names: str) -> str:
    """Join path elements the way the folder's file system does."""
    return FileSystems.join(folder, *names)


def open_read(path: str) -> IO[bytes]:
    """Open a file for reading, bytes as they are stored."""
    handle: IO[bytes] = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    return handle


@contextmanager
def create(path: str) -> Iterator[IO[bytes]]:
    """Write a file that appears under its name only when it is complete.

    On a local disk the bytes go to a temporary name that starts with a dot, are synced, and the file is renamed. For
    an object store they are kept aside and uploaded when the block ends without an error. Either way a writer that
    fails or is killed leaves nothing that a reader would take for the file, and writing it again is safe.
    """
    if not is_local(path):
        with SpooledTemporaryFile(SPOOL_BYTES) as spool:
            yield cast(IO[bytes], spool)
            spool.seek(0)
            with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as upload:
                shutil.copyfileobj(spool, upload, 1 << 20)
        return
    folder, name = os.path.split(path)
    os.makedirs(folder or ".", exist_ok=True)
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def list_files(pattern: str, *, hidden: bool = True) -> list[tuple[str, int]]:
    """List the files that match a glob, by name.

    Args:
        pattern: a path with ``*`` and ``?`` (not over a separator), ``[...]``, and ``**`` for any number of folders.
        hidden: also look at files and folders whose names begin with a dot or an underscore.

    Returns:
        (path, size in bytes) of each file, sorted by path.

    Raises:
        PermissionError: a local folder that may hold such files cannot be read. Its files are not gone.
    """
    patterns = list(dict.fromkeys([pattern, pattern.replace("**/", "")]))
    if is_local(pattern):
        return sorted(_walk(patterns, hidden))
    entries = [entry for result in FileSystems.match(patterns) for entry in result.metadata_list]
    found = {entry.path: entry.size_in_bytes for entry in entries}
    start = len(root_of(pattern))
    return sorted((path, size) for path, size in found.items() if hidden or not _HIDDEN.search(path[start:]))


_HIDDEN = re.compile(r"(^|/)[._]")


def _walk(patterns: list[str], hidden: bool) -> Iterator[tuple[str, int]]:
    """Yield the local files that match one of several patterns with the same beginning."""
    if not is_glob(patterns[0]):
        if os.path.isfile(patterns[0]):
            yield patterns[0], os.path.getsize(patterns[0])
        return
    root = root_of(patterns[0])
    wanted = [re.compile(FileSystem.translate_pattern(pattern)) for pattern in patterns]
    depth = None if "**" in patterns[0] else patterns[0][len(root) :].strip("/").count("/")

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for folder, folders, names in os.walk(root or ".", onerror=refuse):
        below = os.path.relpath(folder, root or ".")
        if depth is not None and (0 if below == "." else below.count(os.sep) + 1) >= depth:
            folders.clear()  # no file below can match
        if not hidden:
            folders[:] = [name for name in folders if not _HIDDEN.match(name)]
        for name in names:
            if not hidden and _HIDDEN.match(name):
                continue
            path = os.path.join(folder, name) if root else os.path.normpath(os.path.join(folder, name))
            if any(each.match(path) for each in wanted):
                with suppress(FileNotFoundError):  # gone since it was listed
                    yield path, os.path.getsize(path)


def is_glob(path: str) -> bool:
    """Whether a path is a pattern."""
    return any(character in path for character in "*?[")


def root_of(pattern: str) -> str:
    """The folder that all files of a pattern lie in."""
    return os.path.dirname(re.split(r"[*?\[]", pattern)[0])


def delete(paths: list[str]) -> None:
    """Delete files; those that are gone already do not matter."""
    paths = [path for path in paths if FileSystems.exists(path)]
    if paths:
        FileSystems.delete(paths)


def exists(path: str) -> bool:
    """Whether there is a file of this name."""
    found: bool = FileSystems.exists(path)
    return found


def delete_folder(folder: str) -> None:
    """Delete a folder and everything in it; one that is gone already does not matter."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        delete([path for path, _ in list_files(join(folder, "**"))])
