"""What a whole `run` costs beyond the models: the run against embedding the same chunks with loaded models.

python benchmarks/whole_run.py --corpus data/xquad/corpus.jsonl --documents 240
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from documents import read_corpus, write_jsonl

from pipeline.config.run_config import RunConfig
from pipeline.run.job import run_pipeline

FIELDS = {"dense": ".minilm-l6-v2", "sparse": ".splade-tiny"}


def run_config(
    folder: Path, corpus: Path, endpoints: dict[str, str], chunking: dict[str, Any] | None = None
) -> RunConfig:
    """A config over a BEIR corpus, title and text chunked by Elastic's default or as `chunking` says."""
    settings = {"chunking_settings": chunking} if chunking else {}
    fields = {
        name: {"type": "semantic_text", "inference_id": id_} | settings for name, id_ in endpoints.items()
    }
    texts = {name: {"type": "text", "copy_to": list(endpoints)} for name in ("title", "text")}
    return RunConfig.model_validate(
        {
            "source": {"format": "jsonl", "path": str(corpus)},
            "mappings": {"properties": {**texts, **fields}},
            "table": {"path": str(folder / "table")},
            "failures": {"path": str(folder / "failures")},
            "runner": {"device": "cpu"},
        }
    )


def time_run(corpus: Path, endpoints: dict[str, str], chunking: dict[str, Any] | None = None) -> float:
    """Seconds of one whole run into a fresh table."""
    with tempfile.TemporaryDirectory() as folder:
        config = run_config(Path(folder), corpus, endpoints, chunking)
        begun = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            run_pipeline(config, quiet=True)
        return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", default="data/xquad/corpus.jsonl")
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--fields", nargs="+", default=list(FIELDS), choices=list(FIELDS))
    parser.add_argument("--json", help="write the figures here")
    arguments = parser.parse_args()

    from models.endpoints.registry import Registry
    from models.open_model import open_model
    from transforms.chunk.documents import chunk_document
    from transforms.read.documents import to_document
    from transforms.records import Location, SemanticField

    endpoints = {name: FIELDS[name] for name in arguments.fields}
    documents = read_corpus(arguments.corpus, arguments.documents)
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_jsonl(Path(folder) / "corpus.jsonl", documents)
        models = {}
        for name, inference_id in endpoints.items():
            endpoint = Registry().get(inference_id)
            field = SemanticField(name, ("title", "text"), endpoint.chunking_settings)
            chunks = [
                chunk.text
                for fields in documents
                for chunk in chunk_document(to_document(dict(fields), "_id", Location("", 0)), field)
            ]
            models[name] = (open_model(endpoint).load("cpu"), chunks)
            models[name][0].embed(chunks[:64], "ingest")
        time_run(corpus, {name: endpoints[name] for name in endpoints})
        figures: dict[str, list[float]] = {"run": [], "models": []}
        for _ in range(arguments.repeat):
            begun = time.perf_counter()
            for model, chunks in models.values():
                model.embed(chunks, "ingest")
            figures["models"].append(time.perf_counter() - begun)
            figures["run"].append(time_run(corpus, endpoints))
    ratios = [run / alone for run, alone in zip(figures["run"], figures["models"], strict=True)]
    result = {
        "documents": len(documents),
        "chunks": {name: len(chunks) for name, (_, chunks) in models.items()},
        "seconds": {name: statistics.median(values) for name, values in figures.items()},
        "run_over_models": statistics.median(ratios),
        "ratios": ratios,
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
