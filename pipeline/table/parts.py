"""The part files that lie in a table's folder, published or not."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from transforms import files
from transforms.table.parts import part_pattern


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a table's folder.

    Attributes:
        path: its path.
        size: bytes.
        updated: when it was last written, in seconds since 1970.
    """

    path: str
    size: int
    updated: float


def list_parts(table_path: str, run_id: str | None = None) -> dict[str, Entry]:
    """The part files of a table, or of one run only: name relative to the table -> file, by name."""
    found = list_entries(table_path, part_pattern(run_id))
    return {entry.path.replace("\\", "/").rpartition("/")[2]: entry for entry in found}


def list_entries(folder: str, pattern: str) -> list[Entry]:
    """The files of a folder that match a glob, by path.

    Raises:
        PermissionError: a folder that may hold such files cannot be read. Its files are not gone.
    """
    return list(
        _local_entries(folder, pattern) if files.is_local(folder) else _remote_entries(folder, pattern)
    )


def _local_entries(folder: str, pattern: str) -> Iterator[Entry]:
    for path, size in files.list_files(folder, pattern):
        with suppress(FileNotFoundError):  # gone since it was listed
            yield Entry(path, size, os.path.getmtime(path))


def _remote_entries(folder: str, pattern: str) -> Iterator[Entry]:
    from transforms.object_stores import file_systems

    found = file_systems().match([files.join(files.escape(folder), pattern)])[0].metadata_list
    for entry in sorted(found, key=lambda entry: entry.path):
        yield Entry(entry.path, entry.size_in_bytes, entry.last_updated_in_seconds or 0.0)
