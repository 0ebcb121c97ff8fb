"""Split a source into pieces that workers read independently."""

import os

from transforms import files
from transforms.read.archives import MEMBER_MARK, is_archive, list_members
from transforms.read.formats import FORMATS
from transforms.records import Split

GATHERED_FILES = 2_000
"""Most files of one split."""


def list_splits(paths: list[str], format: str, split_bytes: int) -> list[Split]:
    """Find the source files and cut them into splits, in source order (paths as given, files by name).

    Raises:
        FileNotFoundError: a path matches no file.
    """
    splits: list[Split] = []
    gathered: list[tuple[str, str]] = []
    held = 0
    seen: set[str] = set()
    for configured in paths:
        root, found = _expand(configured, format)
        if not found:
            raise FileNotFoundError(f"source.path [{configured}] matches no {format} file")
        for path, size in found:
            if path in seen:
                continue
            seen.add(path)
            name = path[len(root) :].lstrip("/\\").replace(MEMBER_MARK, "/") or os.path.basename(path)
            if FORMATS[format].is_folder:
                gathered.append((path, name))
                held += size
                if held >= split_bytes or len(gathered) >= GATHERED_FILES:
                    splits.append(_gather(len(splits), gathered, held))
                    gathered, held = [], 0
                continue
            for start, end in FORMATS[format].cut(path, size, split_bytes):
                splits.append(Split(len(splits), path, start, end, name))
    if gathered:
        splits.append(_gather(len(splits), gathered, held))
    return splits


def _gather(index: int, gathered: list[tuple[str, str]], size: int) -> Split:
    path, name = gathered[0]
    return Split(index, path, 0, size, name, gathered=tuple(gathered))


def _expand(configured: str, format: str) -> tuple[str, list[tuple[str, int]]]:
    """The folder that names are relative to, and the files of one configured path."""
    if files.is_glob(configured):
        return files.root_of(configured), _with_members(files.list_files(configured), format)
    is_folder = os.path.isdir(configured) if files.is_local(configured) else configured.endswith("/")
    if not is_folder:
        return os.path.dirname(configured), _with_members(files.list_files(configured), format)
    found = files.list_files(files.join(configured, "**"), hidden=False)
    matches = FORMATS[format].matches
    wanted = [(path, size) for path, size in found if matches(path) or is_archive(path)]
    return configured, _with_members(wanted, format)


def _with_members(found: list[tuple[str, int]], format: str) -> list[tuple[str, int]]:
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
            matches = FORMATS[format].matches
            expanded += [(f"{path}{MEMBER_MARK}{name}", bytes_) for name, bytes_ in inside if matches(name)]
    return expanded
