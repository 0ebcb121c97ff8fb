"""What a graph hands to the launcher as JSON lines: the list of finished parts, and the documents that failed."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import orjson

from transforms import files
from transforms.records import Failure


def to_line(record: Any) -> bytes:
    """One record, a dataclass, as a line of JSON."""
    return orjson.dumps(asdict(record), option=orjson.OPT_APPEND_NEWLINE)


def read_records(path: str) -> list[dict[str, Any]]:
    """Read a file of `WriteRecords`; empty where there is none."""
    if not files.exists(path):
        return []
    with files.open_read(path) as handle:
        return [orjson.loads(line) for line in handle.read().splitlines()]


def write_failures(path: str, failures: Iterable[Failure]) -> None:
    """Write a failure report: JSON lines with stage, document id, file, line, error and message."""
    with files.create(path) as handle:
        for failure in failures:
            handle.write(to_line(failure))
