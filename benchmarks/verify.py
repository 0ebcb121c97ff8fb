"""Measure `verify`: bytes of part files checked in a second of processor time, with and without an index.

    python benchmarks/verify.py --megabytes 500 --work FOLDER [--index]

The table is that of `index.py`, dense vectors of 384 dimensions and 100 sparse tokens a chunk, published as a run
publishes it. After four parts their rows come again under other ids. The first check fills the disk's cache and does
not count.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from index import PART_DOCUMENTS, layout, part

from pipeline.config.run_config import RunConfig
from pipeline.table.delta import commit
from pipeline.table.verify import verify
from transforms.index.update import update_index
from transforms.records import PartFile
from transforms.table.parts import write_part

DIFFERENT_PARTS = 4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--work", type=Path, default=Path("out/verify-benchmark"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--index", action="store_true", help="with the index, which is held against the rows")
    arguments = parser.parse_args()
    table = arguments.work / f"table-{arguments.megabytes}"
    if not (table / "_delta_log").exists():
        write_table(table, arguments.megabytes * 1_000_000)
    config = config_of(table, arguments.work / "index" if arguments.index else None)
    if arguments.index:
        update_index(str(table), str(arguments.work / "index"))
    sizes = sum(path.stat().st_size for path in table.glob("part-*"))
    for repeat in range(arguments.repeats + 1):
        begun, wall = time.process_time(), time.perf_counter()
        found = verify(config)
        seconds, passed = time.process_time() - begun, time.perf_counter() - wall
        assert found.ok, found.problems[:3]
        if repeat:
            print(json.dumps(figures(found, sizes, seconds, passed)), flush=True)


def figures(found: Any, sizes: int, seconds: float, passed: float) -> dict[str, object]:
    """What one check found and cost."""
    return {
        "megabytes": round(sizes / 1e6),
        "parts": found.parts,
        "chunks": found.chunks,
        "processor_seconds": round(seconds, 2),
        "wall_seconds": round(passed, 2),
        "megabytes_a_processor_second": round(sizes / 1e6 / seconds),
    }


def config_of(table: Path, index: Path | None) -> RunConfig:
    """A run config of the synthetic table; its source is not read."""
    semantic = {
        name: {"type": "semantic_text", "inference_id": f".hashing-{name}"} for name in ("dense", "sparse")
    }
    properties = {"text": {"type": "text", "copy_to": list(semantic)}, **semantic}
    values: dict[str, Any] = {
        "source": {"format": "jsonl", "path": "nothing"},
        "mappings": {"properties": properties},
        "table": {"path": str(table)},
        "failures": {"path": str(table.with_name("failures"))},
    }
    if index is not None:
        values["index"] = {"path": str(index)}
    return RunConfig.model_validate(values)


def write_table(table: Path, least: int) -> None:
    """Write and publish parts until they have so many bytes."""
    table.mkdir(parents=True)
    originals = [
        part(np.random.default_rng(number), number * PART_DOCUMENTS, PART_DOCUMENTS)
        for number in range(DIFFERENT_PARTS)
    ]
    parts: list[PartFile] = []
    while sum(one.size for one in parts) < least:
        first = len(parts) * PART_DOCUMENTS
        ids = pa.array([f"d{number}" for number in range(first, first + PART_DOCUMENTS)])
        rows = originals[len(parts) % DIFFERENT_PARTS].set_column(0, "_id", ids)
        parts.append(write_part(rows.cast(layout().schema()), str(table), "benchmark"))
    commit(str(table), None, layout(), parts, [], {})


if __name__ == "__main__":
    main()
