"""The source formats. To add one, write a generator of its rows in `readers.py` and give it a line in `FORMATS`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from transforms.read.archives import MEMBER_MARK, is_archive, open_file
from transforms.read.folder import folder_rows
from transforms.read.readers import (
    COMPRESSIONS,
    MARKDOWN_ENDINGS,
    BadDocumentError,
    Reader,
    Row,
    SourceFormat,
    csv_rows,
    file_rows,
    jsonl_rows,
    parquet_rows,
)
from transforms.records import Split

Range = tuple[int, int]
"""Start and end of a piece of a file, end exclusive, in whatever unit its reader counts; -1 is the end of the file."""


def is_compressed(path: str) -> bool:
    """Whether a file's ending says that it must be unpacked, which only works from its beginning."""
    return path.endswith(tuple(COMPRESSIONS)) or MEMBER_MARK in path or is_archive(path)


def _whole(path: str, size: int, split_bytes: int) -> list[Range]:
    return [(0, -1)]


def _byte_ranges(path: str, size: int, split_bytes: int) -> list[Range]:
    if is_compressed(path):
        return [(0, -1)]
    return [(start, min(start + split_bytes, size)) for start in range(0, size, split_bytes)]


def _row_groups(path: str, size: int, split_bytes: int) -> list[Range]:
    """Ranges of row groups, each of about `split_bytes` uncompressed bytes."""
    with open_file(path) as handle:
        metadata: Any = pq.read_metadata(handle)
    ranges, start, held = [], 0, 0
    for group in range(metadata.num_row_groups):
        held += metadata.row_group(group).total_byte_size
        if held >= split_bytes or group == metadata.num_row_groups - 1:
            ranges.append((start, group + 1))
            start, held = group + 1, 0
    return ranges


@dataclass(frozen=True, slots=True)
class Format:
    """Everything that is particular about one source format.

    Attributes:
        read: reads the rows of a split.
        endings: the files of a folder that belong to it, each also with ``.gz`` or ``.zst`` behind it.
        cut: cuts a file into pieces that are read independently; takes its path, its size and the bytes of a piece.
        is_one_document: whether a whole file is one document; its failures then name no line.
        is_folder: whether all files belong to it, whatever they are, many of them to a split.
    """

    read: Reader
    endings: tuple[str, ...]
    cut: Callable[[str, int, int], list[Range]] = _whole
    is_one_document: bool = False
    is_folder: bool = False

    def matches(self, path: str) -> bool:
        """Whether a file of a folder belongs to the format."""
        if self.is_folder:
            return True
        endings = tuple(base + packed for base in self.endings for packed in ("", *COMPRESSIONS))
        return path.lower().endswith(endings)

    def line(self, number: int) -> int:
        """The line that names a document's place: `number`, or 0 where the document is the whole file."""
        return 0 if self.is_one_document else number


FORMATS = {
    "jsonl": Format(jsonl_rows, (".jsonl", ".ndjson", ".json"), cut=_byte_ranges),
    "parquet": Format(parquet_rows, (".parquet",), cut=_row_groups),
    "csv": Format(csv_rows, (".csv",)),
    "text": Format(file_rows, (".txt", ".text"), is_one_document=True),
    "markdown": Format(file_rows, MARKDOWN_ENDINGS, is_one_document=True),
    "files": Format(folder_rows, (), is_one_document=True, is_folder=True),
}


def read_rows(split: Split, source: SourceFormat) -> Iterator[Row]:
    """The rows of a split; a damaged archive costs what is behind the damage, and one failure stands for it."""
    number = -1
    try:
        for number, fields in FORMATS[source.format].read(split, source):
            yield number, fields
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        if not is_compressed(split.path):
            raise
        yield number + 1, BadDocumentError(f"the compressed file is damaged from here on: {error}")
