"""Measure retrieval on whole collections through the whole pipeline, against exact scores and published figures.

    python benchmarks/retrieval.py --data COLLECTION [COLLECTION …] --work FOLDER

A collection is a folder in BEIR's layout: corpus.jsonl[.gz] (`_id`, `title`, `text`), queries.jsonl,
qrels.tsv. Title and text are joined by a blank. Each collection is run with chunking `none` and with the
default chunking; a run that was cut off goes on where it stopped, and one that is done embeds nothing.
"""

import argparse
import gzip
import json
import sys
import time
from pathlib import Path

import numpy as np
import yaml
from deltalake import DeltaTable

from pipeline.config import load_config
from pipeline.evaluation import Evaluation, evaluate
from pipeline.judgements import load_qrels, load_queries
from pipeline.query_embedding import embed_queries
from pipeline.run import run_pipeline
from pipeline.search_index import SearchIndex

CHUNKINGS = {
    "none": {"strategy": "none"},
    "default": {"strategy": "sentence", "max_chunk_size": 250, "sentence_overlap": 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("out/retrieval"))
    parser.add_argument("--chunkings", nargs="+", choices=[*CHUNKINGS], default=[*CHUNKINGS])
    arguments = parser.parse_args()
    for data in arguments.data:
        for chunking in arguments.chunkings:
            measure(data, chunking, arguments.work / data.name)


def measure(data: Path, chunking: str, work: Path) -> None:
    """Run one collection with one chunking, and print its figures as one JSON line."""
    config_path = write_config(data, chunking, work)
    config = load_config(str(config_path))
    started = time.perf_counter()
    run_pipeline(config, quiet=True)
    seconds = time.perf_counter() - started
    index = SearchIndex(config.index.path)
    queries, qrels = load_queries(data / "queries.jsonl"), load_qrels(data / "qrels.tsv")
    evaluation = evaluate(index, queries, qrels)
    figures = {
        mode: {name: round(value, 4) for name, value in values.items()}
        for mode, values in evaluation.to_json()["modes"].items()
    }
    result = {
        "collection": data.name,
        "chunking": chunking,
        "documents": len(index),
        "chunks": index.unit_of("embedded_dense").state.rows,
        "run_seconds": round(seconds, 1),
        "modes": figures,
        "exact": exact(config.table.path, index, evaluation),
    }
    print(json.dumps(result), flush=True)


def write_config(data: Path, chunking: str, work: Path) -> Path:
    """Write the joined corpus and the run config of one run."""
    work.mkdir(parents=True, exist_ok=True)
    corpus = work / "corpus.jsonl"
    if not corpus.exists():
        with corpus.open("w", encoding="utf-8") as out:
            for line in corpus_lines(data):
                document = json.loads(line)
                text = f"{document.get('title') or ''} {document['text']}".strip()
                out.write(json.dumps({"_id": document["_id"], "text": text}, ensure_ascii=False) + "\n")
    fields = {"embedded_sparse": ".splade-tiny", "embedded_dense": ".minilm-l6-v2"}
    semantic = {
        name: {"type": "semantic_text", "inference_id": id_, "chunking_settings": CHUNKINGS[chunking]}
        for name, id_ in fields.items()
    }
    config = {
        "source": {"format": "jsonl", "path": str(corpus)},
        "mappings": {"properties": {"text": {"type": "text", "copy_to": [*fields]}, **semantic}},
        "table": {"path": str(work / chunking / "table")},
        "index": {"path": str(work / chunking / "index")},
        "failures": {"path": str(work / chunking / "failures"), "max_ratio": 0},
    }
    path = work / f"{chunking}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def corpus_lines(data: Path) -> list[str]:
    """The lines of a collection's corpus."""
    plain = data / "corpus.jsonl"
    if plain.exists():
        return plain.read_text(encoding="utf-8").splitlines()
    with gzip.open(data / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        return file.read().splitlines()


def exact(table_path: str, index: SearchIndex, evaluation: Evaluation) -> dict[str, float]:
    """nDCG@10 of scores computed straight from the table's embeddings, and how the index's rankings compare."""
    table = DeltaTable(table_path).to_pyarrow_table(columns=["_id", "embedded_sparse", "embedded_dense"])
    ids = table["_id"].to_pylist()
    texts = list(evaluation.queries.values())
    dense = dense_scores(
        table, np.asarray(embed_queries(index.state, "embedded_dense", texts).values, np.float64)
    )
    sparse = sparse_scores(table, embed_queries(index.state, "embedded_sparse", texts))
    result = {}
    for name, scores in (("dense", dense), ("sparse", sparse)):
        tops = [np.lexsort((np.arange(len(ids)), -row))[:10] for row in scores]
        result[f"{name}_ndcg@10"] = round(
            float(
                np.mean(
                    [
                        ndcg(evaluation, q, [ids[d] for d in top])
                        for q, top in zip(evaluation.queries, tops, strict=True)
                    ]
                )
            ),
            4,
        )
        run = evaluation.modes[name].run
        shared = [
            len({ids[d] for d in top} & set(list(run[q])[:10])) / 10
            for q, top in zip(evaluation.queries, tops, strict=True)
        ]
        same = [
            [ids[d] for d in top] == list(run[q])[:10]
            for q, top in zip(evaluation.queries, tops, strict=True)
        ]
        result[f"{name}_recall@10_of_exact"] = round(float(np.mean(shared)), 4)
        result[f"{name}_same_top10"] = round(float(np.mean(same)), 4)
    return result


def dense_scores(table, queries):
    """Best cosine of each document's chunks: [queries, documents]."""
    rows = [
        [np.asarray(chunk["embeddings"], np.float64) for chunk in (value or {"chunks": []})["chunks"]]
        for value in table["embedded_dense"].to_pylist()
    ]
    lengths = np.array([len(row) for row in rows])
    vectors = np.array([vector for row in rows for vector in row])
    scores = queries @ (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T
    return np.maximum.reduceat(scores, np.cumsum(lengths) - lengths, axis=1)


def sparse_scores(table, queries):
    """Best dot product of each document's chunks, in floats: [queries, documents]."""
    from scipy.sparse import csr_matrix

    vocabulary = {token: at for at, token in enumerate(queries.vocabulary)}
    chunks = [
        [dict(chunk["embeddings"]) for chunk in (value or {"chunks": []})["chunks"]]
        for value in table["embedded_sparse"].to_pylist()
    ]
    lengths = np.array([len(row) for row in chunks])
    flat = [chunk for row in chunks for chunk in row]
    indptr = np.cumsum([0, *map(len, flat)])
    columns = [vocabulary[token] for chunk in flat for token in chunk]
    values = [weight for chunk in flat for weight in chunk.values()]
    documents = csr_matrix((values, columns, indptr), shape=(len(flat), len(vocabulary)))
    asked = csr_matrix(
        (queries.weights.astype(np.float64), queries.token_ids, queries.indptr),
        shape=(len(queries), len(vocabulary)),
    )
    return np.maximum.reduceat((asked @ documents.T).toarray(), np.cumsum(lengths) - lengths, axis=1)


def ndcg(evaluation: Evaluation, query: str, ranked: list[str]) -> float:
    """nDCG@10 of one ranking."""
    relevant = evaluation.qrels[query]
    gains = [relevant.get(id_, 0) / np.log2(rank + 2) for rank, id_ in enumerate(ranked[:10])]
    ideal = sorted(relevant.values(), reverse=True)[:10]
    return sum(gains) / max(sum(gain / np.log2(rank + 2) for rank, gain in enumerate(ideal)), 1e-12)


if __name__ == "__main__":
    sys.exit(main())
