"""What a header before each chunk changes: the same collection with and without, dense and sparse.

    python benchmarks/context_headers.py --data COLLECTION [COLLECTION …] --work FOLDER [--words 60] [--documents N]

A collection is a folder in BEIR's layout. Title and text are fields of their own, only the text is chunked, and the
header is the title. Where a collection has no titles, a document's first words stand in for one. A run that was cut off
goes on where it stopped.
"""

import argparse
import gzip
import json
from pathlib import Path

import yaml

from pipeline.config.load import load_config
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.judgements import load_qrels, load_queries
from pipeline.evaluation.statistics import paired_test
from pipeline.run.job import run_pipeline
from pipeline.search.open_index import SearchIndex

ENDPOINTS = {"dense": ".minilm-l6-v2", "sparse": ".splade-tiny"}
CONTEXT = "{title}\n"
STAND_IN_WORDS = 12


def main() -> None:
    """Measure each collection and print one JSON line for each kind of embedding and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("out/context-headers"))
    parser.add_argument("--words", type=int, default=60, help="words of a chunk")
    parser.add_argument("--documents", type=int, help="only so many documents, judged ones first")
    arguments = parser.parse_args()
    for data in arguments.data:
        measure(data, arguments.work / data.name, arguments.words, arguments.documents)


def measure(data: Path, work: Path, words: int, most: int | None) -> None:
    """Run one collection with four fields, and compare them in pairs."""
    work.mkdir(parents=True, exist_ok=True)
    qrels = load_qrels(data / "qrels.tsv")
    documents = read_documents(data, {id_ for judged in qrels.values() for id_ in judged}, most)
    corpus = work / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(one) + "\n" for one in documents))
    config = load_config(str(write_config(work, corpus, words)))
    run_pipeline(config, quiet=True)
    index = SearchIndex(config.index.path)
    queries = load_queries(data / "queries.jsonl")
    for mode in ENDPOINTS:
        plain, headed = (
            evaluate(index, queries, qrels, modes=[mode], field=f"{mode}{suffix}").modes[mode]
            for suffix in ("", "_headed")
        )
        for measure_name in ("ndcg@10", "recall@100"):
            _, p = paired_test(plain.values[measure_name], headed.values[measure_name])
            figures = {"without": plain.mean(measure_name), "with": headed.mean(measure_name), "p": p}
            shown = {name: round(value, 4) for name, value in figures.items()}
            about = {"collection": data.name, "documents": len(documents), "mode": mode}
            print(json.dumps({**about, "measure": measure_name, **shown}), flush=True)


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


def write_config(work: Path, corpus: Path, words: int) -> Path:
    """A run config with each embedding twice, with and without header."""
    chunking = {"strategy": "sentence", "max_chunk_size": words, "sentence_overlap": 0}
    fields = {
        f"{mode}{suffix}": {
            "type": "semantic_text",
            "inference_id": endpoint,
            "chunking_settings": chunking,
            **({"context": CONTEXT} if suffix else {}),
        }
        for mode, endpoint in ENDPOINTS.items()
        for suffix in ("", "_headed")
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
