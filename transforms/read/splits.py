"""Split a source into pieces that workers read independently."""

import os

from transforms import files
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
            name = path[len(root) :].lstrip("/\\") or os.path.basename(path)
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
        return files.root_of(configured), files.list_files(configured)
    is_folder = os.path.isdir(configured) if files.is_local(configured) else configured.endswith("/")
    if not is_folder:
        return os.path.dirname(configured), files.list_files(configured)
    found = files.list_files(files.join(configured, "**"), hidden=False)
    return configured, [(path, size) for path, size in found if FORMATS[format].matches(path)]
