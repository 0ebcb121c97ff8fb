"""Journals beside the table: JSON lines, the newest last, of runs and of evaluations."""

from pathlib import Path
from typing import Any

import orjson

from transforms import files

KEPT = 400
"""Entries that a journal holds: more than a year of nights."""


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The entries, the oldest first; a line that is no JSON is passed over."""
    if not path.exists():
        return []
    found = []
    for line in path.read_bytes().splitlines():
        try:
            found.append(orjson.loads(line))
        except orjson.JSONDecodeError:
            continue
    return found


def add_to_journal(path: Path, entry: dict[str, Any]) -> None:
    """Add an entry; the file is replaced as a whole, and the oldest entries go.

    Raises:
        OSError: it cannot be written.
    """
    lines = [orjson.dumps(one) + b"\n" for one in [*read_journal(path), entry][-KEPT:]]
    with files.create(str(path)) as handle:
        handle.write(b"".join(lines))
