"""Measure retrieval on whole collections through the whole pipeline, against exact scores and published figures.

    python benchmarks/retrieval.py --data COLLECTION [COLLECTION …] --work FOLDER [--chunkings none default 180:1]
    python benchmarks/retrieval.py --data COLLECTION [COLLECTION …] --bm25

A collection is a folder in BEIR's layout: corpus.jsonl[.gz] (`_id`, `title`, `text`), queries.jsonl,
qrels.tsv. Title and text are joined by a blank. Each collection is run with chunking `none` and with the
default chunking, or with sentence chunks of WORDS:OVERLAP; a run that was cut off goes on where it stopped, and one
that is done embeds nothing. `--bm25` runs nothing: it ranks whole documents by BM25 with other parameters than
tantivy's, on the index's terms.
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

from pipeline.config.load import load_config
from pipeline.evaluation.evaluate import Evaluation, evaluate
from pipeline.evaluation.judgements import load_qrels, load_queries
from pipeline.run.job import run_pipeline
from pipeline.search.open_index import SearchIndex
from pipeline.search.query_embedding import embed_queries
from transforms.index.tantivy_schema import DEFAULT_ANALYZER, spaced, text_analyzer

BM25_PARAMETERS = ((1.2, 0.75), (0.9, 0.4), (1.5, 0.75), (2.0, 0.9))
"""k1 and b: tantivy's (and Elasticsearch's), Anserini's, and two that trust long documents less."""

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
    parser.add_argument(
        "--chunkings", nargs="+", default=[*CHUNKINGS], help="none, default or WORDS:OVERLAP of sentences"
    )
    parser.add_argument(
        "--bm25", action="store_true", help="only compare BM25's parameters, on whole documents"
    )
    arguments = parser.parse_args()
    for data in arguments.data:
        if arguments.bm25:
            print(json.dumps({"collection": data.name, "bm25_ndcg@10": bm25_parameters(data)}), flush=True)
            continue
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
            for id_, text in corpus_texts(data).items():
                out.write(json.dumps({"_id": id_, "text": text}, ensure_ascii=False) + "\n")
    fields = {"embedded_sparse": ".splade-tiny", "embedded_dense": ".minilm-l6-v2"}
    semantic = {
        name: {"type": "semantic_text", "inference_id": id_, "chunking_settings": chunking_settings(chunking)}
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


def chunking_settings(name: str) -> dict[str, object]:
    """The chunking settings that a name on the command line stands for."""
    if name in CHUNKINGS:
        return CHUNKINGS[name]
    words, overlap = map(int, name.split(":"))
    return {"strategy": "sentence", "max_chunk_size": words, "sentence_overlap": overlap}


def corpus_texts(data: Path) -> dict[str, str]:
    """A collection's documents: id -> title and text joined by a blank."""
    plain = data / "corpus.jsonl"
    content = (
        plain.read_bytes() if plain.exists() else gzip.decompress((data / "corpus.jsonl.gz").read_bytes())
    )
    documents = map(json.loads, content.decode("utf-8").splitlines())
    return {
        document["_id"]: f"{document.get('title') or ''} {document['text']}".strip() for document in documents
    }


def bm25_parameters(data: Path) -> dict[str, float]:
    """nDCG@10 of BM25 by each of `BM25_PARAMETERS`, with exact document lengths (tantivy rounds them)."""
    from scipy.sparse import csr_matrix

    texts, queries, qrels = (
        corpus_texts(data),
        load_queries(data / "queries.jsonl"),
        load_qrels(data / "qrels.tsv"),
    )
    judged = {query: text for query, text in queries.items() if query in qrels}
    analyzer = text_analyzer(DEFAULT_ANALYZER)
    numbers: dict[str, int] = {}

    def counts(some: list[str]) -> csr_matrix:
        """How often each text has each term."""
        terms = [
            [numbers.setdefault(t, len(numbers)) for t in analyzer.analyze(spaced(text))] for text in some
        ]
        indptr = np.cumsum([0, *map(len, terms)])
        columns = [term for row in terms for term in row]
        return csr_matrix((np.ones(len(columns)), columns, indptr), shape=(len(some), 1 << 20))

    documents, asked = counts([*texts.values()]), counts([*judged.values()])
    documents.sum_duplicates()
    lengths = np.asarray(documents.sum(axis=1)).ravel()
    frequencies = np.bincount(documents.indices, minlength=documents.shape[1])
    idf = np.log(1 + (len(texts) - frequencies + 0.5) / (frequencies + 0.5))
    rows = np.repeat(np.arange(len(texts)), np.diff(documents.indptr))
    ids, result = [*texts], {}
    for k1, b in BM25_PARAMETERS:
        norms = k1 * (1 - b + b * lengths / lengths.mean())
        weights = idf[documents.indices] * documents.data * (k1 + 1) / (documents.data + norms[rows])
        scores = (
            asked @ csr_matrix((weights, documents.indices, documents.indptr), shape=documents.shape).T
        ).toarray()
        tops = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        found = [ndcg(qrels[query], [ids[d] for d in top]) for query, top in zip(judged, tops, strict=True)]
        result[f"k1={k1} b={b}"] = round(float(np.mean(found)), 4)
    return result


def exact(table_path: str, index: SearchIndex, evaluation: Evaluation) -> dict[str, float]:
    """nDCG@10 of scores computed straight from the table's embeddings, and how the index's rankings compare."""
    table = DeltaTable(table_path).to_pyarrow_table(columns=["_id", "embedded_sparse", "embedded_dense"])
    ids = table["_id"].to_pylist()
    place = {id_: number for number, id_ in enumerate(index.ids)}
    order = np.array([place[id_] for id_ in ids])  # equal scores, as duplicates have, go by the index's order
    texts = list(evaluation.queries.values())
    dense = dense_scores(
        table, np.asarray(embed_queries(index.state, "embedded_dense", texts).values, np.float64)
    )
    sparse = sparse_scores(table, embed_queries(index.state, "embedded_sparse", texts))
    result = {}
    for name, scores in (("dense", dense), ("sparse", sparse)):
        tops = [np.lexsort((order, -row))[:10] for row in scores]
        result[f"{name}_ndcg@10"] = round(
            float(
                np.mean(
                    [
                        ndcg(evaluation.qrels[q], [ids[d] for d in top])
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


def ndcg(relevant: dict[str, int], ranked: list[str]) -> float:
    """nDCG@10 of one ranking."""
    gains = [relevant.get(id_, 0) / np.log2(rank + 2) for rank, id_ in enumerate(ranked[:10])]
    ideal = sorted(relevant.values(), reverse=True)[:10]
    return sum(gains) / max(sum(gain / np.log2(rank + 2) for rank, gain in enumerate(ideal)), 1e-12)


if __name__ == "__main__":
    sys.exit(main())
