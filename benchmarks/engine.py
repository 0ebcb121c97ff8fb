"""Measure the embedding engine beside sentence-transformers and beside the limit of this machine.

    python benchmarks/engine.py --corpus CORPUS.jsonl [--quick] [--threads N] [--json OUT.json]

Every system embeds the same texts with the same weights, in turns, several times; figures are medians, and ratios are
taken within a round, so that a machine that slows down slows all of them. Processor time is measured beside wall time:
with ``--threads 1`` its ratios hold on a busy machine too. The limit is the time that the model's
matrix products alone would take at the best float32 rate that matrix products reach here, in the same round and with
the same number of threads. Peak memory is that of a process of its own for each system.
"""

import argparse
import gzip
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

DENSE, SPARSE = "all-minilm-l6-v2", "splade-tiny"
BATCHES = (4, 8, 16)
PACKAGES = ("torch", "transformers", "sentence-transformers", "tokenizers", "onnxruntime", "numpy")


class Times(NamedTuple):
    """Wall seconds and processor seconds."""

    wall: float
    processor: float

    def __sub__(self, other: "Times") -> "Times":
        return Times(self.wall - other.wall, self.processor - other.processor)

    def __mul__(self, factor: float) -> "Times":  # type: ignore[override]
        return Times(self.wall * factor, self.processor * factor)


def now() -> Times:
    return Times(time.perf_counter(), time.process_time())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, default=Path("data/xquad/corpus.jsonl"))
    parser.add_argument("--texts", type=int, help="how many texts; 32 with --quick, 600 without")
    parser.add_argument("--rounds", type=int, help="3 with --quick, 11 without")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    texts = read_texts(arguments.corpus, arguments.texts or (32 if arguments.quick else 600))
    rounds = arguments.rounds or (3 if arguments.quick else 11)
    if arguments.memory_of:
        print(peak_memory(arguments.memory_of, texts, arguments.threads))
        return
    result = {
        "machine": machine(arguments.threads),
        "corpus": {"file": arguments.corpus.name, "texts": len(texts)},
        "dense": measure_dense(texts, rounds, arguments.threads),
        "sparse": measure_sparse(texts, rounds, arguments),
    }
    print_tables(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def read_texts(path: Path, count: int) -> list[str]:
    """Read the `text` of a corpus, spread evenly over it."""
    open_file: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    with open_file(path, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    return texts[:: max(1, len(texts) // count)][:count]


def machine(threads: int) -> dict[str, Any]:
    """Say what was measured on."""
    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    processor = models[0].partition(": ")[2] if models else platform.processor()
    return {
        "processor": processor,
        "threads": threads,
        "python": platform.python_version(),
        "versions": found,
    }


def load_ours(task_type: str, model_id: str, threads: int) -> Any:
    from models.endpoints.endpoint import parse_endpoint
    from models.open_model import open_model

    settings = {"model_id": model_id, "num_threads": 1, "num_allocations": threads}
    body = {"service": "elasticsearch", "service_settings": settings}
    return open_model(parse_endpoint("bench", body, task_type)).load("cpu")


def folder_of(model_id: str) -> str:
    from models.local.catalog import resolve
    from models.local.weights import find_folder

    return str(find_folder(resolve(model_id, {}).location or ""))


def product_rate(threads: int, seconds: float = 0.5) -> Times:
    """Measure how long a float32 FLOP takes at best in matrix products: one on all threads, or one a thread."""
    import torch

    def rate(size: int, workers: int) -> Times:
        operands = [[torch.randn(size, size) for _ in range(3)] for _ in range(workers)]

        def work(own: list[Any]) -> int:
            torch.set_num_threads(threads if workers == 1 else 1)
            done, end = 0, time.perf_counter() + seconds / 4
            while time.perf_counter() < end:
                torch.mm(own[0], own[1], out=own[2])
                done += 1
            return done

        with ThreadPoolExecutor(workers) as pool:
            start = now()
            flops = sum(pool.map(work, operands)) * 2 * size**3
            return Times(*(spent / flops for spent in now() - start))

    rates = [rate(size, workers) for size in (1024, 2048) for workers in sorted({1, threads})]
    return Times(*(min(each) for each in zip(*rates, strict=True)))


def matrix_flops(lengths: list[int], config: dict[str, Any]) -> float:
    """Count the FLOPs of an encoder's matrix products over texts of these lengths."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    linear = 2 * (4 * width * width + 2 * width * inner)
    return sum(
        config["num_hidden_layers"] * (length * linear + 4 * length * length * width) for length in lengths
    )


def alternate(systems: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[Times]]:
    """Time each system once a round; what comes first changes from round to round."""
    found: dict[str, list[Times]] = {name: [] for name in systems}
    names = list(systems)
    for index in range(rounds):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            start = now()
            value = systems[name]()
            found[name].append(value if isinstance(value, Times) else now() - start)
    return found


def ratio(times: dict[str, list[Times]], of: str, to: str, kind: int) -> float:
    """The median over the rounds of how many times faster `of` was than `to`."""
    return statistics.median(slow[kind] / fast[kind] for fast, slow in zip(times[of], times[to], strict=True))


def measure_dense(texts: list[str], rounds: int, threads: int) -> dict[str, Any]:
    import torch
    from sentence_transformers import SentenceTransformer

    folder = folder_of(DENSE)
    ours = load_ours("text_embedding", DENSE, threads)
    theirs = SentenceTransformer(folder, device="cpu")
    torch.set_num_threads(threads)

    def encode(batch: int) -> Any:
        torch.set_num_threads(threads)
        return theirs.encode(texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False)

    found, expected = ours.embed(texts, "ingest"), encode(32)
    flops = matrix_flops(found.tokens.tolist(), json.loads(Path(folder, "config.json").read_text()))
    tried = alternate({str(batch): lambda batch=batch: encode(batch) for batch in BATCHES}, 2)
    best = min(BATCHES, key=lambda batch: min(tried[str(batch)]).processor)
    systems: dict[str, Callable[[], Any]] = {
        "limit": lambda: product_rate(threads) * flops,
        "engine": lambda: ours.embed(texts, "ingest"),
        "sentence-transformers, batch 32": lambda: encode(32),
        f"sentence-transformers, batch {best} (best)": lambda: encode(best),
    }
    report = summarize(alternate(systems, rounds), int(found.tokens.sum()))
    report["mflop_per_token"] = flops / float(found.tokens.sum()) / 1e6
    report["least_cosine"] = float((found.values * expected).sum(1).min())
    return report


def measure_sparse(texts: list[str], rounds: int, arguments: argparse.Namespace) -> dict[str, Any]:
    import torch
    from sentence_transformers import SparseEncoder

    threads = arguments.threads
    ours = load_ours("sparse_embedding", SPARSE, threads)
    theirs = SparseEncoder(folder_of(SPARSE), device="cpu")

    def encode(batch: int) -> Any:
        torch.set_num_threads(threads)
        return theirs.encode(texts, batch_size=batch, show_progress_bar=False)

    found = ours.embed(texts, "ingest")
    tried = alternate({str(batch): lambda batch=batch: encode(batch) for batch in BATCHES}, 1)
    best = min(BATCHES, key=lambda batch: min(tried[str(batch)]).processor)
    systems = {
        "engine": lambda: ours.embed(texts, "ingest"),
        "SparseEncoder, batch 32": lambda: encode(32),
        f"SparseEncoder, batch {best} (best)": lambda: encode(best),
    }
    report = summarize(alternate(systems, max(3, rounds // 2)), int(found.tokens.sum()))
    report["peak_megabytes"] = {
        name: memory_in_a_process(name, arguments) for name in ("engine", "SparseEncoder")
    }
    return report


def memory_in_a_process(system: str, arguments: argparse.Namespace) -> float:
    """Run one system alone and return its peak memory above that of the loaded model, in MB."""
    command = [
        sys.executable,
        __file__,
        "--corpus",
        str(arguments.corpus),
        "--threads",
        str(arguments.threads),
    ]
    command += ["--memory-of", system, "--texts", "200"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(output.split()[-1])


def peak_memory(system: str, texts: list[str], threads: int) -> float:
    if system == "engine":
        ours = load_ours("sparse_embedding", SPARSE, threads)
        run: Callable[[list[str]], Any] = lambda some: ours.embed(some, "ingest")  # noqa: E731
    else:
        from sentence_transformers import SparseEncoder

        theirs = SparseEncoder(folder_of(SPARSE), device="cpu")
        run = lambda some: theirs.encode(some, batch_size=32, show_progress_bar=False)  # noqa: E731
    run(["warm"])
    # Not ru_maxrss: it outlives exec, so that a child of a large process never sees a peak of its own.
    Path("/proc/self/clear_refs").write_text("5")
    before = status_megabytes("VmRSS")
    run(texts)
    return status_megabytes("VmHWM") - before


def status_megabytes(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def summarize(times: dict[str, list[Times]], tokens: int) -> dict[str, Any]:
    """Medians of each system, and the engine's ratios to the others, by wall time and by processor time."""
    report: dict[str, Any] = {"tokens": tokens, "rounds": times}
    for kind, name in enumerate(Times._fields):
        report[name] = {
            "tokens_per_second": {
                system: tokens / statistics.median(each[kind] for each in rounds)
                for system, rounds in times.items()
            },
            "engine_is_times_faster_than": {system: ratio(times, "engine", system, kind) for system in times},
        }
        if "limit" in times:
            report[name]["of_limit"] = {system: ratio(times, system, "limit", kind) for system in times}
    return report


def print_tables(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for task in ("dense", "sparse"):
        report = result[task]
        for kind in Times._fields:
            title = f"{task}, {report['tokens']:,} tokens, by {kind} time"
            table = Table("system", "tokens/s", "of the limit", "engine is", title=title)
            for system, speed in report[kind]["tokens_per_second"].items():
                limit = report[kind].get("of_limit", {}).get(system)
                faster = report[kind]["engine_is_times_faster_than"][system]
                table.add_row(system, f"{speed:,.0f}", f"{limit:.2f}" if limit else "", f"{faster:.2f} x")
            console.print(table)
    console.print(f"least cosine to sentence-transformers: {result['dense']['least_cosine']:.7f}")
    console.print(f"sparse, peak memory above the loaded model, MB: {result['sparse']['peak_megabytes']}")


if __name__ == "__main__":
    main()
