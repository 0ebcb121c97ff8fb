"""Files with damage of every kind: each becomes a row or a failure, and the run goes on."""

import json
import random
from pathlib import Path

import pytest
from support.damage import mutated
from support.known_documents import WRITERS, known_document
from support.small_run import SmallRun


def fuzzed(tmp_path, count: int) -> SmallRun:
    root = tmp_path / "docs"
    root.mkdir()
    draw = random.Random(20)
    known = {ending: write(known_document(1)) for ending, (_, write) in WRITERS.items()}
    for number in range(count):
        ending = draw.choice(sorted(known))
        (root / f"{number:04}.{ending}").write_bytes(mutated(known[ending], draw))
    mapping = {
        "properties": {
            "text": {"type": "text", "copy_to": ["dense"]},
            "dense": {"type": "semantic_text", "inference_id": ".hashing-dense"},
        }
    }
    source = {"format": "files", "path": str(root), "extract": {"seconds": 30, "memory_bytes": 512 << 20}}
    run = SmallRun(tmp_path, source=source, mappings=mapping)
    run.config["failures"]["max_ratio"] = 1.0
    run.config["index"] = None
    return run


def check(run: SmallRun, count: int) -> None:
    assert run.run() == 0
    documents, extraction = run.summary["documents"], run.summary["extraction"]
    lines = next((run.folder / "failures").iterdir()).read_text().splitlines()
    failed = {Path(json.loads(line)["path"].partition("!/")[0]).name for line in lines}
    read = {name.partition("/")[0] for name in run.rows()}
    assert len(lines) == documents["failed"]
    skipped = sum(extraction["skipped"].values())  # such as a notebook whose damage made other JSON of it
    assert count - skipped <= len(read | failed) <= count
    assert skipped <= 0.005 * count
    assert len(read) > 0.3 * count


@pytest.mark.slow
def test_damaged_files(tmp_path):
    check(fuzzed(tmp_path, 200), 200)


@pytest.mark.long
def test_two_thousand_damaged_files(tmp_path):
    check(fuzzed(tmp_path, 2000), 2000)
