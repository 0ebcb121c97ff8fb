"""What a hit shows: several chunks, their neighbours, and its place after a reranking."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import make_cross_encoder
from support.index_table import IndexTable

from models.reranker import Relevance, Reranker
from pipeline.__main__ import main
from pipeline.api import evaluate, open_index
from pipeline.errors import PipelineError
from pipeline.search.hits.chunks import chunk_scorer
from pipeline.search.open_index import SearchIndex
from pipeline.search.retrievers import find_retrievers
from pipeline.search.search import search
from transforms.index.update import update_index

SENTENCES = [
    "The cat sat on the mat.",
    "A dog ran far away from home.",
    "The river was cold at night.",
    "A cat and a dog met by the river.",
    "Stones lay in the cold water.",
]
DOCUMENTS = [
    {"_id": f"d{at}", "text": "\n".join(SENTENCES[at:] + SENTENCES[:at]), "title": f"No. {at}"}
    for at in range(5)
] + [{"_id": "alone", "text": "The tree is red.", "title": "One"}]


class ByLength(Reranker):
    """Ranks the longest text first."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []

    def rerank(self, query: str, texts: Sequence[str]) -> Relevance:
        self.asked.append((query, list(texts)))
        return Relevance(np.array([len(text) for text in texts], np.float32), 3 * len(texts))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> SearchIndex:
    table = IndexTable(tmp_path_factory.mktemp("hits") / "table")
    table.put(*DOCUMENTS)
    path = str(tmp_path_factory.mktemp("hits") / "index")
    update_index(table.path, path)
    return SearchIndex(path)


@pytest.mark.parametrize("mode", ["bm25", "sparse", "dense", "hybrid"])
def test_the_best_chunks_of_a_document_come_best_first(index: SearchIndex, mode: str) -> None:
    for hit in search(index, "a cat by the river", mode=mode, k=6, chunks=3):
        assert 1 <= len(hit.chunks) <= 3
        assert hit.chunks[0].chunk == hit.chunk
        scores = [one.score for one in hit.chunks]
        assert scores == sorted(scores, reverse=True)
        assert len({one.chunk.start_offset for one in hit.chunks}) == len(hit.chunks)
        if mode != "hybrid":
            assert scores[0] == pytest.approx(hit.score)
        assert not any(one.before or one.after for one in hit.chunks)


@pytest.mark.parametrize("mode", ["bm25", "sparse", "dense"])
def test_each_chunk_has_the_score_that_it_has_alone(index: SearchIndex, mode: str) -> None:
    (retriever,) = find_retrievers(index, mode, None)
    unit, scorer = retriever.unit, chunk_scorer(index, retriever, "a cat by the river")
    for document in range(6):
        rows = unit.rows_of(document)
        found = dict(scorer(document))
        assert all(rows.start <= row < rows.stop for row in found)
        best = max(found.items(), key=lambda one: one[1], default=None)
        hits = {hit.id: hit for hit in search(index, "a cat by the river", mode=mode, k=6)}
        hit = hits.get(index.document_id(document))
        assert (best is None) == (hit is None)
        if hit is not None and best is not None:
            assert best[1] == pytest.approx(hit.score)


def test_neighbours_stay_within_their_document(index: SearchIndex) -> None:
    (hit,) = search(index, "The cat sat on the mat", mode="bm25", field="text_dense", k=1, neighbours=2)
    (one,) = hit.chunks
    text = next(document["text"] for document in DOCUMENTS if document["_id"] == hit.id)
    whole = [chunk.text for chunk in (*one.before, one.chunk, *one.after)]
    assert "\n".join(whole) in text
    assert len(one.before) <= 2
    assert len(one.after) <= 2
    (alone,) = search(index, "red tree", mode="bm25", k=1, neighbours=1)
    assert alone.chunks[0].before == alone.chunks[0].after == ()
    assert "before" not in alone.to_json()["chunks"][0]


def test_hits_that_score_less_are_left_out(index: SearchIndex) -> None:
    every = search(index, "cold river", mode="dense", k=6)
    bound = every[2].score
    kept = search(index, "cold river", mode="dense", k=6, min_score=bound)
    assert [hit.id for hit in kept] == [hit.id for hit in every if hit.score >= bound]
    assert search(index, "cold river", mode="dense", k=6, min_score=2.0) == []


@pytest.mark.parametrize("mode", ["bm25", "dense", "hybrid"])
def test_a_reranking_orders_the_best_documents_by_their_best_chunks(index: SearchIndex, mode: str) -> None:
    reranker = ByLength()
    plain = search(index, "cat river", mode=mode, k=4)
    found = search(index, "cat river", mode=mode, k=4, depth=4, rerank=reranker)
    assert reranker.asked == [("cat river", [hit.chunk.text for hit in plain])]
    assert [hit.score for hit in found] == sorted((len(hit.chunk.text) for hit in plain), reverse=True)
    before = {hit.id: (rank, hit.score) for rank, hit in enumerate(plain, 1)}
    for hit in found:
        assert hit.retrieved is not None
        assert (hit.retrieved.rank, hit.retrieved.score) == pytest.approx(before[hit.id])
        assert hit.to_json()["retrieved"]["rank"] == hit.retrieved.rank
    equal = [hit.retrieved.rank for hit in found if hit.retrieved and hit.score == found[0].score]
    assert equal == sorted(equal)


def test_only_as_many_as_asked_for_are_ranked_again(index: SearchIndex) -> None:
    reranker = ByLength()
    found = search(index, "cat river", mode="dense", k=2, depth=5, rerank=reranker)
    assert len(reranker.asked[0][1]) == 5
    assert len(found) == 2
    assert search(index, "cat", mode="dense", k=2, rerank=reranker, min_score=1e6) == []
    with pytest.raises(PipelineError, match=r"\[depth\] is the number of documents to rank again, at least"):
        search(index, "cat river", mode="dense", k=6, depth=5, rerank=reranker)


def test_an_endpoint_that_cannot_rerank_says_why(index: SearchIndex) -> None:
    with pytest.raises(PipelineError, match=r"\[.minilm-l6-v2\] cannot rerank: .* does not rerank"):
        search(index, "cat", rerank=".minilm-l6-v2")
    with pytest.raises(PipelineError, match=r"\[nowhere\] cannot rerank: Inference endpoint not found"):
        search(index, "cat", rerank="nowhere")
    with pytest.raises(PipelineError, match=r"\[.rerank-v1-elasticsearch\] cannot rerank: The weights of"):
        search(index, "cat", rerank=".rerank-v1-elasticsearch")


def test_frames_hold_chunks_and_former_ranks(index: SearchIndex) -> None:
    opened = open_index(str(index.path))
    (row, *_) = opened.search("cat", mode="dense", k=2, chunks=2, neighbours=1, rerank=ByLength()).to_pylist()
    assert len(row["chunks"]) == 2
    assert row["chunks"][0]["text"] == row["text"]
    assert row["retrieved_rank"] >= 1
    (row, *_) = opened.search("cat", mode="dense", k=2).to_pylist()
    assert row["chunks"] == []
    assert row["retrieved_rank"] is None


def test_an_evaluation_has_the_reranking_as_a_further_mode(index: SearchIndex) -> None:
    queries = {"q1": "a cat on a mat", "q2": "cold water", "q3": "unjudged"}
    qrels = {"q1": {"d0": 1}, "q2": {"d4": 1, "d2": 1}}
    reranker = ByLength()
    result = evaluate(open_index(str(index.path)), queries, qrels, rerank=reranker, depth=3)
    assert [query for query, _ in reranker.asked] == ["a cat on a mat", "cold water"]
    raw = result.raw
    assert list(raw.modes) == ["bm25", "sparse", "dense", "hybrid", "hybrid, reranked"]
    again, first = raw.modes["hybrid, reranked"], raw.modes["hybrid"]
    for query in ("q1", "q2"):
        before, after = list(first.run[query]), list(again.run[query])
        assert sorted(before[:3]) == sorted(after[:3])
        assert before[3:] == after[3:]
    told = raw.to_json()
    assert told["costs"]["hybrid, reranked"]["reranked_texts"] == 3
    assert told["costs"]["hybrid, reranked"]["reranked_tokens"] == 9
    assert told["costs"]["hybrid, reranked"]["ms"] > told["costs"]["hybrid"]["ms"] > 0
    assert result.costs().to_pylist()[-1] == {"mode": "hybrid, reranked", **told["costs"]["hybrid, reranked"]}
    assert ["hybrid", "hybrid, reranked"] in [test["modes"] for test in told["tests"]]


def test_the_commands_rerank_by_an_endpoint_of_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = make_cross_encoder("bert", tmp_path / "model")
    settings = {"model_id": str(folder), "num_threads": 1, "num_allocations": 1}
    endpoints = tmp_path / "endpoints"
    endpoints.mkdir()
    body = {"task_type": "rerank", "service": "elasticsearch", "service_settings": settings}
    (endpoints / "mine.json").write_text(json.dumps(body))
    (tmp_path / "docs.jsonl").write_text("\n".join(map(json.dumps, DOCUMENTS)))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "cat"}\n')
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td0\t1\n")
    (tmp_path / "run.yaml").write_text(
        "source: {format: jsonl, path: docs.jsonl, id: _id}\n"
        "mappings: {properties: {text: {type: semantic_text, inference_id: .hashing-dense}}}\n"
        "endpoints: {path: endpoints}\ntable: {path: table}\nindex: {path: index}\n"
    )
    assert main(["run", "run.yaml", "--quiet"]) == 0
    capsys.readouterr()
    asked = ["search", "run.yaml", "the cat", "--rerank", "mine", "--depth", "6", "--k", "6"]
    assert main([*asked, "--format", "json"]) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert sorted(hit["retrieved"]["rank"] for hit in hits) == [1, 2, 3, 4, 5, 6]
    assert main([*asked, "--chunks", "2", "--neighbours", "1"]) == 0
    assert "hybrid, reranked: the cat" in capsys.readouterr().out
    judged = ["--queries", "queries.jsonl", "--qrels", "qrels.tsv", "--rerank", "mine", "--depth", "5"]
    assert main(["evaluate", "run.yaml", *judged]) == 0
    told = capsys.readouterr().out
    assert "hybrid, reranked: the model reads 5 texts" in told
    texts = ["the cat sat", "a dog"]
    assert main(["infer", "rerank/mine", "--path", "endpoints", "--query", "cat", *texts]) == 0
    ranked = json.loads(capsys.readouterr().out)["rerank"]
    assert sorted(row["index"] for row in ranked) == [0, 1]
    assert [row["text"] for row in ranked] == [texts[row["index"]] for row in ranked]
    assert main(["endpoints", "test", "mine", "--path", "endpoints"]) == 0
    assert json.loads(capsys.readouterr().out)["relevance_score"] == pytest.approx(0.5, abs=0.5)
