"""Files on local disks and, through Beam's FileSystems, in object stores.

Listed, read, and written so that a half-written file never carries its final name. Beam is imported when the first
URL is used: a command that looks at local files would wait for it longer than it works.
"""

import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from tempfile import SpooledTemporaryFile
from typing import IO, Any, cast

UNCOMPRESSED = "uncompressed"
"""Beam's word for bytes as they are stored."""

READ_BYTES = 1 << 16
"""Bytes that are read from a local file at once: lines of usual documents are hundreds of times shorter."""

SPOOL_BYTES = 64 * 1024 * 1024
"""What is written to an object store waits in memory up to this size, on disk beyond it."""


def is_local(path: str) -> bool:
    """Whether a path names a file of this machine."""
    return "://" not in path


def join(folder: str, *names: str) -> str:
    """Join path elements the way the folder's file system does."""
    return os.path.join(folder, *names) if is_local(folder) else str(_stores().join(folder, *names))


def open_read(path: str) -> IO[bytes]:
    """Open a file for reading, bytes as they are stored."""
    if is_local(path):
        return open(path, "rb", buffering=READ_BYTES)
    return cast(IO[bytes], _stores().open(path, compression_type=UNCOMPRESSED))


def _stores() -> Any:
    from transforms.object_stores import file_systems

    return file_systems()


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
            with _stores().create(path, compression_type=UNCOMPRESSED) as upload:
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


def list_files(folder: str, pattern: str = "**", *, hidden: bool = True) -> list[tuple[str, int]]:
    """List the files of a folder that match a glob, by name.

    Args:
        folder: a folder. Whatever characters its name holds, it is never a pattern.
        pattern: of paths below it, with ``*`` and ``?`` (not over a separator), ``[...]``, and ``**`` for any number
            of folders.
        hidden: also look at files and folders whose names begin with a dot, and into those that Delta Lake and Spark
            keep for themselves.

    Returns:
        (path, size in bytes) of each file, sorted by path.

    Raises:
        PermissionError: a local folder that may hold such files cannot be read. Its files are not gone.
    """
    patterns = list(dict.fromkeys([pattern, pattern.replace("**/", "")]))
    if is_local(folder):
        return sorted(_walk(folder, patterns, hidden))
    start = folder.rstrip("/") + "/" if folder else ""
    globs = [escape(start) + one for one in patterns]
    entries = [entry for result in _stores().match(globs) for entry in result.metadata_list]
    found = {entry.path: entry.size_in_bytes for entry in entries}
    return sorted(
        (path, size) for path, size in found.items() if hidden or not _is_hidden(path[len(start) :])
    )


def find_files(path: str) -> tuple[str, list[tuple[str, int]]]:
    """The files that a path of a person stands for: the file of that name, or else those that match it as a glob.

    Returns:
        The folder that they lie in, and (path, size in bytes) of each file, sorted by path.
    """
    if is_local(path) and os.path.lexists(path):
        return os.path.dirname(path), [(path, size) for size in [_size(path)] if size >= 0]
    if not is_local(path) and (not is_glob(path) or exists(path)):
        entries = _stores().match([escape(path)])[0].metadata_list
        return os.path.dirname(path), [(entry.path, entry.size_in_bytes) for entry in entries]
    folder = os.path.dirname(_GLOB.split(path)[0])
    return folder, list_files(folder, path[len(folder) :].lstrip("/"))


_GLOB = re.compile(r"[*?\[]")
_KEPT_FOLDERS = ("_delta_log", "_change_data", "_delta_index", "_spark_metadata", "_temporary")


def is_glob(path: str) -> bool:
    """Whether a path can be read as a pattern; it is none where a file has that name."""
    return _GLOB.search(path) is not None


def escape(path: str) -> str:
    """The pattern that only this path matches."""
    return _GLOB.sub(r"[\g<0>]", path)


def _is_hidden(below: str) -> bool:
    """Whether a path below a folder has a hidden name in it, or a folder of Delta Lake's or Spark's own."""
    *folders, _ = names = below.replace(os.sep, "/").split("/")
    return any(name.startswith(".") for name in names) or not set(folders).isdisjoint(_KEPT_FOLDERS)


def _walk(root: str, patterns: list[str], hidden: bool) -> Iterator[tuple[str, int]]:
    """Yield the local files below a folder that match one of several patterns."""
    wanted = [re.compile(_expression(pattern)) for pattern in patterns]
    depth = None if "**" in patterns[0] else patterns[0].count("/")
    for folder, names in _real_folders(root, depth, hidden):
        for name in names:
            below = os.path.normpath(os.path.join(folder, name))
            if any(each.match(below) for each in wanted) and (hidden or not _is_hidden(below)):
                path = os.path.join(root, below)
                with suppress(FileNotFoundError):  # gone since it was listed
                    if (size := _size(path)) >= 0:
                        yield path, size


def _real_folders(root: str, depth: int | None, hidden: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder below `root`, relative to it, with the names in it; links to folders are followed.

    A folder that several paths lead to is yielded once, under its own place where that lies below `root`: links are
    looked at after everything else.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    seen, starts = set(), [root or "."]
    for start in starts:
        for folder, folders, names in os.walk(start, onerror=refuse):
            status, below = os.stat(folder), os.path.relpath(folder, root or ".")
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            yield below, names
            if depth is not None and (0 if below == "." else below.count(os.sep) + 1) >= depth:
                folders.clear()  # no file below can match
            if not hidden:
                folders[:] = [name for name in folders if not _is_hidden(f"{name}/_")]
            linked = sorted(name for name in folders if os.path.islink(os.path.join(folder, name)))
            starts += [os.path.join(folder, name) for name in linked]


_TOKEN = re.compile(r"(?P<deep>\*\*)|(?P<star>\*)|(?P<one>\?)|\[(?P<not>!)?(?P<set>\][^\]]*|[^\]]+)\]")


def _expression(pattern: str) -> str:
    """The regular expression of a glob; it means what Beam's globs for object stores mean."""
    expression, start = "", 0
    for found in _TOKEN.finditer(pattern):
        expression += re.escape(pattern[start : found.start()])
        start = found.end()
        if found["set"] is not None:
            inside = re.sub(r"([\\\[\]^&|~])", r"\\\1", found["set"])
            expression += f"[{'^' if found['not'] else ''}{inside}]"
        else:
            expression += ".*" if found["deep"] else r"[^/\\]*" if found["star"] else "."
    return f"(?s:{expression}{re.escape(pattern[start:])})\\Z"


def _size(path: str) -> int:
    """Size of a file in bytes; 0 for a link that leads nowhere, -1 for a pipe, a socket or a device."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        if os.path.islink(path):
            return 0
        raise
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def delete(paths: list[str]) -> None:
    """Delete files; those that are gone already do not matter."""
    for path in filter(is_local, paths):
        with suppress(FileNotFoundError):
            os.unlink(path)
    stored = [path for path in paths if not is_local(path) and _stores().exists(path)]
    if stored:
        _stores().delete([escape(path) for path in stored])


def size_of(path: str) -> int:
    """Size of a file in bytes.

    Raises:
        FileNotFoundError: there is none of that name.
    """
    if is_local(path):
        return os.path.getsize(path)
    entries = _stores().match([escape(path)])[0].metadata_list
    if not entries:
        raise FileNotFoundError(f"there is no file [{path}]")
    size: int = entries[0].size_in_bytes
    return size


def exists(path: str) -> bool:
    """Whether there is a file of this name."""
    return os.path.exists(path) if is_local(path) else bool(_stores().exists(path))


def delete_folder(folder: str) -> None:
    """Delete a folder and everything in it; one that is gone already does not matter."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        delete([path for path, _ in list_files(folder)])
