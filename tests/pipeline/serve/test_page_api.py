"""What the page asks: search, documents, endpoints and runs as JSON, errors with the value that caused them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.checkpoints import make_cross_encoder
from support.index_table import IndexTable
from support.small_run import SmallRun, document

from models.endpoints.registry import Registry
from models.errors import InferenceError
from models.reranker import Relevance, Reranker
from pipeline.evaluation.kept import keep_evaluation
from pipeline.journal import read_journal
from pipeline.search.hits.reranking import open_reranker
from pipeline.search.search import search
from pipeline.serve.app import create_app
from pipeline.serve.corpus import Corpus, open_corpus
from pipeline.serve.page.search import snippet
from transforms.index.update import update_index


def small_document(n: int) -> dict[str, Any]:
    return {
        "_id": f"d{n}",
        "title": f"Title {n}",
        "text": f"fox {n}.\nhound {n}.",
        "year": 2000 + n,
        "genre": "ab"[n % 2],
    }


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> IndexTable:
    table = IndexTable(tmp_path_factory.mktemp("page") / "table")
    table.put(
        *[
            {
                "_id": f"d{n}",
                "title": f"Title {n}",
                "text": f"fox {n}.\nhound {n}.",
                "year": 2000 + n,
                "genre": "ab"[n % 2],
            }
            for n in range(30)
        ]
    )
    return table


@pytest.fixture(scope="module")
def index(table: IndexTable, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("page") / "index")
    update_index(table.path, path)
    return path


@pytest.fixture(scope="module")
def client(index: str, tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    corpus = Corpus(index_path=index, endpoints=str(tmp_path_factory.mktemp("page") / "eps"))
    with TestClient(create_app(corpus), base_url="http://127.0.0.1") as client:
        yield client


def test_hits_are_those_of_search(index: str, client: TestClient) -> None:
    for mode in ("bm25", "sparse", "dense", "hybrid"):
        found = client.get("/api/search", params={"q": "fox 7", "mode": mode, "k": 3}).json()
        hits = search(index, "fox 7", mode=mode, k=3)
        assert [hit["_id"] for hit in found["hits"]] == [hit.id for hit in hits]
        assert [hit["title"] for hit in found["hits"]] == [hit.id.replace("d", "Title ") for hit in hits]
    first = client.get("/api/search", params={"q": "fox 7", "mode": "bm25"}).json()["hits"][0]
    assert first["snippet"] == [["fox", True], [" ", False], ["7", True], [".", False]]
    (tokens,) = first["tokens"].values()
    assert {token["token"] for token in tokens} == {"fox", "7"}


def test_a_snippet_has_the_match_in_it() -> None:
    pieces = snippet(f"{'a ' * 500}&lt;b&gt;<em>fox</em> &amp; hound{' z' * 500}", 60)
    text = "".join(piece for piece, _ in pieces)
    assert ("fox", True) in pieces
    assert "<b>fox & hound" in text
    assert text.startswith("… ")
    assert text.endswith(" …")
    assert len(text) < 70
    assert snippet("no match &lt;i&gt;") == [("no match <i>", False)]


@pytest.mark.parametrize(
    ("query", "parameter", "message"),
    [
        ({"q": " "}, "q", "type what to look for"),
        ({"q": "x", "field": "body"}, "field", "no field [body]"),
        ({"q": "x", "filter": "colour=red"}, "filter", "no field that a filter can use"),
        ({"q": "x", "filter": "year>=soon"}, "filter", "[year]"),
        ({"q": "x", "filter": "???"}, "filter", "not understood"),
        ({"q": "x", "filter": '{"term": 3}'}, "filter", ""),
        ({"q": "x", "k": "many"}, "k", "[k] is a number"),
        ({"q": "x", "k": "1000"}, "k", "from 1 to 100"),
        ({"q": "x", "mode": "magic"}, "mode", "[mode] is one of"),
        ({"q": "x", "mode": "dense", "field": "title"}, "mode", "has no dense embeddings"),
    ],
)
def test_errors_name_the_value_that_caused_them(client: TestClient, query, parameter, message) -> None:
    answer = client.get("/api/search", params=query)
    assert (answer.status_code, answer.json()["parameter"]) == (400, parameter)
    assert message in answer.json()["error"]["reason"]


def test_filters_and_their_suggestions(client: TestClient) -> None:
    found = client.get("/api/documents", params={"filter": "year>=2010 AND genre=a"}).json()
    assert (found["total"], found["documents"][0]["_id"]) == (10, "d10")
    genres = client.get("/api/suggestions", params={"field": "genre"}).json()["values"]
    assert genres == [{"value": "a", "documents": 15}, {"value": "b", "documents": 15}]
    years = client.get("/api/suggestions", params={"field": "year", "prefix": "202"}).json()["values"]
    assert [one["value"] for one in years] == list(range(2020, 2030))[:12]
    assert client.get("/api/suggestions", params={"field": "none"}).json() == {"values": []}


def test_documents_are_browsed_and_opened(client: TestClient) -> None:
    found = client.get("/api/documents", params={"from": 5, "size": 2}).json()
    assert [one["_id"] for one in found["documents"]] == ["d5", "d6"]
    assert client.get("/api/documents", params={"text": "D2"}).json()["total"] == 11
    opened = client.get("/api/document", params={"id": "d5"}).json()
    assert (opened["title"], opened["plain"]["year"], opened["_source"]["genre"]) == ("Title 5", 2005, "b")
    sparse = next(field for field in opened["fields"] if field["name"] == "text_sparse")
    assert sparse["texts"] == {"text": "fox 5.\nhound 5."}
    assert [(one["start_offset"], one["end_offset"]) for one in sparse["chunks"]] == [(0, 6), (7, 15)]
    assert all(one["tokens"] > 0 and one["page"] is None for one in sparse["chunks"])
    weights = [weight for _, weight in sparse["chunks"][0]["weights"]]
    assert len(weights) == 2
    assert weights == sorted(weights, reverse=True)
    assert client.get("/api/document", params={"id": "none"}).status_code == 404
    assert client.get("/api/document").status_code == 400


def test_pages_of_a_document(table: IndexTable, index: str, client: TestClient) -> None:
    table.put({"_id": "paged", "text": "😀 one\ntwo\nthree", "page_offsets": [0, 7, 11]})
    update_index(table.path, index)
    opened = client.get("/api/document", params={"id": "paged"}).json()
    assert [one["page"] for one in opened["fields"][0]["chunks"]] == [1, 2, 3]
    hit = client.get("/api/search", params={"q": "three", "mode": "bm25"}).json()["hits"][0]
    assert (hit["_id"], hit["chunk"]["page"]) == ("paged", 3)


def test_an_update_is_seen_and_what_is_gone_is_said(
    table: IndexTable, index: str, client: TestClient
) -> None:
    table.put({"_id": "fresh", "text": "zebra crossing"})
    update_index(table.path, index)
    hit = client.get("/api/search", params={"q": "zebra", "mode": "bm25"}).json()["hits"][0]
    assert hit["_id"] == "fresh"
    assert client.get("/api/document", params={"id": "fresh"}).status_code == 200
    parts = list(Path(table.path).rglob("*.parquet"))
    for part in parts:
        part.rename(part.with_suffix(".aside"))
    answer = client.get("/api/document", params={"id": "fresh"})
    for part in parts:
        part.with_suffix(".aside").rename(part)
    assert answer.status_code == 400
    assert "bring the index up to date" in answer.json()["error"]["reason"]


def test_endpoints_services_and_a_test(client: TestClient) -> None:
    found = {
        one["definition"]["inference_id"]: one for one in client.get("/api/endpoints").json()["endpoints"]
    }
    minilm = found[".minilm-l6-v2"]
    assert (minilm["dimensions"], minilm["window"], minilm["problems"]) == (384, 256, [])
    assert found[".elser-2-elastic"]["problems"] != []
    services = {one["name"]: one for one in client.get("/api/services").json()["services"]}
    assert {
        "name": "api_key",
        "kind": "secret",
        "required": True,
        "default": None,
        "choices": [],
    } in services["cohere"]["settings"]
    tried = client.post(
        "/api/try", json={"inference_id": ".minilm-l6-v2", "input": "a fox", "input_type": "search"}
    ).json()
    assert (tried["size"], tried["tokens_seen"]) == (384, 4)
    assert tried["norm"] == pytest.approx(1)
    sparse = client.post("/api/try", json={"inference_id": ".splade-tiny", "input": "a fox"}).json()
    assert "fox" in dict(sparse["weights"])
    assert client.post("/api/try", json={"inference_id": "none", "input": "x"}).status_code == 404


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = SmallRun(tmp_path, endpoints={"path": "eps"})
    small.write([document(n) for n in range(4)])
    assert small.run() == 0
    small.write([document(n, edition=1) for n in range(3)] + [document(9), b"not json"])
    assert small.run("--allow-mass-delete") == 0
    return small


def test_runs_versions_reports_and_evaluations(small: SmallRun) -> None:
    keep_evaluation(
        small.folder / "evaluations.jsonl",
        {"table_version": 1, "queries": 2, "modes": {"dense": {"ndcg@10": 0.5}}, "intervals": {}},
    )
    with TestClient(create_app(open_corpus(str(small.config_path))), base_url="http://127.0.0.1") as client:
        found = client.get("/api/runs").json()
        newest, oldest = found["runs"]
        assert (
            oldest["documents"]["added"],
            newest["documents"]["changed"],
            newest["documents"]["failed"],
        ) == (4, 3, 1)
        assert newest["failures_by_reason"]
        assert newest["timings"]
        assert found["versions"][0]["run_id"] == newest["run_id"]
        assert found["evaluations"][0]["modes"] == {"dense": {"ndcg@10": 0.5}}
        for run in found["runs"]:
            report = client.get("/api/report", params={"id": run["run_id"]})
            assert run["run_id"] in report.text
            assert "sandbox" in report.headers["content-security-policy"]
        assert client.get("/api/report", params={"id": "../run"}).status_code == 404


class Failing(Reranker):
    def rerank(self, query: str, texts: Sequence[str]) -> Relevance:
        raise InferenceError("the service is down", status=503)

    def close(self) -> None:
        pass


def test_the_best_hits_are_ranked_again(small: SmallRun, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_cross_encoder("bert", small.folder / "ranker")
    body = {
        "service": "elasticsearch",
        "service_settings": {"model_id": str(folder), "num_threads": 1, "num_allocations": 1},
    }
    Registry("eps").put("ranker", body, "rerank")
    asked = {"q": "the red fox . 5", "rerank": "ranker"}
    with TestClient(create_app(open_corpus(str(small.config_path))), base_url="http://127.0.0.1") as client:
        assert client.get("/api/overview").json()["index"]["rerankers"] == [
            "ranker",
        ]
        for mode in ("bm25", "hybrid"):
            found = client.get("/api/search", params={**asked, "mode": mode, "k": 2, "depth": 3}).json()[
                "hits"
            ]
            reranker = open_reranker("ranker", "eps", {})
            index = str(small.folder / "index")
            hits = search(index, asked["q"], mode=mode, k=2, rerank=reranker, depth=3)
            assert [(hit["_id"], hit["score"]) for hit in found] == [(hit.id, hit.score) for hit in hits]
            assert [hit["retrieved"]["rank"] for hit in found] == [hit.retrieved.rank for hit in hits]
        plain = client.get("/api/search", params={"q": asked["q"], "mode": "bm25", "rerank": ""}).json()[
            "hits"
        ]
        assert not any("retrieved" in hit for hit in plain)

        def problem(**changes: str) -> tuple[int, str, str]:
            answer = client.get("/api/search", params={**asked, **changes})
            body = answer.json()
            return answer.status_code, body["parameter"], body["error"]["reason"]

        assert problem(depth="9")[:2] == (400, "depth")
        assert problem(k="5", depth="4")[2] == "[depth] is a number from 5 to 1000, not [4]"
        assert problem(rerank="../ranker")[:2] == (400, "rerank")
        assert problem(depth="9" * 5000)[:2] == (400, "depth")
        assert "does not rerank" in problem(rerank=".minilm-l6-v2")[2]
        assert "[models: {rerank-v1:" in problem(rerank=".rerank-v1-elasticsearch")[2]
        monkeypatch.setattr("pipeline.serve.page.reranking.open_reranker", lambda *_: Failing())
        assert problem() == (400, "rerank", "the service is down")


def test_evaluations_of_a_config_are_kept(small: SmallRun, capsys) -> None:
    (small.folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "red fox number 1"}) + "\n")
    (small.folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\td1\t1\n")
    for _ in range(2):
        assert small.run("--queries", "queries.jsonl", "--qrels", "qrels.tsv", command="evaluate") == 0
    kept = read_journal(small.folder / "evaluations.jsonl")
    assert [set(one["modes"]) for one in kept] == [{"bm25", "sparse", "dense", "hybrid"}] * 2
    assert kept[0]["queries_path"] == "queries.jsonl"


def test_a_server_without_config_says_what_it_lacks(tmp_path) -> None:
    with TestClient(create_app(Corpus(endpoints=str(tmp_path))), base_url="http://127.0.0.1") as client:
        assert "has no index" in client.get("/api/overview").json()["problem"]
        for path in ("/api/documents", "/api/search?q=x", "/api/runs"):
            assert client.get(path).status_code == 404


def test_the_page_and_its_files(client: TestClient) -> None:
    page = client.get("/", headers={"accept": "text/html,*/*;q=0.8"})
    assert page.text.startswith("<!doctype html>")
    assert client.get("/page/app.js").headers["content-type"].startswith("text/javascript")
    for name in ("..%2fapp.py", "none.js", "__init__.py", "%2e%2e%2fapi.py"):
        assert client.get(f"/page/{name}").status_code == 404
