"""Split a source into pieces that workers read independently."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from transforms import files
from transforms.read.archives import MEMBER_MARK, is_archive, list_members
from transforms.read.formats import FORMATS
from transforms.records import Piece, Split

SMALL_FILE = 4096
"""A file costs as much as so many bytes, for opening it."""


@dataclass(frozen=True)
class Listing:
    """What the paths of a source lead to.

    Attributes:
        splits: the files that are read, in source order (paths as given, files by name).
        skipped: files of the configured folders that the format does not read, by ending.
    """

    splits: list[Split]
    skipped: Counter[str] = field(default_factory=Counter)


SLICES = 4
"""An index is read in so many slices side by side, where several workers read."""


def connection_splits(format: str, name: str, workers: int) -> Listing:
    """The splits of a source that is no file: a database is one, an index is cut into slices."""
    count = min(workers, SLICES) if format == "elasticsearch" else 1
    pieces = (Piece(f"{format}:{name}", number, count, name) for number in range(count))
    return Listing([Split(number, (piece,)) for number, piece in enumerate(pieces)])


def list_source(paths: list[str], format: str, split_bytes: int) -> Listing:
    """Find the source files, cut large ones into pieces, and gather small ones, so that splits are of one size.

    Raises:
        FileNotFoundError: a path matches no file.
    """
    skipped: Counter[str] = Counter()
    return Listing(gather(_pieces(paths, format, split_bytes, skipped), split_bytes), skipped)


def gather(pieces: Iterable[Piece], split_bytes: int) -> list[Split]:
    """Put neighbouring pieces together to splits of about `split_bytes`."""
    splits: list[Split] = []
    gathered: list[Piece] = []
    held = 0
    for piece in pieces:
        cost = max(piece.size, SMALL_FILE)
        if gathered and held + cost > split_bytes:
            splits.append(Split(len(splits), tuple(gathered)))
            gathered, held = [], 0
        gathered.append(piece)
        held += cost
    return [*splits, Split(len(splits), tuple(gathered))] if gathered else splits


def _pieces(paths: list[str], format: str, split_bytes: int, skipped: Counter[str]) -> Iterator[Piece]:
    seen: set[str] = set()
    for configured in paths:
        root, found = _expand(configured, format, skipped)
        if not found:
            others = ", ".join(f"{count:,} {ending}" for ending, count in skipped.most_common(5))
            raise FileNotFoundError(
                f"source.path [{configured}] matches no {format} file{f'; there are {others}' if others else ''}"
            )
        for path, size in found:
            if path in seen:
                continue
            seen.add(path)
            name = path[len(root) :].lstrip("/\\").replace(MEMBER_MARK, "/") or os.path.basename(path)
            problem = _problem(path)
            if problem is not None:
                yield Piece(_printable(path), 0, -1, _printable(name), size, problem=problem)
                continue
            for start, end in FORMATS[format].cut(path, size, split_bytes):
                yield Piece(path, start, end, name, size if end < 0 else min(size, split_bytes))


def _problem(path: str) -> str | None:
    """Why a file that was found cannot be read, as far as that is known now."""
    if path != _printable(path):
        return "the file's name is not valid UTF-8; rename the file"
    if files.is_local(path) and os.path.islink(path) and not os.path.exists(path):
        return "the file is a link that leads nowhere"
    return None


def _printable(path: str) -> str:
    """A path with the bytes that are no UTF-8 written out."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _expand(configured: str, format: str, skipped: Counter[str]) -> tuple[str, list[tuple[str, int]]]:
    """The folder that names are relative to, and the files of one configured path."""
    is_folder = os.path.isdir(configured) if files.is_local(configured) else configured.endswith("/")
    if not is_folder:
        root, found = files.find_files(configured)
        return root, _with_members(found, format, skipped)
    found = files.list_files(configured, hidden=False)
    wanted = [(path, size) for path, size in found if is_archive(path) or _is_read(path, format, skipped)]
    return configured, _with_members(wanted, format, skipped)


def _is_read(path: str, format: str, skipped: Counter[str]) -> bool:
    """Whether a file of a folder or an archive belongs to the format; the others are counted."""
    matches = FORMATS[format].matches(path)
    if not matches:
        skipped[os.path.splitext(_printable(path))[1].lower() or "without an ending"] += 1
    return matches


def _with_members(found: list[tuple[str, int]], format: str, skipped: Counter[str]) -> list[tuple[str, int]]:
    """Put the members of the format in place of the zip and tar files that hold them."""
    if FORMATS[format].is_folder:
        return found
    expanded = []
    for path, size in found:
        if not is_archive(path):
            expanded.append((path, size))
            continue
        try:
            inside = list_members(path)
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:
            expanded.append((path, size))  # reading it will say what is wrong
        else:
            members = [(name, bytes_) for name, bytes_ in inside if _is_read(name, format, skipped)]
            expanded += [(f"{path}{MEMBER_MARK}{name}", bytes_) for name, bytes_ in members]
    return expanded
