"""Measure the index on synthetic chunks: build speed a core, catching up, search latency, memory, quantization.

    python benchmarks/index.py --chunks 20000 --work FOLDER [--workers 1 2] [--quantization]

A document has four chunks of about 60 words, 100 sparse tokens and 384 dimensions; words and tokens follow
Zipf's law. Each measurement has a process of its own, so that memory is what it took and nothing else.
"""

import argparse
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from pipeline.search.dense import DenseField, rank_dense
from pipeline.search.open_index import SearchIndex
from pipeline.search.ranking import bm25_query, rank_query, sparse_query
from pipeline.table.delta import commit
from transforms.index.update import update_index
from transforms.records import PartFile
from transforms.table.parts import write_part
from transforms.table.schema import SemanticColumn, TableLayout

CHUNKS_A_DOCUMENT, TOKENS, DIMENSIONS, VOCABULARY, WORDS = 4, 100, 384, 30_000, 60
PART_DOCUMENTS = 2_000
FINGERPRINT = '{"_row":"r","dense":"e.c","sparse":"e.c"}'
QUERY_TOKENS = (30, 53)
"""Tokens of a sparse query: a usual number, and the mean of `.splade-tiny` on SciFact's claims."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chunks", type=int, default=20_000)
    parser.add_argument("--work", type=Path, default=Path("out/index-benchmark"))
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--quantization", action="store_true", help="compare 4, 6 and 8 bits with floats")
    arguments = parser.parse_args()
    table = arguments.work / f"table-{arguments.chunks}"
    if not (table / "_delta_log").exists():
        write_table(table, arguments.chunks)
    index = arguments.work / f"index-{arguments.chunks}"
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # of the processes below: a search is timed on one thread
    for workers in arguments.workers:
        aside(build, table, index, workers)
    aside(catch_up, table, index)
    aside(latency, index)
    if arguments.quantization:
        aside(quantization, table)


def aside(measure: Callable[..., dict[str, object]], *arguments: Any) -> None:
    """Run a measurement in a process of its own, and print what it found as one JSON line."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        print(json.dumps(pool.submit(measure, *arguments).result()), flush=True)


def peak_mb(who: int = resource.RUSAGE_SELF) -> int:
    """The most memory that this process (or the largest of its children) has held."""
    return round(resource.getrusage(who).ru_maxrss / 1024)


def layout() -> TableLayout:
    """The layout of the synthetic table."""
    sources = {"sparse": ["sparse", "text"], "dense": ["dense", "text"]}
    settings = {
        "sparse": {"task_type": "sparse_embedding"},
        "dense": {
            "task_type": "text_embedding",
            "dimensions": DIMENSIONS,
            "similarity": "cosine",
            "element_type": "float",
        },
    }
    fields = {
        name: {
            "inference_id": name,
            "sources": sources[name],
            "model_settings": settings[name],
            "endpoint": {},
            "chunking_settings": {},
            "embedding_fingerprint": "e",
        }
        for name in sources
    }
    mappings = {
        "properties": {
            "text": {"type": "text"},
            "sparse": {"type": "semantic_text"},
            "dense": {"type": "semantic_text"},
        }
    }
    columns = (SemanticColumn("sparse", "sparse", "sparse"), SemanticColumn("dense", "dense", "float"))
    return TableLayout(
        {"text": "string"}, columns, "f", json.dumps({"format": 1, "mappings": mappings, "fields": fields})
    )


def zipf(random: np.random.Generator, count: int, rows: int, width: int) -> np.ndarray:
    """Distinct-looking picks of a vocabulary by Zipf's law with exponent 0.8, as tokens of learned models have."""
    weights = 1 / np.arange(1, count + 1) ** 0.8
    return np.searchsorted(np.cumsum(weights / weights.sum()), random.random((rows, width))).clip(
        0, count - 1
    )


def sparse_rows(random: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets, tokens and weights of sparse embeddings; a token is once in a row."""
    picks = np.sort(zipf(random, VOCABULARY, rows, TOKENS), axis=1)
    first = np.ones_like(picks, bool)
    first[:, 1:] = picks[:, 1:] != picks[:, :-1]
    offsets = np.concatenate([[0], np.cumsum(first.sum(axis=1))]).astype(np.int32)
    tokens = picks[first]
    return offsets, tokens, random.gamma(2, 0.3, len(tokens)).clip(0.01, 3.5).astype(np.float32)


def part(random: np.random.Generator, first: int, documents: int) -> pa.Table:
    """Rows of one part file."""
    chunks = documents * CHUNKS_A_DOCUMENT
    words = np.array([f"word{number}" for number in range(50_000)])[zipf(random, 50_000, chunks, WORDS)]
    lines = [" ".join(line) for line in words]
    texts = ["\n".join(lines[at : at + CHUNKS_A_DOCUMENT]) for at in range(0, chunks, CHUNKS_A_DOCUMENT)]
    lengths = np.array([len(line) for line in lines]).reshape(documents, -1)
    ends = np.cumsum(lengths + 1, axis=1) - 1
    offsets, tokens, weights = sparse_rows(random, chunks)
    vocabulary = pa.array([f"token{number}" for number in range(VOCABULARY)])
    sparse = pa.MapArray.from_arrays(pa.array(offsets), vocabulary.take(pa.array(tokens)), pa.array(weights))
    vectors = random.standard_normal((chunks, DIMENSIONS), np.float32)
    dense = pa.ListArray.from_arrays(
        pa.array(np.arange(chunks + 1, dtype=np.int32) * DIMENSIONS), pa.array(vectors.reshape(-1))
    )
    schema = layout().schema()
    per_document = pa.array(np.arange(documents + 1, dtype=np.int32) * CHUNKS_A_DOCUMENT)
    semantic = []
    for name, embeddings in (("sparse", sparse), ("dense", dense)):
        type_ = schema.field(name).type
        fields = list(type_.field("chunks").type.value_type)
        values = [
            pa.array(["text"] * chunks),
            pa.array((ends - lengths).reshape(-1).astype(np.int32)),
            pa.array(ends.reshape(-1).astype(np.int32)),
        ]
        struct = pa.StructArray.from_arrays(
            [*values, pa.array(np.zeros(chunks, bool)), embeddings.cast(fields[4].type)], fields=fields
        )
        lists = pa.ListArray.from_arrays(per_document, struct).cast(type_.field("chunks").type)
        semantic.append(pa.StructArray.from_arrays([pa.array([name] * documents), lists], fields=list(type_)))
    ids = [f"d{number}" for number in range(first, first + documents)]
    columns = [
        ids,
        [orjson.dumps({"text": text}).decode() for text in texts],
        ids,
        [FINGERPRINT] * documents,
        ["r"] * documents,
    ]
    stamps = pa.array([datetime.now(UTC)] * documents, pa.timestamp("us", tz="UTC"))
    return pa.Table.from_arrays(
        [*(pa.array(column, pa.string()) for column in columns), stamps, pa.array(texts), *semantic],
        schema=schema,
    )


def write_table(table: Path, chunks: int) -> None:
    """Write the synthetic table, by as many processes as there are cores."""
    table.mkdir(parents=True, exist_ok=True)
    documents = chunks // CHUNKS_A_DOCUMENT
    firsts = range(0, documents, PART_DOCUMENTS)
    counts = [min(PART_DOCUMENTS, documents - first) for first in firsts]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(write_synthetic_part, [table] * len(counts), firsts, counts))
    commit(str(table), None, layout(), parts, [], {})


def write_synthetic_part(table: Path, first: int, documents: int) -> PartFile:
    """Make and write one part; the same for the same documents."""
    return write_part(part(np.random.default_rng(first), first, documents), str(table), f"{first:08d}")


def build(table: Path, index: Path, workers: int) -> dict[str, object]:
    """Build the index; speeds by wall clock and by processor time of this process and its children."""
    shutil.rmtree(index, ignore_errors=True)
    before, started = os.times(), time.perf_counter()
    report = update_index(str(table), str(index), workers=workers)
    seconds, after = time.perf_counter() - started, os.times()
    processor = sum(after[:4]) - sum(before[:4])
    return {
        "build": workers,
        "chunks": report.chunks,
        "chunks_per_second": round(report.chunks / seconds),
        "chunks_per_processor_second": round(report.chunks / processor),
        "seconds": round(seconds, 1),
        "bytes_per_chunk": round(report.bytes / report.chunks),
        "peak_mb": peak_mb(),
        "peak_mb_of_a_worker": peak_mb(resource.RUSAGE_CHILDREN),
    }


def catch_up(table: Path, index: Path) -> dict[str, object]:
    """Replace the documents of one part file in a hundred, and bring the index up to date."""
    delta = DeltaTable(str(table))
    name = sorted(pa.table(delta.get_add_actions(flatten=True))["path"].to_pylist())[0]
    old = pq.read_table(table / name)
    changed = old.slice(0, max(1, old.num_rows // 5)).set_column(
        2, "content_hash", pa.array([f"h{time.time_ns()}-{at}" for at in range(max(1, old.num_rows // 5))])
    )
    new = pa.concat_tables([changed, old.slice(changed.num_rows)])
    commit(str(table), delta, layout(), [write_part(new, str(table), str(time.time_ns()))], [name], {})
    report = update_index(str(table), str(index))
    return {
        "catch_up_documents": report.added,
        "deleted": report.deleted,
        "seconds": round(report.seconds, 2),
        "rebuilt": report.rebuilt,
        "peak_mb": peak_mb(),
    }


def latency(path: Path, queries: int = 100) -> dict[str, object]:
    """Median and 95th percentile of one search in processor time of one thread, without embedding the query."""
    index, random = SearchIndex(path), np.random.default_rng(1)
    unit = index.unit_of("sparse")
    dense = DenseField(index.fields["dense"], index.vectors("dense"), index.norms("dense"))
    offsets, tokens, weights = sparse_rows(random, queries)
    times: dict[str, list[float]] = {}
    for at in range(queries):
        text = " ".join(f"word{word}" for word in zipf(random, 50_000, 1, 8)[0])
        vector = random.standard_normal((1, DIMENSIONS), np.float32)
        searches = {
            "bm25": lambda text=text: rank_query(unit, bm25_query(unit, text, ["text"]), 10, None),
            "dense": lambda vector=vector: rank_dense(unit, dense, vector, 10, index.alive),
        }
        shuffled = random.permutation(np.arange(offsets[at], offsets[at + 1]))
        for count in QUERY_TOKENS:
            picks = shuffled[:count]
            asked = dict(zip(map("token{}".format, tokens[picks]), weights[picks].tolist(), strict=True))
            searches[f"sparse, {count} tokens"] = lambda asked=asked: rank_query(
                unit, sparse_query(unit, 0, index.fields["sparse"], asked), 10, None
            )
        for name, search in searches.items():
            started = time.thread_time()
            search()
            times.setdefault(name, []).append((time.thread_time() - started) * 1000)
    return {
        "processor_ms": {
            name: {"p50": round(float(np.median(found)), 2), "p95": round(float(np.quantile(found, 0.95)), 2)}
            for name, found in times.items()
        },
        "chunks": unit.state.rows,
        "segments": unit.searcher.num_segments,
        "peak_mb_with_mapped_files": peak_mb(),
    }


def quantization(table: Path, queries: int = 200) -> dict[str, object]:
    """Recall@10 of quantized dot products against exact floats, and postings a chunk, by number of bits."""
    from scipy.sparse import csr_matrix

    rows = DeltaTable(str(table)).to_pyarrow_table(columns=["sparse"])["sparse"].combine_chunks()
    embeddings = rows.field("chunks").flatten().field("embeddings")
    tokens = np.array([int(token[5:]) for token in embeddings.keys.to_pylist()])
    weights, offsets = embeddings.items.to_numpy(), embeddings.offsets.to_numpy()
    shape = (len(embeddings), VOCABULARY)
    asked_offsets, asked_tokens, asked_weights = sparse_rows(np.random.default_rng(1), queries)
    asked = csr_matrix((asked_weights, asked_tokens, asked_offsets), shape=(queries, VOCABULARY))
    exact = top(asked @ csr_matrix((weights, tokens, offsets), shape=shape).T)
    result = {}
    for bits in (4, 6, 8):
        step = weights.max() / (2**bits - 1)
        levels = np.rint(weights / step).astype(np.int64)
        found = top(asked @ csr_matrix((levels * step, tokens, offsets), shape=shape).T)
        shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)])
        postings = np.bitwise_count(levels).sum() / shape[0]
        result[f"{bits} bits"] = {
            "recall@10": round(float(shared), 4),
            "postings_per_chunk": round(float(postings), 1),
        }
    return {"quantization": result}


def top(scores, k: int = 10):
    """The k best columns of each row."""
    return np.argsort(-scores.toarray(), axis=1, kind="stable")[:, :k].tolist()


if __name__ == "__main__":
    sys.exit(main())
