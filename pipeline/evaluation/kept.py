"""Evaluations over time: one line each in `evaluations.jsonl`, beside the table."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.journal import add_to_journal


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
    add_to_journal(path, entry)
