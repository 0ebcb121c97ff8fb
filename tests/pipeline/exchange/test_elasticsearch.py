"""Real Elasticsearch servers on loopback, filled by `load elasticsearch`. `make servers` fetches them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT
from support.servers.elasticsearch import NEWEST, OLDER, ElasticsearchServer
from support.small_run import SmallRun, document

from pipeline.__main__ import main
from pipeline.search.search import search

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", params=[NEWEST, OLDER])
def server(request: pytest.FixtureRequest) -> Iterator[ElasticsearchServer]:
    with ElasticsearchServer(request.param) as running:
        yield running


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """The paragraphs of XQuAD, embedded by the bundled models."""
    small = SmallRun(tmp_path_factory.mktemp("es"))
    properties = small.config["mappings"]["properties"]
    properties["dense"]["inference_id"], properties["sparse"]["inference_id"] = (
        ".minilm-l6-v2",
        ".splade-tiny",
    )
    small.config["table"]["part_rows"] = 20
    lines = (ROOT / "data" / "xquad" / "corpus.jsonl").read_bytes().splitlines()[:40]
    small.write(
        [*lines, {"_id": "emoji", "text": "A fox 🦊 and a wave 🌊. Second sentence 😀 here.", "year": 7}]
    )
    assert small.run() == 0
    return small


def load(job: SmallRun, server: ElasticsearchServer, index: str, *more: str) -> list[str]:
    command = [
        "load",
        "elasticsearch",
        str(job.config_path),
        server.url,
        "--index",
        index,
        "--profile",
        "nested",
    ]
    return [*command, "--dead-letters", str(job.folder / "dead.jsonl"), *more]


def contents(server: ElasticsearchServer, index: str) -> dict[str, dict[str, Any]]:
    """Every document of an index, without vectors."""
    server.ask("POST", f"/{index}/_refresh")
    hits = server.ask("POST", f"/{index}/_search", {"size": 1000, "_source": {"excludes": ["*.embedding"]}})
    return {hit["_id"]: hit["_source"] for hit in hits["hits"]["hits"]}


def expected(job: SmallRun) -> dict[str, dict[str, Any]]:
    """What the table says that an index should have."""
    found = {}
    for id_, row in job.rows().items():
        document = json.loads(row["_source"])
        for field in ("dense", "sparse"):
            chunks = (row[field] or {}).get("chunks", [])
            places = [
                {key: one[key] for key in ("source_field", "start_offset", "end_offset")} for one in chunks
            ]
            if chunks:
                document[f"{field}_chunks"] = places
        found[id_] = document
    return found


def equal(server: ElasticsearchServer, index: str, job: SmallRun) -> None:
    shown = contents(server, index)
    for shown_document in shown.values():
        for field in ("dense_chunks", "sparse_chunks"):
            for chunk in shown_document.get(field, []):
                del chunk["text"]
    assert shown == expected(job)


def test_rankings_are_ours_and_an_alias_switches(
    job: SmallRun, server: ElasticsearchServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(load(job, server, "first", "--alias", "docs", "--vector-index", "hnsw")) == 0
    equal(server, "first", job)
    capsys.readouterr()
    argv = ["evaluate", job.config["index"]["path"], "--against", f"{server.url}/first", "--format", "json"]
    data = ROOT / "data" / "xquad"
    queries = job.folder / "queries.jsonl"
    queries.write_bytes(b"\n".join((data / "queries.jsonl").read_bytes().splitlines()[:100]))
    assert main([*argv, "--queries", str(queries), "--qrels", str(data / "qrels.tsv")]) == 0
    modes = json.loads(capsys.readouterr().out)["modes"]
    assert modes["dense"]["same_documents"] >= 0.99, modes["dense"]
    assert modes["sparse"]["overlap"] >= 0.99, modes["sparse"]
    assert modes["sparse pruned"]["overlap"] >= 0.985, modes["sparse pruned"]
    assert set(modes) == {"bm25", "dense", "sparse", "sparse pruned", "hybrid"}
    assert main(load(job, server, "second", "--alias", "docs")) == 0
    assert list(server.get("/_alias/docs")) == ["second"]


def test_offsets_in_answers_are_ours(job: SmallRun, server: ElasticsearchServer) -> None:
    assert main(load(job, server, "offsets", "--vector-index", "hnsw")) == 0
    query = "a wave and a fox"
    ours = search(job.config["index"]["path"], query, mode="dense", field="dense", k=1)[0]
    assert ours.id == "emoji"
    from pipeline.search.open_index import SearchIndex
    from pipeline.search.query_embedding import embed_queries

    vector = (
        embed_queries(SearchIndex(job.config["index"]["path"]).state, "dense", [query]).values[0].tolist()
    )
    server.ask("POST", "/offsets/_refresh")
    knn = {"field": "dense_chunks.embedding", "query_vector": vector, "k": 1, "num_candidates": 50}
    knn["inner_hits"] = {"size": 1, "_source": {"excludes": ["*.embedding"]}}
    (hit,) = server.ask("POST", "/offsets/_search", {"knn": knn})["hits"]["hits"]
    chunk = hit["inner_hits"]["dense_chunks"]["hits"]["hits"][0]["_source"]
    assert hit["_id"] == "emoji"
    places = (chunk["source_field"], chunk["start_offset"], chunk["end_offset"], chunk["text"])
    assert places == (ours.chunk.field, ours.chunk.start_offset, ours.chunk.end_offset, ours.chunk.text)


@pytest.fixture
def nights(tmp_path: Path) -> SmallRun:
    small = SmallRun(tmp_path)
    small.config["table"]["part_rows"] = 10
    small.write([document(number) for number in range(80)])
    assert small.run() == 0
    return small


def test_a_night_loaded_twice_leaves_the_index_equal_to_the_table(
    nights: SmallRun, server: ElasticsearchServer, capsys: pytest.CaptureFixture[str]
) -> None:
    index = f"night-{time.time_ns()}"
    assert main(load(nights, server, index)) == 0
    nights.write([document(number, edition=number % 3) for number in range(5, 90)])
    assert nights.run() == 0
    capsys.readouterr()
    assert main(load(nights, server, index, "--format", "json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["since"] == [1]
    assert told["sent"] < 90
    equal(server, index, nights)
    assert main(load(nights, server, index, "--format", "json")) == 0
    assert json.loads(capsys.readouterr().out)["sent"] == 0
    equal(server, index, nights)


def test_killed_in_the_middle_and_started_again(nights: SmallRun, server: ElasticsearchServer) -> None:
    index = f"killed-{time.time_ns()}"
    argv = load(nights, server, index, "--threads", "1")
    code = (
        "import sys, os, signal\n"
        "from pipeline.exchange.elasticsearch import load as es\n"
        "remember, calls = es.ClusterIndex.remember, []\n"
        "def dies(self, state):\n"
        "    calls.append(1)\n"
        "    if len(calls) == int(sys.argv.pop(1)): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    sys.argv.insert(1, at); remember(self, state)\n"
        "at = sys.argv[1]\n"
        "es.ClusterIndex.remember = dies\n"
        "from pipeline.__main__ import main\n"
        f"sys.exit(main({argv!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, "4"], cwd=ROOT, env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    assert 0 < len(contents(server, index)) < 80
    # The table moves on before somebody starts the load again.
    nights.write([document(number, edition=1) for number in range(3, 82)])
    assert nights.run() == 0
    assert main(argv) == 0
    equal(server, index, nights)


def test_an_export_is_loaded_and_then_followed(
    nights: SmallRun, server: ElasticsearchServer, tmp_path: Path
) -> None:
    index, older = f"export-{time.time_ns()}", server.version.startswith("8")
    export = [
        "export",
        "elasticsearch",
        str(nights.config_path),
        str(tmp_path / "bulk"),
        "--profile",
        "nested",
    ]
    export += [
        "--cluster-version",
        server.version.rpartition(".")[0],
        "--compress",
        "zst",
        "--max-bytes",
        "20000",
    ]
    assert main(export) == 0
    assert main(["load", "elasticsearch", str(tmp_path / "bulk"), server.url, "--index", index]) == 0
    equal(server, index, nights)
    vector = server.get(f"/{index}/_mapping")[index]["mappings"]["properties"]["dense_chunks"]
    assert vector["properties"]["embedding"]["dims"] == 64
    nights.write([document(number, edition=1) for number in range(2, 80)])
    assert nights.run() == 0
    assert main(load(nights, server, index)) == 0
    equal(server, index, nights)
    assert older or "base64" in (tmp_path / "bulk" / "manifest.json").read_text()


def test_a_refused_document_is_told_of_and_the_alias_stays(
    tmp_path: Path, server: ElasticsearchServer, capsys: pytest.CaptureFixture[str]
) -> None:
    small = SmallRun(tmp_path)
    # What no mapping declares is the server's to understand: a number first, an object then.
    small.write([document(1) | {"extra": 5}, document(2) | {"extra": {"deep": 1}}])
    assert small.run() == 0
    index = f"refused-{time.time_ns()}"
    assert main(load(small, server, index, "--alias", "never")) == 4
    assert "[d2] 400 document_parsing_exception" in capsys.readouterr().err
    (letter,) = map(json.loads, (tmp_path / "dead.jsonl").read_text().splitlines())
    assert (letter["id"], letter["status"]) == ("d2", 400)
    assert main(load(small, server, index, "--max-failures", "0.6")) == 0
    # It is tried again, and taken once the document is right.
    small.write([document(1) | {"day": "2024-05-01"}, document(2) | {"day": "2024-05-02"}])
    assert small.run() == 0
    assert main(load(small, server, index)) == 0
    equal(server, index, small)


def test_another_table_or_form_is_refused(
    nights: SmallRun, server: ElasticsearchServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.ask("PUT", f"/strange-{nights.folder.name.lower()}")
    assert main(load(nights, server, f"strange-{nights.folder.name.lower()}")) == 1
    assert "was not made by a load" in capsys.readouterr().err


def test_a_mapping_comes_back_as_a_config(
    nights: SmallRun, server: ElasticsearchServer, capsys: pytest.CaptureFixture[str]
) -> None:

    index = f"mapping-{time.time_ns()}"
    properties = {"title": {"type": "text"}, "place": {"type": "geo_point"}, "year": {"type": "integer"}}
    server.ask("PUT", f"/{index}", {"mappings": {"properties": properties}})
    assert main(["import", "mapping", f"{server.url}/{index}"]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[:2] == ["mappings:", "  properties:"]
    assert "add a semantic_text field" in told.err


RICH_PROPERTIES: dict[str, Any] = {
    "title": {"type": "text", "copy_to": ["dense", "everything"], "fields": {"raw": {"type": "keyword"}}},
    "body": {
        "type": "text",
        "fields": {"meaning": {"type": "semantic_text", "inference_id": ".hashing-dense"}},
    },
    "everything": {"type": "text"},
    "day": {"type": "date", "format": "dd.MM.yyyy||epoch_millis"},
    "at": {"type": "date"},
    "seen": {"type": "date_nanos"},
    "place": {"type": "geo_point"},
    "span": {"type": "integer_range"},
    "from": {"type": "ip"},
    "tags": {"type": "keyword", "ignore_above": 20},
    "sizes": {"type": "long"},
    "price": {"type": "double"},
    "is_open": {"type": "boolean"},
    "labels": {"type": "flattened"},
    "hidden": {"type": "object", "enabled": False},
    "author": {"properties": {"name": {"type": "text", "copy_to": "sparse"}, "born": {"type": "short"}}},
    "comments": {"type": "nested", "properties": {"by": {"type": "keyword"}, "text": {"type": "text"}}},
    "dense": {"type": "semantic_text", "inference_id": ".hashing-dense"},
    "sparse": {"type": "semantic_text", "inference_id": ".hashing-sparse"},
}
RICH_DOCUMENTS: list[dict[str, Any]] = [
    {
        "_id": "full",
        "title": ["First title 🦊", "second title"],
        "body": "The body. It has two sentences.",
        "day": ["31.03.2024", 1711843200000],
        "at": "2024-03-31T12:00:00+02:00",
        "seen": "2024-03-31T12:00:00.123456789Z",
        "place": [{"lat": 50.94, "lon": 6.96}, "52.52,13.40"],
        "span": {"gte": 3, "lt": 9},
        "from": ["127.0.0.1", "::1"],
        "tags": ["red", "blue", None, "a tag of more than twenty characters"],
        "sizes": [3, -5, 2**53 + 1],
        "price": 13.49,
        "is_open": [True, "false"],
        "labels": {"level": "high", "more": {"deep": ["one", "two"]}},
        "hidden": {"anything": [{"at": "all"}, 5]},
        "author": [{"name": "Ada Lovelace", "born": 1815}, {"name": "Grace Hopper", "born": 1906}],
        "comments": [{"by": "x", "text": "Well said."}, {"by": "y", "text": "Not so."}],
        "dense": "A value of its own.",
    },
    {"_id": "dotted", "author.name": "Dotted Name", "author": {"born": 1900}, "title": None, "tags": []},
    {"_id": "bare", "sparse": ["one text", "another text"], "extra": {"undeclared": 1}},
]


def test_a_rich_mapping_is_taken_and_its_documents_come_back_as_they_were(
    tmp_path: Path, server: ElasticsearchServer
) -> None:
    small = SmallRun(tmp_path)
    small.config["mappings"]["properties"] = RICH_PROPERTIES
    small.write(RICH_DOCUMENTS)
    assert small.run() == 0
    index = f"rich-{time.time_ns()}"
    assert main(load(small, server, index)) == 0
    found = contents(server, index)
    chunked = ("body_meaning_chunks", "dense_chunks", "sparse_chunks")
    values = {
        id_: {name: value for name, value in one.items() if name not in chunked} for id_, one in found.items()
    }
    assert values == {one["_id"]: {k: v for k, v in one.items() if k != "_id"} for one in RICH_DOCUMENTS}
    texts = {
        id_: {name: [chunk["text"] for chunk in one.get(name, [])] for name in chunked}
        for id_, one in found.items()
    }
    assert texts["full"]["body_meaning_chunks"] == ["The body. It has two sentences."]
    assert texts["full"]["dense_chunks"] == ["A value of its own.", "First title 🦊", "second title"]
    assert texts["full"]["sparse_chunks"] == ["Ada Lovelace", "Grace Hopper"]
    assert texts["dotted"]["sparse_chunks"] == ["Dotted Name"]
    assert texts["bare"]["sparse_chunks"] == ["one text", "another text"]
    # The cluster understands the values: each is found by a query of its own kind.
    for query, ids in {
        '{"term": {"title.raw": "second title"}}': {"full"},
        '{"match": {"everything": "second"}}': {"full"},
        '{"range": {"day": {"gte": "30.03.2024", "lte": "01.04.2024"}}}': {"full"},
        '{"range": {"at": {"gte": "2024-03-31T09:59:00Z", "lte": "2024-03-31T10:01:00Z"}}}': {"full"},
        '{"geo_distance": {"distance": "1km", "place": {"lat": 52.52, "lon": 13.4}}}': {"full"},
        '{"term": {"span": 8}}': {"full"},
        '{"term": {"from": "::1"}}': {"full"},
        '{"term": {"labels.more.deep": "two"}}': {"full"},
        '{"match": {"author.name": "dotted"}}': {"dotted"},
        '{"nested": {"path": "comments", "query": {"term": {"comments.by": "y"}}}}': {"full"},
    }.items():
        hits = server.ask("POST", f"/{index}/_search", {"query": json.loads(query)})["hits"]["hits"]
        assert {hit["_id"] for hit in hits} == ids, query
