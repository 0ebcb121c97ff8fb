"""How time and memory grow: the launcher's plan at large sizes, bytes shuffled a document, workers.

    python benchmarks/scaling.py plan --rows 1000000
    python benchmarks/scaling.py workers --documents 20000 --workers 1 2
    python benchmarks/scaling.py documents --documents 10000 100000 1000000

Each prints JSON lines. Every size is measured in a process of its own, so that its peak memory is its own.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

FINGERPRINT = '{"_row":"0123456789abcdef","dense":"0123456789abcdef.0123456789abcdef"}'
WORDS = "the quick brown fox jumps over a lazy dog while seven ships sail far across one wide and quiet sea".split()


def peak_bytes() -> int:
    """Largest memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def text_column(values: Iterable[str]) -> pa.Array:
    """A column as the launcher holds it; made in pieces, so that making it is not the peak."""
    values = iter(values)
    pieces = iter(
        lambda: pa.array(itertools.islice(values, 100_000), pa.large_string()),
        pa.array([], pa.large_string()),
    )
    return pa.concat_arrays(list(pieces))


def measure_plan(rows: int) -> dict[str, Any]:
    """Make the plan of a nightly run: as many rows in the table as in the source, one in a hundred changed."""
    from pipeline.run.compare import Scan, make_plan
    from pipeline.table.delta import TableState

    before = peak_bytes()
    ids = text_column(f"document-{number:012d}" for number in range(rows))
    hashes = text_column(f"{number:032x}" for number in range(rows))
    changed = text_column(f"{number + rows if number % 100 == 0 else number:032x}" for number in range(rows))
    part = (np.arange(rows) // 2_000).astype(np.int32)
    fingerprints = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([FINGERPRINT]))
    names = [f"part-20260101T000000-abcdef-{number:012x}.parquet" for number in range(rows // 2_000 + 1)]
    state = TableState(names, ids, hashes, fingerprints, part, np.arange(rows) % 2_000)
    nothing = pa.nulls(rows, pa.large_string())
    splits, deleted = np.zeros(rows, np.int32), np.zeros(rows, bool)
    scan = Scan(ids, changed, np.arange(1, rows + 1), splits, deleted, nothing, nothing)
    held = peak_bytes()
    empty, no_fingerprints = pa.array([], pa.large_string()), pa.array([], fingerprints.type)
    no_rows = TableState([], empty, empty, no_fingerprints, np.zeros(0, np.int32), np.zeros(0, np.int64))
    started = time.perf_counter()
    plan = make_plan(scan, state, no_rows, FINGERPRINT, full_sync=True)
    seconds = time.perf_counter() - started
    assert len(plan.work) == (rows + 99) // 100
    columns = [ids, hashes, fingerprints, changed, nothing, nothing]
    arrays = sum(column.nbytes for column in columns) + part.nbytes + state.row.nbytes + scan.lines.nbytes
    return {
        "rows": rows,
        "plan_seconds": round(seconds, 2),
        "array_bytes_per_row": round((arrays + splits.nbytes + deleted.nbytes) / rows, 1),
        "peak_bytes_per_row": round((peak_bytes() - before) / rows, 1),
        "held_before_plan_bytes_per_row": round((held - before) / rows, 1),
    }


def write_corpus(path: Path, documents: int) -> None:
    """Synthetic documents of some 60 words; every one is different."""
    choose = np.random.default_rng(0)
    with path.open("w") as corpus:
        for start in range(0, documents, 10_000):
            count = min(10_000, documents - start)
            for number, picks in enumerate(choose.integers(0, len(WORDS), (count, 60)), start):
                text = " ".join(WORDS[pick] for pick in picks)
                corpus.write(json.dumps({"_id": f"d{number}", "text": f"{text}. {text[:80]}."}) + "\n")


def measure_run(documents: int, workers: int) -> dict[str, Any]:
    """Run a job with the hashing endpoint and see what its graphs shuffle."""
    from pipeline.config.run_config import RunConfig
    from pipeline.run.job import run_pipeline
    from transforms.read.splits import list_source

    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch) / "corpus.jsonl"
        write_corpus(corpus, documents)
        config = RunConfig.model_validate(
            {
                "source": {"format": "jsonl", "path": str(corpus)},
                "mappings": {
                    "properties": {
                        "text": {"type": "text", "copy_to": ["dense"]},
                        "dense": {"type": "semantic_text", "inference_id": ".hashing-dense"},
                    }
                },
                "table": {"path": f"{scratch}/table"},
                "failures": {"path": f"{scratch}/failures"},
                "runner": {"name": "local", "workers": workers},
            }
        )
        started = time.perf_counter()
        run_pipeline(config, quiet=True)
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        run_pipeline(config, quiet=True)
        return {
            "documents": documents,
            "workers": workers,
            "seconds": round(seconds, 1),
            "documents_per_second": round(documents / seconds),
            "unchanged_seconds": round(time.perf_counter() - started, 1),
            "peak_mb": peak_bytes() // 2**20,
            "shuffled_bytes_per_document": round(shuffled_bytes(Path(scratch), list_source) / documents, 2),
            "source_bytes_per_document": round(corpus.stat().st_size / documents),
        }


def shuffled_bytes(folder: Path, list_source: Any) -> int:
    """What goes through the GroupByKeys of a first run: the splits of two graphs, and a line a part file."""
    from apache_beam.coders import FastPrimitivesCoder

    splits = list_source([str(folder / "corpus.jsonl")], "jsonl", 32 * 1024 * 1024).splits
    coder = FastPrimitivesCoder()
    statistics = 400  # a PartFile as JSON with its counts and histograms
    parts = len(list((folder / "table").glob("part-*.parquet")))
    return 2 * sum(len(coder.encode(split)) for split in splits) + parts * statistics


def apart(*arguments: object) -> None:
    """Measure in a process of its own."""
    subprocess.run([sys.executable, __file__, *map(str, arguments), "--here"], check=True)


def main() -> None:
    """Measure each size in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["plan", "workers", "documents"])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--documents", type=int, nargs="+", default=[10_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--weak", action="store_true", help="as many documents for each worker")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.what == "plan":
        for rows in arguments.rows:
            print(json.dumps(measure_plan(rows)), flush=True) if arguments.here else apart(
                "plan", "--rows", rows
            )
        return
    for documents in arguments.documents:
        for workers in arguments.workers:
            size = documents * workers if arguments.weak else documents
            if arguments.here:
                print(json.dumps(measure_run(size, workers)), flush=True)
            else:
                apart("documents", "--documents", size, "--workers", workers)


if __name__ == "__main__":
    main()
