"""Archives: the members of zip and tar files, compressed files, mailboxes and web archives, read without unpacking.

Nothing is ever written to disk. A member costs at most the size of a document; what an archive unpacks to is bounded
by a ratio, so that a small file cannot become an endless one.
"""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import IO, Any, cast

import pyarrow as pa

from transforms import files
from transforms.read.extract.content_types import DAMAGE

ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.zst")
"""Files that are looked into for members of a source format."""

MEMBER_MARK = "!/"
"""Between the path of an archive and that of its member."""

COMPRESSED = ("gzip", "bzip2", "zstd")
"""Types that may hold just one file."""

MAX_RATIO = 200
"""An archive that unpacks to more than so many times its size is a bomb; ordinary logs reach 50."""

FREE_BYTES = 256 << 20
"""So much may be unpacked whatever the ratio."""

SPOOL_BYTES = 64 << 20
"""A member waits in memory up to this size, in a temporary file beyond it."""

MAX_MEMBERS = 1_000_000

MAX_DEPTH = 3
"""Archives inside archives inside archives, and no deeper."""

_DAMAGE = (*DAMAGE, tarfile.TarError)


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive.

    Attributes:
        name: its path in the archive.
        content: its bytes; None where there is a problem.
        problem: why it, or what is behind it, cannot be read.
    """

    name: str
    content: bytes | None
    problem: str | None = None


class _Bomb(ValueError):
    """An archive unpacks to more than it may."""


def is_archive(path: str) -> bool:
    """Whether a file's name says that it is a zip or tar file."""
    return path.lower().endswith(ARCHIVE_ENDINGS)


def members(handle: IO[bytes], type_name: str, name: str, size: int, limit: int) -> Iterator[Member]:
    """Read the members of an archive, in order.

    Args:
        handle: the archive, seekable.
        type_name: its type, one that is to be treated as an archive.
        name: its name; a compressed file's member is called so, without the ending.
        size: its bytes.
        limit: a larger member is a problem of that member.

    Yields:
        Each member; where the archive is damaged or a bomb, a problem stands for the rest of it.
    """
    unpacked = 0
    allowed = max(FREE_BYTES, MAX_RATIO * size)
    try:
        for count, member in enumerate(_READERS[type_name](handle, name, limit)):
            unpacked += len(member.content or b"")
            if unpacked > allowed:
                raise _Bomb(f"it unpacks to more than {MAX_RATIO} times its size")
            if count >= MAX_MEMBERS:
                raise _Bomb(f"it has more than {MAX_MEMBERS} members")
            yield member
    except _DAMAGE as error:
        what = "is refused" if isinstance(error, _Bomb) else "is damaged"
        yield Member("", None, f"the archive {what} from here on: {error or type(error).__name__}")


def list_members(path: str) -> list[tuple[str, int]]:
    """The members of a zip or tar file that may be read: path and size of each, by path.

    Raises:
        OSError: it is no such archive, or damaged.
    """
    try:
        with files.open_read(path) as handle:
            if path.lower().endswith(".zip"):
                with zipfile.ZipFile(handle) as container:
                    found = [
                        (info.filename, info.file_size)
                        for info in container.infolist()
                        if not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16)
                    ]
            else:
                with _opened_tar(path, handle) as tar:
                    found = [(info.name, info.size) for info in tar if info.isreg()]
    except _DAMAGE as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise OSError(f"[{path}] is a damaged archive: {error or type(error).__name__}") from None
    return sorted(member for member in found if path_problem(member[0]) is None)


@contextmanager
def open_file(path: str) -> Iterator[IO[bytes]]:
    """Open a file, or a member by the path of its archive and its own: ``archive.zip!/inside/a.jsonl``; seekable.

    Raises:
        OSError: it is not there, damaged, or unpacks to more than its archive may.
    """
    archive, mark, name = path.partition(MEMBER_MARK)
    if not mark and not is_archive(path):
        with files.open_read(path) as handle:
            yield handle
        return
    with SpooledTemporaryFile(SPOOL_BYTES) as spool:
        try:
            with files.open_read(archive) as handle:
                _unpack(handle, archive, name, cast(IO[bytes], spool))
        except (FileNotFoundError, PermissionError):
            raise
        except (KeyError, *_DAMAGE) as error:
            raise OSError(f"[{path}] cannot be read: {error or type(error).__name__}") from None
        spool.seek(0)
        yield cast(IO[bytes], spool)


def _unpack(handle: IO[bytes], archive: str, name: str, target: IO[bytes]) -> None:
    """Copy one member."""
    left = max(FREE_BYTES, MAX_RATIO * handle.seek(0, os.SEEK_END))
    handle.seek(0)
    with ExitStack() as stack:
        if archive.lower().endswith(".zip"):
            member: Any = stack.enter_context(zipfile.ZipFile(handle)).open(name)
        else:
            tar = stack.enter_context(_opened_tar(archive, handle))
            member = next((tar.extractfile(info) for info in tar if info.name == name), None)
        if member is None:
            raise KeyError(f"there is no member {name!r} in the archive")
        while piece := member.read(1 << 20):
            left -= len(piece)
            if left < 0:
                raise _Bomb(f"it unpacks to more than {MAX_RATIO} times the archive's size")
            target.write(piece)


@contextmanager
def _opened_tar(path: str, handle: IO[bytes]) -> Iterator[tarfile.TarFile]:
    if path.lower().endswith(".zst"):
        with unpack_zstd(handle) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as tar:
            yield tar
    else:
        with tarfile.open(fileobj=handle, mode="r:*") as tar:
            yield tar


def _zip(handle: IO[bytes], name: str, limit: int) -> Iterator[Member]:
    with zipfile.ZipFile(handle) as container:
        for info in container.infolist():
            if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
                continue
            if info.flag_bits & 1:
                yield Member(info.filename, None, "the member is encrypted")
            elif info.file_size > limit:
                yield _too_large(info.filename, limit)
            else:
                yield _checked(info.filename, partial(container.open, info), limit)


def _tar(handle: IO[bytes], name: str, limit: int) -> Iterator[Member]:
    with tarfile.open(fileobj=handle, mode="r|") as container:
        for info in container:
            if not info.isreg():
                continue  # folders, links and devices hold no text of their own
            if info.size > limit:
                yield _too_large(info.name, limit)
            else:
                yield _checked(info.name, partial(container.extractfile, info), limit)


def _compressed(
    handle: IO[bytes], name: str, limit: int, unpack: Callable[[IO[bytes]], IO[bytes]]
) -> Iterator[Member]:
    """One compressed file, which may be a tar file or a web archive."""
    with unpack(handle) as stream:
        head = stream.read(512)
        if head[257:262] == b"ustar":
            handle.seek(0)
            with unpack(handle) as again:
                yield from _tar(again, name, limit)
        elif head.startswith(b"WARC/"):
            handle.seek(0)
            yield from _warc(handle, name, limit)
        else:
            content = head + stream.read(max(0, limit + 1 - len(head)))
            inner = os.path.splitext(os.path.basename(name))[0]
            yield _too_large(inner, limit) if len(content) > limit else Member(inner, content)


def _gzip(handle: IO[bytes], name: str, limit: int) -> Iterator[Member]:
    return _compressed(handle, name, limit, lambda packed: cast(IO[bytes], gzip.GzipFile(fileobj=packed)))


def _bzip2(handle: IO[bytes], name: str, limit: int) -> Iterator[Member]:
    return _compressed(handle, name, limit, lambda packed: cast(IO[bytes], bz2.BZ2File(packed)))


def _zstd(handle: IO[bytes], name: str, limit: int) -> Iterator[Member]:
    return _compressed(handle, name, limit, unpack_zstd)


def unpack_zstd(packed: IO[bytes]) -> IO[bytes]:
    """The contents of a file compressed with Zstandard."""
    stream = pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), "zstd")
    return cast(IO[bytes], io.BufferedReader(stream, 1 << 20))


def _checked(name: str, start: Callable[[], Any], limit: int) -> Member:
    """Read one member; its damage costs itself where the archive can be read on."""
    if problem := path_problem(name):
        return Member(name, None, problem)
    try:
        with start() as member:
            content = member.read(limit + 1)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError) as error:
        return Member(name, None, f"the member is damaged: {error}")
    return _too_large(name, limit) if len(content) > limit else Member(name, content)


def _too_large(name: str, limit: int) -> Member:
    return Member(name, None, f"the member is larger than source.max_document_bytes [{limit}]")


def path_problem(name: str) -> str | None:
    """What is wrong with a member's path: it must stay inside the archive, for whoever uses it as a path later."""
    steps = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in steps or re.match(r"[A-Za-z]:", name):
        return "the member's path leads out of the archive"
    if any(ord(character) < 32 for character in name):
        return "the member's path holds control characters"
    return None


def _mbox(handle: IO[bytes], name: str, limit: int) -> Iterator[Member]:
    """The messages of a mailbox, by their Message-ID; without one, by a hash of the message."""
    lines: list[bytes] = []
    size, blank = 0, True
    while line := handle.readline(limit + 1):
        if blank and line.startswith(b"From "):
            if lines:
                yield _message(lines, size, limit)
            lines, size = [], 0
        else:
            size += len(line)
            if size <= limit:
                lines.append(line[1:] if re.match(rb">+From ", line) else line)
        blank = not line.strip()
    if lines:
        yield _message(lines, size, limit)


def _message(lines: list[bytes], size: int, limit: int) -> Member:
    content = b"".join(lines)
    identity = BytesHeaderParser().parsebytes(content[: 1 << 16]).get("Message-ID")
    name = re.sub(r"[\s<>]", "", str(identity or "")) or hashlib.blake2b(content, digest_size=8).hexdigest()
    return _too_large(name, limit) if size > limit else Member(name, content)


def _warc(handle: IO[bytes], name: str, limit: int) -> Iterator[Member]:
    """The pages of a web archive that were served, by their addresses. Nothing is fetched."""
    from warcio.archiveiterator import ArchiveIterator
    from warcio.exceptions import ArchiveLoadFailed

    try:
        for record in ArchiveIterator(handle):
            served = record.rec_type == "resource" or (
                record.rec_type == "response"
                and (record.http_headers is None or record.http_headers.get_statuscode() == "200")
            )
            if served:
                address = record.rec_headers.get_header("WARC-Target-URI") or ""
                content = record.content_stream().read(limit + 1)
                yield _too_large(address, limit) if len(content) > limit else Member(address, content)
    except ArchiveLoadFailed as error:
        raise ValueError(str(error)) from None


_READERS: dict[str, Callable[[IO[bytes], str, int], Iterator[Member]]] = {
    "zip": _zip,
    "tar": _tar,
    "gzip": _gzip,
    "bzip2": _bzip2,
    "zstd": _zstd,
    "mbox": _mbox,
    "warc": _warc,
}
