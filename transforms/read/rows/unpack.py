"""Source files as they are stored, and unpacked by their ending."""

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

import pyarrow as pa

from transforms.read.archives import MEMBER_MARK, is_archive, open_file

COMPRESSIONS = (".gz", ".zst")
"""Endings of compressed files."""

DAMAGE = (OSError, EOFError, zlib.error)
"""What unpacking raises where a file is damaged."""


def is_compressed(path: str) -> bool:
    """Whether a file's ending says that it must be unpacked, which only works from its beginning."""
    return path.lower().endswith(COMPRESSIONS) or MEMBER_MARK in path or is_archive(path)


@contextmanager
def open_unpacked(path: str) -> Iterator[IO[bytes]]:
    """Open a file, or a member of an archive, decompressing by its ending.

    Compressed files that follow one another in one file are one stream. NUL bytes behind the last member of a gzip
    file are padding, as tapes and some object stores leave it.
    """
    ending = os.path.splitext(path)[1].lower()
    with open_file(path) as handle:
        if ending == ".gz":
            with gzip.GzipFile(fileobj=handle, mode="rb") as unpacked:
                yield cast(IO[bytes], unpacked)
        elif ending == ".zst":
            packed = pa.CompressedInputStream(pa.PythonFile(handle, mode="r"), "zstd")
            with io.BufferedReader(packed, 1 << 16) as buffered:
                yield buffered
        else:
            yield handle
