"""Files of secrets beside the definitions that name them: both appear together or not at all, and go together.

Secrets are written first and the definition last, so no reader finds a definition without its secrets. A note of what
is being written, and the folder's lock, let the next command clear away what a killed one left.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from models.endpoints.secrets import FOLDER, secret_paths
from models.endpoints.services import Setting

_NOTE = ".pending-"


@contextmanager
def changing(folder: Path, inference_id: str, names: Sequence[str]) -> Iterator[None]:
    """Hold the folder's lock and a note of the secret files that the block writes or deletes.

    When the block ends, however it does, secrets that no definition of this id names are gone.

    Args:
        folder: the definitions' folder; made when it is missing.
        inference_id: the endpoint that the block defines or deletes.
        names: its secret files, relative to the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder, wait=True):
        _clear(folder)
        if not names:
            yield
            return
        secrets = folder / FOLDER
        secrets.mkdir(mode=0o700, exist_ok=True)
        write_aside(secrets / f"{_NOTE}{inference_id}", json.dumps(list(names)), 0o600)
        try:
            yield
        finally:
            _clear(folder)


def clear_leftovers(folder: Path) -> None:
    """Take away what a killed command left; where another command is at work, or nothing may be written, later."""
    with suppress(OSError):
        if any(True for _ in _leftovers(folder)):
            with _locked(folder, wait=False):
                _clear(folder)


def made_files(settings: Mapping[str, Any], known: Mapping[str, Setting]) -> list[str]:
    """The secret files that `secrets.split` made for `settings`, relative to the folder; not those a user named."""
    made = (reference.removeprefix("file:") for reference in secret_paths(settings, known).values())
    return [name for name in made if name.startswith(f"{FOLDER}/") and "/" not in name[len(FOLDER) + 1 :]]


def store(folder: Path, literals: Mapping[str, str]) -> None:
    """Write secrets to files of mode 0600 in a folder of mode 0700 that git ignores."""
    for name, value in literals.items():
        file = folder / name
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        ignore = file.parent / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="utf-8")
        write_aside(file, value, 0o600)


def write_aside(file: Path, text: str, mode: int) -> None:
    """Write a file that appears under its name when it is whole, and only with this mode."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(stream.fileno(), mode)
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


@contextmanager
def _locked(folder: Path, *, wait: bool) -> Iterator[None]:
    # The folder itself is locked: definitions may be under version control, where a lock file would show up.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _leftovers(folder: Path) -> Iterator[Path]:
    yield from folder.glob(".*.tmp")
    yield from (folder / FOLDER).glob(".*.tmp")
    yield from (folder / FOLDER).glob(f"{_NOTE}*")


def _clear(folder: Path) -> None:
    """With the lock held: nothing that looks unfinished is being worked on."""
    for path in list(_leftovers(folder)):
        if path.name.startswith(_NOTE) and not path.name.endswith(".tmp"):
            defined = (folder / f"{path.name.removeprefix(_NOTE)}.json").exists()
            for name in [] if defined else _noted(path):
                (path.parent / Path(name).name).unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def _noted(note: Path) -> list[str]:
    try:
        names = json.loads(note.read_text(encoding="utf-8"))
    except ValueError:
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
