"""The embedding engine on a GPU: is it right, how fast is it, what holds it up. Six minutes, one command.

    python benchmarks/gpu.py --out results/gpu                     # where the package is installed
    python benchmarks/gpu.py --wheels wheels --out results/gpu     # a bare machine with torch, transformers and pyarrow
    python benchmarks/gpu.py --device cpu --tiny                   # the same code on a CPU, to test this script

Run from the project's root. --out gets results.json, results.md and results.png, and each result is printed as one
JSON line as soon as it is there. A section that fails is reported, and the next one runs; one that takes too long is
stopped, and none begins after --seconds. Weights come from the packages of the extra `bundled-models`, or from
--weights DIR with the folders `minilm` and `splade`. The whole `run`, from file to table, needs Beam.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from gpu_inputs import (
    MODELS,
    ROOT,
    batches_of,
    matrix_of,
    model_of,
    on_gpu,
    options,
    seconds_of,
    texts_like_chunks,
    weights_of,
)
from gpu_report import Report

MINILM_LINEAR = 6 * (4 * 384 * 384 + 2 * 384 * 1536)  # weights that each token is multiplied with

report: Report


def machine(section: str) -> None:
    """What is here, and what its products alone could do."""
    import torch

    versions = {}
    for package in ("torch", "transformers", "tokenizers", "sentence-transformers", "pyarrow"):
        with contextlib.suppress(Exception):
            versions[package] = version(package)
    report.emit(
        section, "versions", python=sys.version.split()[0], cores=len(os.sched_getaffinity(0)), **versions
    )
    if on_gpu():
        card = torch.cuda.get_device_properties(options.device)
        report.emit(
            section,
            "gpu",
            card=card.name,
            gib=card.total_memory / 2**30,
            capability=f"{card.major}.{card.minor}",
        )
    dtype = torch.bfloat16 if on_gpu() else torch.float32
    rows = 65_536 if on_gpu() else 512
    seconds = 0.0
    for inputs, outputs in ((384, 1152), (384, 384), (384, 1536), (1536, 384)):
        left = torch.randn(rows, inputs, device=options.device, dtype=dtype)
        right = torch.randn(inputs, outputs, device=options.device, dtype=dtype)
        seconds += 6 * seconds_of(lambda left=left, right=right: left @ right)
    report.emit(
        section,
        "MiniLM's products alone",
        tokens_per_second=rows / seconds,
        tflops=2 * MINILM_LINEAR * rows / seconds / 1e12,
    )


def correctness(section: str) -> None:
    """Embeddings of the device against float32 on the CPU, whose own are tested against transformers."""
    import numpy as np

    texts = [
        *texts_like_chunks(6 if options.tiny else 300),
        "a",
        "x 5.",
        "Ein Satz — 漢字 😀",
        "word " * 2000,
    ]
    for kind in MODELS:
        expected = matrix_of(model_of(kind).load("cpu").embed(texts, "ingest"))
        for dtype in ("bfloat16", "float16", "float32") if on_gpu() else ("float32",):
            with report.guarded(section, f"{kind}, {dtype}"):
                backend = {} if on_gpu() else {"backend": "torch"}
                embedder = model_of(kind, dtype=dtype, **backend).load(options.device)
                found = matrix_of(embedder.embed(texts, "ingest"))
                lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
                cosine = float(((found * expected).sum(1) / lengths).min())
                report.emit(
                    section, f"{kind}, {dtype}", least_cosine=cosine, right=cosine > 0.999, texts=len(texts)
                )


def forward(section: str) -> None:
    """The models alone, on tokens that are there, by tokens a batch."""
    texts = texts_like_chunks(20 if options.tiny else 4000)
    for kind in MODELS:
        backend = {} if on_gpu() else {"backend": "torch"}
        embedder = model_of(kind, **backend).load(options.device)
        compute = embedder._model_for("ingest") if kind == "minilm" else embedder._compute
        for budget in (4096, 16_384, 65_536, 131_072, 262_144) if on_gpu() else (512, 1024):
            batches = batches_of(kind, budget, texts)
            tokens = sum(len(batch.ids) for batch in batches)
            seconds = seconds_of(
                lambda batches=batches, compute=compute: [compute(batch) for batch in batches]
            )
            report.emit(
                section,
                f"{kind}, {budget} tokens",
                budget=budget,
                kind=kind,
                tokens_per_second=tokens / seconds,
            )


def profile(section: str) -> None:
    """How long the device computes, and how long it waits for the host."""
    import torch
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    for kind in MODELS:
        backend = {} if on_gpu() else {"backend": "torch"}
        embedder = model_of(kind, **backend).load(options.device)
        compute = embedder._model_for("ingest") if kind == "minilm" else embedder._compute
        batches = batches_of(
            kind, 65_536 if on_gpu() else 512, texts_like_chunks(10 if options.tiny else 2000)
        )
        for batch in batches:
            compute(batch)
        kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu() else [])
        with record(activities=kinds) as found:
            begun = time.perf_counter()
            for batch in batches:
                compute(batch)
            if on_gpu():
                torch.cuda.synchronize()
            wall = time.perf_counter() - begun
        rows = [row for row in found.key_averages() if not on_gpu() or str(row.device_type).endswith("CUDA")]
        field = "self_device_time_total" if on_gpu() else "self_cpu_time_total"
        busy = sum(getattr(row, field) for row in rows) / 1e6
        longest = sorted(rows, key=lambda row: -getattr(row, field))[:10]
        report.emit(
            section,
            kind,
            idle_share=max(0.0, 1 - busy / wall),
            launches_a_batch=sum(row.count for row in rows) / len(batches),
            longest=[f"{getattr(row, field) / 1e3:.2f} ms x{row.count} {row.key[:80]}" for row in longest],
        )


def tokenizer(section: str) -> None:
    """Texts to token ids on all cores of this machine."""
    texts = texts_like_chunks(300 if options.tiny else 20_000)
    tokens = model_of("minilm").opened.tokens
    count = int(tokens.encode(texts).lengths.sum())
    seconds = seconds_of(lambda: tokens.encode(texts))
    report.emit(section, "all cores", tokens_per_second=count / seconds, by=type(tokens).__name__)


def embed(section: str) -> None:
    """The engine as the pipeline calls it, and on to a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for kind in MODELS:
        texts = texts_like_chunks(10 if options.tiny else 40_000, 4)
        embedder = model_of(kind).load(options.device)
        embedder.embed(texts[:8], "ingest")
        begun = time.perf_counter()
        found = embedder.embed(texts, "ingest")
        seconds = time.perf_counter() - begun
        tokens = int(found.tokens.sum())
        report.emit(section, f"{kind}, texts to arrays", tokens_per_second=tokens / seconds)
        if kind == "minilm":
            column = pa.FixedSizeListArray.from_arrays(
                pa.array(found.values.reshape(-1)), found.values.shape[1]
            )
            with tempfile.TemporaryDirectory() as folder:
                pq.write_table(
                    pa.table({"text": texts, "embedding": column}), f"{folder}/x.parquet", compression="zstd"
                )
            whole = time.perf_counter() - begun
            report.emit(section, f"{kind}, texts to Parquet", tokens_per_second=tokens / whole)


def sentence_transformers(section: str) -> None:
    """What most people would run instead."""
    import torch
    from sentence_transformers import SentenceTransformer

    texts = texts_like_chunks(6 if options.tiny else 6000, 4)
    tokens = int(model_of("minilm").opened.tokens.encode(texts).lengths.sum())
    dtype = torch.float16 if on_gpu() else torch.float32
    model = SentenceTransformer(
        str(weights_of("minilm")), device=options.device, model_kwargs={"dtype": dtype}
    )
    model.encode(texts[:64], show_progress_bar=False)
    for size in (32,) if options.tiny else (32, 256, 1024):
        begun = time.perf_counter()
        model.encode(texts, batch_size=size, normalize_embeddings=True, show_progress_bar=False)
        seconds = time.perf_counter() - begun
        report.emit(section, f"{str(dtype)[6:]}, batches of {size}", tokens_per_second=tokens / seconds)


def large(section: str) -> None:
    """Models of the shapes of jina-v5-text-small and jina-v3, with random weights: packed beside padded."""
    import numpy as np
    import torch
    import transformers

    from models.local.architectures.generic import GenericEncoder
    from models.local.architectures.packed import pooled
    from models.local.engine.batching import TokenBatch

    torch.manual_seed(0)
    small = {} if on_gpu() else {"num_hidden_layers": 2, "vocab_size": 1000}
    qwen = {"vocab_size": 151_936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28}
    heads = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "pad_token_id": 0}
    shapes = {
        "jina-v5-text-small": (transformers.Qwen3Config(**{**qwen, **heads, **small}), "last"),
        "jina-v3": (transformers.JinaEmbeddingsV3Config(**{"pad_token_id": 0, **small}), "mean"),
    }
    dtype = "bfloat16" if on_gpu() else "float32"
    chance = np.random.default_rng(0)
    for name, (config, pooling) in shapes.items():
        with report.guarded(section, name), tempfile.TemporaryDirectory() as folder:
            transformers.AutoModel.from_config(config, dtype=getattr(torch, dtype)).save_pretrained(folder)
            encoder = GenericEncoder(Path(folder), options.device, dtype)
            compute = pooled(encoder, pooling, options.device)
            report.emit(section, f"{name}, can be packed", right=encoder.is_packed)
            lengths = np.sort(chance.integers(27, 200, 300 if on_gpu() else 6))[::-1].astype(np.int64)
            batch = TokenBatch(chance.integers(1, config.vocab_size, lengths.sum()).astype(np.int32), lengths)
            found = {}
            for way in (True, False):
                encoder.is_packed = way
                found[way] = compute(batch)
                seconds = seconds_of(lambda compute=compute, batch=batch: compute(batch))
                label = f"{name}, {'packed' if way else 'padded'}"
                report.emit(section, label, tokens_per_second=len(batch.ids) / seconds)
            norms = np.linalg.norm(found[True], axis=1) * np.linalg.norm(found[False], axis=1)
            cosine = float(((found[True] * found[False]).sum(1) / norms).min())
            report.emit(section, f"{name}, packed beside padded", least_cosine=cosine, right=cosine > 0.99)


def processes(section: str) -> None:
    """Several processes on one device, as the workers of a run are."""
    begin = time.time() + (30 if on_gpu() else 10)
    for count in (1, 2) if options.tiny else (1, 4, 8):
        command = [
            sys.executable,
            __file__,
            "--child",
            str(begin),
            "--device",
            options.device,
            "--seconds",
            "60",
        ]
        command += ["--weights", options.weights] if options.weights else []
        command += ["--tiny"] if options.tiny else []
        share = str(max(1, len(os.sched_getaffinity(0)) // count))
        environment = {**os.environ, "SEMANTIC_INGEST_CORES": share, "RAYON_NUM_THREADS": share}
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
            for _ in range(count)
        ]
        try:
            rates = [float(process.communicate()[0].split()[-1]) for process in running]
        finally:
            for process in running:
                process.kill()
        report.emit(
            section, f"{count} processes, texts to arrays", tokens_per_second=sum(rates), processes=count
        )
        begin = time.time() + (30 if on_gpu() else 10)


def child(begin: float) -> None:
    """Embed for three seconds from a moment on, and print the rate."""
    texts = texts_like_chunks(20 if options.tiny else 4000, os.getpid())
    embedder = model_of("minilm").load(options.device)
    embedder.embed(texts[:20], "ingest")
    time.sleep(max(0.0, begin - time.time()))
    begun, tokens = time.perf_counter(), 0
    while time.perf_counter() - begun < (0.5 if options.tiny else 3):
        tokens += int(embedder.embed(texts, "ingest").tokens.sum())
    print(tokens / (time.perf_counter() - begun))


def whole_run(section: str) -> None:
    """The whole `run`, from a file of documents to a table, in processes of its own."""
    workers = [1] if options.tiny else [1, 4, 8]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = texts_like_chunks(60 if options.tiny else 200_000)
        lines = (json.dumps({"_id": str(number), "text": text}) for number, text in enumerate(texts))
        (folder / "in.jsonl").write_text("\n".join(lines))
        for count in workers:
            config = {
                "source": {
                    "format": "jsonl",
                    "path": str(folder / "in.jsonl"),
                    "id": "_id",
                    "split_bytes": 1 << 22,
                },
                "mappings": {
                    "properties": {
                        "text": {"type": "text", "copy_to": ["dense"]},
                        "dense": {"type": "semantic_text", "inference_id": ".minilm-l6-v2"},
                    }
                },
                "models": {MODELS["minilm"][0]: {"location": str(weights_of("minilm"))}},
                "table": {"path": str(folder / f"table-{count}")},
                "failures": {"path": str(folder / f"failures-{count}")},
                "runner": {"name": "local", "device": options.device, "workers": count},
            }
            path = folder / f"run-{count}.json"  # JSON is YAML
            path.write_text(json.dumps(config))
            done = subprocess.run(
                [sys.executable, "-m", "pipeline", "run", str(path), "--quiet", "--format", "json"],
                capture_output=True,
                text=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            if done.returncode:
                report.emit(section, f"{count} workers", error=done.stderr[-400:])
                continue
            summary = json.loads(done.stdout)
            rate = summary["tokens"] / summary["seconds"]
            report.emit(
                section, f"file to table, {count} workers", tokens_per_second=rate, seconds=summary["seconds"]
            )


SECTIONS: dict[str, tuple[float, Callable[[str], None]]] = {
    "machine": (40, machine),
    "correctness": (70, correctness),
    "forward": (60, forward),
    "profile": (40, profile),
    "tokenizer": (20, tokenizer),
    "embed": (50, embed),
    "sentence-transformers": (50, sentence_transformers),
    "large": (90, large),
    "processes": (140, processes),
    "whole-run": (150, whole_run),
}


def install(wheels: str) -> None:
    """Install the wheels that were brought along, beside what the machine has."""
    target = tempfile.mkdtemp(prefix="wheels-")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--target",
        target,
    ]
    subprocess.run([*command, *map(str, sorted(Path(wheels).glob("*.whl")))], check=True)
    sys.path.append(target)


def main() -> None:
    global report
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--weights", default="", help="folder that holds `minilm` and `splade`")
    parser.add_argument("--wheels", default="", help="folder of wheels to install first, without a network")
    parser.add_argument("--out", type=Path, help="folder for the results")
    parser.add_argument("--seconds", type=float, default=360)
    parser.add_argument("--only", default="", help="sections, with commas: " + ", ".join(SECTIONS))
    parser.add_argument("--tiny", action="store_true", help="so little work that the figures mean nothing")
    parser.add_argument("--child", type=float, default=0, help=argparse.SUPPRESS)
    parser.parse_args(namespace=options)
    if options.wheels:
        install(options.wheels)
    if options.child:
        child(options.child)
        return
    report = Report(options.out, options.seconds)
    wanted = options.only.split(",") if options.only else list(SECTIONS)
    if not find_spec("apache_beam"):
        wanted = [name for name in wanted if name != "whole-run"]
    patience = 1 if on_gpu() else 4
    report.run({name: (SECTIONS[name][0] * patience, SECTIONS[name][1]) for name in wanted})
    report.write()
    wrong = report.wrong()
    report.emit("end", "failed or wrong", rows=wrong)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
