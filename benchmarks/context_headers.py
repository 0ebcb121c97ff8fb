"""What it changes that a chunk tells of its document: a header before each, or late chunking, against neither.

    python benchmarks/context_headers.py --data COLLECTION [COLLECTION …] --work FOLDER [--words 60] [--documents N]
        [--ways headed late]

A collection is a folder in BEIR's layout. Title and text are fields of their own, only the text is chunked, and the
header is the title. Where a collection has no titles, a document's first words stand in for one. Dense embeddings know
both ways, sparse ones headers alone. A run that was cut off goes on where it stopped. What late chunking costs is
measured beside: tokens, and processor time of both on one core in turns.
"""

import argparse
import gzip
import json
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from models.chunking_settings import parse_chunking_settings
from models.endpoints.preconfigured import preconfigured
from models.late_chunking import late_chunking
from models.open_model import open_model
from pipeline.config.load import load_config
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.judgements import load_qrels, load_queries
from pipeline.evaluation.statistics import paired_test
from pipeline.run.job import run_pipeline
from pipeline.search.open_index import SearchIndex
from transforms.chunk.documents import chunk_documents
from transforms.chunk.groups import group_chunks
from transforms.records import Document, Location, SemanticField

ENDPOINTS = {"dense": ".minilm-l6-v2", "sparse": ".splade-tiny"}
WAYS: dict[str, dict[str, Any]] = {"headed": {"context": "{title}\n"}, "late": {"late_chunking": True}}
STAND_IN_WORDS = 12
ROUNDS, TIMED_DOCUMENTS = 5, 300


def main() -> None:
    """Measure each collection and print one JSON line for each kind of embedding and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("out/context-headers"))
    parser.add_argument("--words", type=int, default=60, help="words of a chunk")
    parser.add_argument("--documents", type=int, help="only so many documents, judged ones first")
    parser.add_argument("--ways", nargs="+", choices=[*WAYS], default=[*WAYS])
    arguments = parser.parse_args()
    for data in arguments.data:
        work = arguments.work / data.name
        measure(data, work, arguments.words, arguments.documents, arguments.ways)
        if "late" in arguments.ways:
            print(json.dumps({"collection": data.name, **cost(work, arguments.words)}), flush=True)


def compared(ways: list[str]) -> dict[str, list[str]]:
    """Kind of embedding -> the ways that it knows."""
    known = {mode: [way for way in ways if mode == "dense" or way != "late"] for mode in ENDPOINTS}
    return {mode: own for mode, own in known.items() if own}


def measure(data: Path, work: Path, words: int, most: int | None, ways: list[str]) -> None:
    """Run one collection with a field for each embedding and way, and compare them with the plain one."""
    work.mkdir(parents=True, exist_ok=True)
    qrels = load_qrels(data / "qrels.tsv")
    documents = read_documents(data, {id_ for judged in qrels.values() for id_ in judged}, most)
    corpus = work / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(one) + "\n" for one in documents))
    config = load_config(str(write_config(work, corpus, words, ways)))
    run_pipeline(config, quiet=True)
    index = SearchIndex(config.index.path)
    queries = load_queries(data / "queries.jsonl")
    for mode, known in compared(ways).items():
        plain, *others = (
            evaluate(index, queries, qrels, modes=[mode], field=f"{mode}{suffix}").modes[mode]
            for suffix in ("", *(f"_{way}" for way in known))
        )
        for way, other in zip(known, others, strict=True):
            for measure_name in ("ndcg@10", "recall@100"):
                _, p = paired_test(plain.values[measure_name], other.values[measure_name])
                figures = {"without": plain.mean(measure_name), "with": other.mean(measure_name), "p": p}
                shown = {name: round(value, 4) for name, value in figures.items()}
                about = {"collection": data.name, "documents": len(documents), "mode": mode, "way": way}
                print(json.dumps({**about, "measure": measure_name, **shown}), flush=True)


def cost(work: Path, words: int) -> dict[str, Any]:
    """Tokens and processor time of late chunking over those of chunks alone, on the first documents."""
    lines = (work / "corpus.jsonl").read_text().splitlines()[:TIMED_DOCUMENTS]
    documents = [
        Document(str(row), json.loads(line), "", Location("", row)) for row, line in enumerate(lines)
    ]
    model = open_model(preconfigured(ENDPOINTS["dense"]))
    field = SemanticField("text", ("text",), parse_chunking_settings(chunking(words)))
    chunks = chunk_documents(documents, field)
    places = [[chunk.place for chunk in own] for own in chunks]
    sources = [document.source for document in documents]
    embedder, late, tokens, seconds = model.load("cpu"), late_chunking(model), Counter[str](), []

    def alone() -> None:
        texts = [chunk.text for own in chunks for chunk in own]
        embedder.embed(texts, "ingest", lambda _, count: tokens.update(alone=count))

    def within() -> None:
        grouped = group_chunks(late, list(zip(sources, places, strict=True)))
        texts, spans = zip(*(group for own in grouped for group in own), strict=True)
        embedder.embed_spans(texts, spans, lambda _, count: tokens.update(within=count))

    for _ in range(ROUNDS):
        begun = time.process_time()
        alone()
        between = time.process_time()
        within()
        seconds.append((time.process_time() - between) / (between - begun))
    return {
        "documents": len(documents),
        "tokens_ratio": round(tokens["within"] / tokens["alone"], 3),
        "time_ratio": round(median(seconds), 3),
    }


def read_documents(data: Path, judged: set[str], most: int | None) -> list[dict[str, str]]:
    """The documents, those with judgements first where not all are taken."""
    path = data / "corpus.jsonl"
    content = path.read_bytes() if path.exists() else gzip.decompress(Path(f"{path}.gz").read_bytes())
    found = [json.loads(line) for line in content.splitlines()]
    if most is not None:
        found = sorted(found, key=lambda one: one["_id"] not in judged)[:most]
    for one in found:
        one["title"] = one.get("title") or " ".join(one["text"].split()[:STAND_IN_WORDS])
    return found


def chunking(words: int) -> dict[str, Any]:
    """Settings of chunks of whole sentences."""
    return {"strategy": "sentence", "max_chunk_size": words, "sentence_overlap": 0}


def write_config(work: Path, corpus: Path, words: int, ways: list[str]) -> Path:
    """A run config with each embedding alone and in each way that it knows."""
    fields = {
        "_".join((mode, *way)): {
            "type": "semantic_text",
            "inference_id": ENDPOINTS[mode],
            "chunking_settings": chunking(words),
            **(WAYS[way[0]] if way else {}),
        }
        for mode, known in compared(ways).items()
        for way in ((), *((one,) for one in known))
    }
    properties = {"title": {"type": "text"}, "text": {"type": "text", "copy_to": [*fields]}, **fields}
    config = {
        "source": {"format": "jsonl", "path": str(corpus)},
        "mappings": {"properties": properties},
        **{name: {"path": str(work / name)} for name in ("table", "index", "failures")},
    }
    path = work / "run.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


if __name__ == "__main__":
    main()
