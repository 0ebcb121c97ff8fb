"""The index's manifest: size and CRC-32 of every file, kept in ``index.json``, so that damage never becomes an answer.

A CRC-32 finds every single flipped bit and is computed at the speed at which a file can be read. Of the files that
only ever grow, it covers the bytes that belong to the state; it goes on from where the last one ended.
"""

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from transforms.index.state import IndexState, UnitState

_AT_ONCE = 1 << 16  # stays in the cache, and costs no new pages


class DamagedFileError(ValueError):
    """A file of the index is not as it was written."""


def make_manifest(folder: Path, state: IndexState, old: IndexState | None) -> dict[str, tuple[int, int]]:
    """Sum up the files of a state: name relative to the index -> size and CRC-32.

    Args:
        folder: the index.
        state: the state that has just been written.
        old: the state before, whose sums hold for what both share; None where there was none.
    """
    known = old.manifest if old is not None else {}
    growing = _growing(state)
    manifest = {}
    for name in _names(folder, state):
        size = growing.get(name, (folder / name).stat().st_size)
        first, crc = known.get(name, (0, 0)) if name in growing else (0, 0)
        linked = name.replace(state.generation, old.generation, 1) if old is not None else ""
        if linked in known and name not in growing and _is_segment(name) and known[linked][0] == size:
            manifest[name] = known[linked]  # immutable, and linked from the generation before
            continue
        if first > size:
            first = crc = 0
        manifest[name] = (size, _crc(folder / name, first, size, crc))
    return manifest


def size_problems(folder: Path, state: IndexState) -> Iterator[str]:
    """Say which files are missing or too short; nothing is read."""
    for name, (size, _) in state.manifest.items():
        path = folder / name
        if not path.exists():
            yield f"the file {name} is missing"
        elif path.stat().st_size < size or (name not in _growing(state) and path.stat().st_size != size):
            yield f"the file {name} has {path.stat().st_size} bytes instead of {size}"


def problems(folder: Path, state: IndexState) -> Iterator[str]:
    """Say which files are missing or not as they were written; every byte is read."""
    wrong = list(size_problems(folder, state))
    yield from wrong
    if wrong:
        return
    for name in state.manifest:
        try:
            check_file(folder, state, name)
        except (DamagedFileError, OSError) as error:
            yield str(error)


def check_file(folder: Path, state: IndexState, name: str) -> None:
    """Check one file.

    Raises:
        DamagedFileError: it is not as it was written.
    """
    size, crc = _sums(state, name)
    if _crc(folder / name, 0, size, 0) != crc:
        raise DamagedFileError(f"the file {name} is damaged")


def check_bytes(state: IndexState, name: str, content: np.ndarray) -> None:
    """Check a file that is mapped into memory already, which an update may have unlinked since.

    Raises:
        DamagedFileError: it is not as it was written.
    """
    size, crc = _sums(state, name)
    if (
        content.nbytes != size
        or zlib.crc32(np.ascontiguousarray(content).reshape(-1).view(np.uint8).data) != crc
    ):
        raise DamagedFileError(f"the file {name} is damaged")


def unit_files(state: IndexState, unit: UnitState) -> list[str]:
    """The files of a unit that are opened with it: its chunks and its tantivy folder."""
    prefix = f"{state.generation}/{unit.name}"
    return [name for name in state.manifest if name.startswith((f"{prefix}/", f"{prefix}."))]


def _sums(state: IndexState, name: str) -> tuple[int, int]:
    if name not in state.manifest:
        raise DamagedFileError(f"the manifest does not name {name}")
    size, crc = state.manifest[name]
    return size, crc


def _names(folder: Path, state: IndexState) -> list[str]:
    names = [name for name in state.files() if not name.endswith("/meta.json")]
    for unit in state.units:
        inside = sorted(os.listdir(folder / state.generation / unit.name))
        names += [f"{state.generation}/{unit.name}/{name}" for name in inside if not name.endswith(".lock")]
    return names


def _growing(state: IndexState) -> dict[str, int]:
    """Files that updates append to, and the bytes of them that belong to the state."""
    sizes = {f"{state.epoch}/texts.bin": state.text_bytes}
    for unit in state.units:
        for name in unit.fields:
            field = state.fields[name]
            if field.task_type == "text_embedding":
                sizes[state.vectors_path(name)] = (
                    unit.rows * np.dtype(field.dtype).itemsize * field.stored_dimensions
                )
                sizes[state.norms_path(name)] = unit.rows * 4
    return sizes


def _is_segment(name: str) -> bool:
    """Whether a file of a tantivy folder belongs to a segment; those never change under their name."""
    return name.count("/") == 2 and not name.endswith(".json")


def _crc(path: Path, first: int, size: int, crc: int) -> int:
    with path.open("rb") as file:
        file.seek(first)
        while first < size:
            piece = file.read(min(_AT_ONCE, size - first))
            if not piece:
                return -1  # shorter than it should be
            crc = zlib.crc32(piece, crc)
            first += len(piece)
    return crc
