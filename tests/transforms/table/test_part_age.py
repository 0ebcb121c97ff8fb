"""A part file is closed before its first document is too old."""

from datetime import UTC, datetime

import pytest

from transforms.records import ChunkedDocument, Document, Location, PartFile
from transforms.table import write
from transforms.table.schema import TableLayout


def document(number: int) -> ChunkedDocument:
    return ChunkedDocument(Document(f"d{number}", {}, "0" * 32, Location("f", number)), {})


@pytest.mark.parametrize(
    ("burst", "wait", "parts"), [(4, 8.0, [16, 16, 4]), (1, 1.0, [30, 6]), (9, 40.0, [18, 9, 9])]
)
def test_no_document_waits_longer_than_part_seconds(monkeypatch, burst, wait, parts):
    """Documents come in bursts; the part closes with the last burst that is sure to be in time."""
    now = [0.0]
    monkeypatch.setattr(write.time, "monotonic", lambda: now[0])
    written = []

    def write_part(table, path, run_id):
        written.append((table.num_rows, now[0]))
        return PartFile("part", 1, table.num_rows, "", "")

    monkeypatch.setattr(write, "write_part", write_part)
    layout = TableLayout(plain={}, semantic=(), fingerprint="f", description="{}")
    collect = write._CollectParts(layout, "table", "run", datetime.now(UTC), 1_000, 1 << 30, 30.0)
    collect.start_bundle()
    for first in range(0, 36, burst):
        now[0] = first // burst * wait
        list(collect.process([document(number) for number in range(first, first + burst)]))
    list(collect.finish_bundle())
    assert [rows for rows, _ in written] == parts
