"""Split a source into pieces that workers read independently."""

import os
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from transforms import files

EXTENSIONS = {
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "parquet": (".parquet",),
    "csv": (".csv",),
    "text": (".txt", ".text"),
    "markdown": (".md", ".markdown"),
}
"""Source format -> the files of a folder that belong to it, each also with ``.gz`` or ``.zst`` behind it."""

COMPRESSIONS = (".gz", ".zst")


@dataclass(frozen=True, slots=True)
class Split:
    """A piece of one source file.

    Attributes:
        index: its place in source order, over all files.
        path: the file.
        start: first byte (JSON lines), row group (Parquet), else 0.
        end: end of the range, exclusive; -1 for the whole file.
        name: the file's path below the configured folder: the id of a text document.
        first_line: line number of its first line; known once everything before it has been read.
    """

    index: int
    path: str
    start: int
    end: int
    name: str
    first_line: int = 1


@dataclass(frozen=True, slots=True)
class SourceFormat:
    """How documents are read.

    Attributes:
        format: ``jsonl``, ``parquet``, ``csv``, ``text`` or ``markdown``.
        id: field that holds the id; None derives it from the content.
        max_document_bytes: larger documents become failures.
    """

    format: str
    id: str | None
    max_document_bytes: int


def list_splits(paths: list[str], format: str, split_bytes: int) -> list[Split]:
    """Find the source files and cut them into splits, in source order (paths as given, files by name).

    Raises:
        FileNotFoundError: a path matches no file.
    """
    splits: list[Split] = []
    seen: set[str] = set()
    for configured in paths:
        root, found = _expand(configured, format)
        if not found:
            raise FileNotFoundError(f"source.path [{configured}] matches no {format} file")
        for path, size in found:
            if path in seen:
                continue
            seen.add(path)
            name = path[len(root) :].lstrip("/\\") or os.path.basename(path)
            for start, end in _ranges(path, size, format, split_bytes):
                splits.append(Split(len(splits), path, start, end, name))
    return splits


def _expand(configured: str, format: str) -> tuple[str, list[tuple[str, int]]]:
    """The folder that names are relative to, and the files of one configured path."""
    if files.is_glob(configured):
        return files.root_of(configured), files.list_files(configured)
    is_folder = os.path.isdir(configured) if files.is_local(configured) else configured.endswith("/")
    if not is_folder:
        return os.path.dirname(configured), files.list_files(configured)
    endings = tuple(base + packed for base in EXTENSIONS[format] for packed in ("", *COMPRESSIONS))
    found = files.list_files(files.join(configured, "**"), hidden=False)
    return configured, [(path, size) for path, size in found if path.lower().endswith(endings)]


def _ranges(path: str, size: int, format: str, split_bytes: int) -> list[tuple[int, int]]:
    if format == "jsonl" and not path.endswith(COMPRESSIONS):
        return [(start, min(start + split_bytes, size)) for start in range(0, size, split_bytes)]
    if format == "parquet":
        with files.open_read(path) as handle:
            metadata = pq.read_metadata(handle)
        return _row_group_ranges(metadata, split_bytes)
    return [(0, -1)]


def _row_group_ranges(metadata: Any, split_bytes: int) -> list[tuple[int, int]]:
    ranges, start, held = [], 0, 0
    for group in range(metadata.num_row_groups):
        held += metadata.row_group(group).total_byte_size
        if held >= split_bytes or group == metadata.num_row_groups - 1:
            ranges.append((start, group + 1))
            start, held = group + 1, 0
    return ranges
