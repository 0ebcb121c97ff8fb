"""Evaluations over time: one line each in `evaluations.jsonl`, beside the table."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

KEPT = 400
"""Evaluations that the file holds."""


def keep_evaluation(path: Path, result: dict[str, Any], **about: str) -> None:
    """Add an evaluation.

    Args:
        path: the file; it is replaced as a whole.
        result: what `Evaluation.to_json` gives.
        **about: what was measured, for example the file of the queries.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    kept = ("table_version", "queries", "modes", "intervals")
    entry = {"time": now, **about, **{name: result[name] for name in kept if name in result}}
    lines = [orjson.dumps(one) + b"\n" for one in [*read_evaluations(path), entry][-KEPT:]]
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_bytes(b"".join(lines))
    aside.replace(path)


def read_evaluations(path: Path) -> list[dict[str, Any]]:
    """The evaluations, the oldest first; a line that is no JSON is passed over."""
    if not path.exists():
        return []
    found = []
    for line in path.read_bytes().splitlines():
        try:
            found.append(orjson.loads(line))
        except orjson.JSONDecodeError:
            continue
    return found
