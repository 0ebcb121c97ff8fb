"""The same chunks in other engines: each finds what exact arithmetic finds, and follows the table."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from support.paths import ROOT
from support.servers.opensearch import OpenSearchServer
from support.servers.pglite import PostgresServer
from support.small_run import SmallRun, document

from pipeline.__main__ import main
from pipeline.exchange.engines.lancedb import LanceChunks
from pipeline.exchange.engines.load import ChunkTarget, load_chunks
from pipeline.exchange.engines.pgvector import PostgresChunks
from pipeline.exchange.engines.qdrant import QdrantChunks
from pipeline.search.open_index import SearchIndex
from pipeline.search.query_embedding import embed_queries

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
QUERIES = 20
K = 10


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """Paragraphs of XQuAD, embedded by the bundled models."""
    small = SmallRun(tmp_path_factory.mktemp("engines"))
    properties = small.config["mappings"]["properties"]
    properties["dense"]["inference_id"] = ".minilm-l6-v2"
    small.config["table"]["part_rows"] = 20
    small.write((ROOT / "data" / "xquad" / "corpus.jsonl").read_bytes().splitlines()[:40])
    assert small.run() == 0
    return small


@pytest.fixture(scope="module")
def vectors(job: SmallRun) -> list[list[float]]:
    lines = (ROOT / "data" / "xquad" / "queries.jsonl").read_text().splitlines()[:QUERIES]
    texts = [json.loads(line)["text"] for line in lines]
    return embed_queries(SearchIndex(job.config["index"]["path"]).state, "dense", texts).values.tolist()


@pytest.fixture(scope="module")
def exact(
    job: SmallRun, vectors: list[list[float]], tmp_path_factory: pytest.TempPathFactory
) -> list[list[str]]:
    """The ten best chunks of each query, by DuckDB over `export chunks`."""
    target = tmp_path_factory.mktemp("exact") / "dense.parquet"
    assert main(["export", "chunks", str(job.config_path), str(target), "--field", "dense"]) == 0
    size = len(vectors[0])
    statement = f"""SELECT chunk_id FROM '{target}'
        ORDER BY array_cosine_similarity(embedding::FLOAT[{size}], ?::FLOAT[{size}]) DESC LIMIT {K}"""
    return [[row[0] for row in duckdb.execute(statement, [vector]).fetchall()] for vector in vectors]


class Engine(ABC):
    """How a test opens an engine, asks it, and looks at what it holds."""

    fields: tuple[str, ...] = ("dense", "sparse")

    @abstractmethod
    def open(self, name: str) -> ChunkTarget: ...

    @abstractmethod
    def nearest(self, target: Any, vector: list[float]) -> list[str]: ...

    @abstractmethod
    def held(self, target: Any) -> dict[str, str]: ...

    @abstractmethod
    def rows(self, target: Any) -> list[dict[str, Any]]:
        """Every chunk, with its plain columns."""


class OpenSearchEngine(Engine):
    def __init__(self, server: OpenSearchServer) -> None:
        self.server = server

    def open(self, name: str) -> ChunkTarget:
        from pipeline.exchange.engines.opensearch import OpenSearchChunks

        self.name = name
        return OpenSearchChunks(self.server.url, name)

    def nearest(self, target: Any, vector: list[float]) -> list[str]:
        body = {
            "size": K,
            "query": {"knn": {"dense_embedding": {"vector": vector, "k": 50}}},
            "_source": False,
        }
        return [hit["_id"] for hit in self.server.ask("POST", f"/{self.name}/_search", body)["hits"]["hits"]]

    def held(self, target: Any) -> dict[str, str]:
        body = {"size": 5000, "_source": ["text"]}
        hits = self.server.ask("POST", f"/{self.name}/_search", body)["hits"]["hits"]
        return {hit["_id"]: hit["_source"]["text"] for hit in hits}

    def rows(self, target: Any) -> list[dict[str, Any]]:
        hits = self.server.ask("POST", f"/{self.name}/_search", {"size": 100})["hits"]["hits"]
        return [{**hit["_source"], "_id": hit["_source"]["document_id"]} for hit in hits]


class QdrantEngine(Engine):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, name: str) -> ChunkTarget:
        self.name = name
        return QdrantChunks(str(self.folder), name)

    def nearest(self, target: Any, vector: list[float]) -> list[str]:
        found = target._client.query_points(self.name, query=vector, using="dense", limit=K)
        return [str(point.id) for point in found.points]

    def held(self, target: Any) -> dict[str, str]:
        points, _ = target._client.scroll(self.name, limit=5000)
        return {str(point.id): point.payload["text"] for point in points}

    def rows(self, target: Any) -> list[dict[str, Any]]:
        return [point.payload for point in target._client.scroll(self.name, limit=100)[0]]


class LanceEngine(Engine):
    fields = ("dense",)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, name: str) -> ChunkTarget:
        self.name = name
        return LanceChunks(str(self.folder), name)

    def nearest(self, target: Any, vector: list[float]) -> list[str]:
        table = target._database.open_table(self.name)
        search = table.search(np.float32(vector), vector_column_name="embedding").metric("cosine").limit(K)
        return [row["chunk_id"] for row in search.to_list()]

    def held(self, target: Any) -> dict[str, str]:
        rows = target._database.open_table(self.name).to_arrow().to_pylist()
        return {row["chunk_id"]: row["text"] for row in rows}

    def rows(self, target: Any) -> list[dict[str, Any]]:
        return target._database.open_table(self.name).to_arrow().to_pylist()


class PostgresEngine(Engine):
    def __init__(self, server: PostgresServer) -> None:
        self.server = server

    def open(self, name: str) -> ChunkTarget:
        self.name = name
        return PostgresChunks(self.server.url, name)

    def nearest(self, target: Any, vector: list[float]) -> list[str]:
        statement = (
            f'SELECT chunk_id FROM "{self.name}" WHERE field = %s ORDER BY dense <=> %s::vector LIMIT {K}'
        )
        return [str(row[0]) for row in target._connection.execute(statement, ["dense", str(vector)])]

    def held(self, target: Any) -> dict[str, str]:
        return {
            str(id_): text
            for id_, text in target._connection.execute(f'SELECT chunk_id, text FROM "{self.name}"')
        }

    def rows(self, target: Any) -> list[dict[str, Any]]:
        found = target._connection.execute(f'SELECT _id, tags, serial, years FROM "{self.name}"')
        return [dict(zip(("_id", "tags", "serial", "years"), row, strict=True)) for row in found]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("opensearch", marks=pytest.mark.servers),
        "qdrant",
        "lancedb",
        pytest.param("pgvector", marks=pytest.mark.servers),
    ],
)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "opensearch":
        with OpenSearchServer() as server:
            yield OpenSearchEngine(server)
    elif request.param == "pgvector":
        with PostgresServer() as server:
            yield PostgresEngine(server)
    else:
        yield QdrantEngine(folder) if request.param == "qdrant" else LanceEngine(folder)


def opened(engine: Engine, name: str) -> Any:
    target = engine.open(name)
    return closing(target) if hasattr(target, "close") else _Open(target)


class _Open:
    def __init__(self, target: Any) -> None:
        self.target = target

    def __enter__(self) -> Any:
        return self.target

    def __exit__(self, *error: object) -> None:
        pass


def test_the_ten_nearest_are_the_exact_ones(
    engine: Engine, job: SmallRun, vectors: list[list[float]], exact: list[list[str]]
) -> None:
    with opened(engine, "rankings") as target:
        load_chunks(target, job.table_path, engine.fields)
        assert [engine.nearest(target, vector) for vector in vectors] == exact


def wanted(job: SmallRun, fields: tuple[str, ...], folder: Path) -> dict[str, str]:
    assert (
        main(
            ["export", "chunks", str(job.config_path), str(folder), *(f"--field={field}" for field in fields)]
        )
        == 0
    )
    rows: dict[str, str] = {}
    for field in fields:
        rows |= dict(duckdb.sql(f"SELECT chunk_id, text FROM '{folder}/{field}/*.parquet'").fetchall())
    return rows


def test_it_follows_the_table_whatever_was_broken_off(engine: Engine, tmp_path: Path) -> None:
    small = SmallRun(tmp_path)
    small.config["table"]["part_rows"] = 7
    small.write([document(number) for number in range(20)])
    assert small.run() == 0
    with opened(engine, "nights") as target:
        breaks_off(target, small, engine.fields, after=2)
        small.write([document(number, edition=number % 2) for number in range(2, 24)])
        assert small.run() == 0
        report = load_chunks(target, small.table_path, engine.fields)
        assert report.since == []
        assert engine.held(target) == wanted(small, engine.fields, tmp_path / "a")
        # Another night is broken off, and a third one takes some of it back.
        small.write([{**document(number), "text": "Short."} for number in range(10)])
        assert small.run("--allow-mass-delete") == 0
        breaks_off(target, small, engine.fields, after=1)
        small.write([document(number) for number in range(5, 15)])
        assert small.run("--allow-mass-delete") == 0
        report = load_chunks(target, small.table_path, engine.fields)
        assert report.since
        assert engine.held(target) == wanted(small, engine.fields, tmp_path / "b")
        assert load_chunks(target, small.table_path, engine.fields).written == 0


def test_columns_of_several_values_arrive_as_arrays(engine: Engine, tmp_path: Path) -> None:
    small = SmallRun(tmp_path)
    small.config["mappings"]["properties"] |= {
        "tags": {"type": "keyword"},
        "serial": {"type": "unsigned_long"},
        "years": {"type": "integer"},
    }
    several = {"tags": ["red", "blue, {green}"], "serial": [1, 2**64 - 1], "years": [1999, 2001]}
    one = {"tags": "red", "serial": 7, "years": []}
    small.write([{"_id": "a", "text": "One.", **several}, {"_id": "b", "text": "Two.", **one}])
    assert small.run() == 0
    with opened(engine, "arrays") as target:
        load_chunks(target, small.table_path, engine.fields, ("tags", "serial", "years"))
        rows = engine.rows(target)
    assert {row["_id"] for row in rows} == {"a", "b"}
    for row in rows:
        shown = {name: row.get(name) for name in several}
        assert shown == (several if row["_id"] == "a" else {"tags": ["red"], "serial": [7], "years": None})


def breaks_off(target: Any, job: SmallRun, fields: tuple[str, ...], after: int) -> None:
    """A load that ends in the middle, as one that is killed."""
    upsert: Callable[..., None] = target.upsert
    calls: list[int] = []

    def dies(*arguments: Any) -> None:
        if len(calls) == after:
            raise ConnectionError("gone")
        calls.append(1)
        upsert(*arguments)

    target.upsert = dies
    with pytest.raises(ConnectionError):
        load_chunks(target, job.table_path, fields)
    del target.upsert


def test_commands_load_and_say_what_they_did(
    job: SmallRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["load", "qdrant", str(job.config_path), str(tmp_path / "qdrant"), "--collection", "docs"]
    for sent in (True, False):
        capsys.readouterr()
        assert main([*command, "--column", "title", "--format", "json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["written"] > 0, told["chunks"] > 0) == (sent, True)
    lance = ["load", "lancedb", str(job.config_path), str(tmp_path / "lance"), "--table", "docs"]
    assert main(lance) == 1
    assert "choose it with --field" in capsys.readouterr().err
    assert main([*lance, "--field", "dense"]) == 0
