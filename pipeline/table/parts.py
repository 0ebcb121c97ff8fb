"""The part files of a table as they lie on disk."""

from dataclasses import dataclass

from apache_beam.io.filesystems import FileSystems

from transforms import files


@dataclass(frozen=True)
class _Entry:
    path: str
    size: int
    updated: float


def list_entries(pattern: str) -> list[_Entry]:
    """List the files that match `pattern`, with size and time."""
    found = FileSystems.match([pattern])[0].metadata_list
    return [_Entry(entry.path, entry.size_in_bytes, entry.last_updated_in_seconds or 0.0) for entry in found]


def part_files(path: str) -> list[tuple[str, _Entry]]:
    """The part files that are there, by name relative to the table."""
    entries = list_entries(files.join(path, "part-*.parquet"))
    return sorted((entry.path.replace("\\", "/").rpartition("/")[2], entry) for entry in entries)


def list_parts(table_path: str) -> list[tuple[str, int]]:
    """Path and size of every part file in the table's folder, published or not."""
    return files.list_files(files.join(table_path, "part-*.parquet"))
