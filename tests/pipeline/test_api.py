"""The public Python API: what it gives equals what the table and the index hold."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars
import pytest
import yaml
from deltalake import DeltaTable
from support.index_table import IndexTable
from support.paths import ROOT
from support.small_run import SmallRun, document

import pipeline
from pipeline import api
from pipeline.api import open_index
from pipeline.api.evaluation import evaluate
from pipeline.api.loaded_table import load_table
from pipeline.errors import PipelineError
from pipeline.search.search import search
from transforms.index.update import update_index

TEXT = "Grüße 😀 aus Köln.\nThe heron walks home.\nplain"


@pytest.fixture
def table(tmp_path: Path) -> IndexTable:
    table = IndexTable(tmp_path / "table")
    table.put(
        *[{"_id": f"d{n}", "text": TEXT if n == 3 else f"first {n}\nsecond {n}", "year": n} for n in range(8)]
    )
    return table


def test_the_public_names_are_these() -> None:
    expected = {
        "EvaluationResult",
        "Frame",
        "LoadedTable",
        "OpenIndex",
        "chunk",
        "embed",
        "evaluate",
        "load_table",
        "open_index",
        "plan",
    }
    assert set(pipeline.__all__) == expected
    assert set(api.__all__) == expected | {"run", "search"}
    assert set(dir(pipeline)) == expected
    assert all(callable(getattr(pipeline, name)) for name in pipeline.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = pipeline.nothing


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = ["numpy", "pyarrow", "torch", "transformers", "tantivy", "apache_beam", "deltalake"]
    code = f"import sys, pipeline; print([name for name in {heavy!r} if name in sys.modules])"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert shown.stdout.strip() == "[]"


def test_a_program_that_uses_us_reads_no_warnings_of_beam(tmp_path) -> None:
    job = SmallRun(tmp_path)
    job.write([document(number) for number in range(3)])
    assert job.run("--quiet") == 0
    job.write([document(number, 1) for number in range(3)])
    code = (
        "import sys; from pipeline.api import plan, run\n"
        "plan(sys.argv[1], calibrate=False); run(sys.argv[1], quiet=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(job.config_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_documents_come_in_every_form(table: IndexTable) -> None:
    frame = load_table(table.path).documents()
    assert len(frame) == 8
    assert sorted(frame.to_pandas()["_id"]) == sorted(frame.to_polars()["_id"]) == [f"d{n}" for n in range(8)]
    assert isinstance(frame.to_polars(), polars.DataFrame)
    assert "text_dense" not in frame.to_arrow().column_names


def test_chunks_have_their_text_and_embeddings(table: IndexTable) -> None:
    loaded = load_table(table.path)
    rows = loaded.chunks("text_dense").to_pylist()
    assert [row["text"] for row in rows if row["_id"] == "d3"] == TEXT.split("\n")
    assert [row["chunk"] for row in rows if row["_id"] == "d3"] == [0, 1, 2]
    embeddings = loaded.embeddings("text_dense")
    assert embeddings.shape == (len(rows), 64)
    assert embeddings[5].tolist() == pytest.approx(rows[5]["embeddings"])
    with pytest.raises(KeyError, match="no semantic field"):
        loaded.chunks("body")


def test_older_versions_can_be_loaded(table: IndexTable) -> None:
    table.put(delete=("d1", "d2"))
    assert (len(load_table(table.path).documents()), len(load_table(table.path, 1).documents())) == (6, 8)
    assert load_table(table.path).version == 2


def test_changes_between_versions(table: IndexTable) -> None:
    table.put({"_id": "d3", "text": "Another text."}, {"_id": "new", "text": "New."}, delete=("d1", "d2"))
    told = {row["_id"]: row["_change_type"] for row in load_table(table.path).changes(1).to_pylist()}
    assert told == {"d3": "update", "new": "insert", "d1": "delete", "d2": "delete"}
    back = {row["_id"]: row["_change_type"] for row in load_table(table.path, 1).changes(2).to_pylist()}
    assert back == {"d3": "update", "new": "delete", "d1": "insert", "d2": "insert"}
    DeltaTable(table.path).optimize.compact()
    assert len(load_table(table.path).changes(2)) == 0, "rows only moved"


def test_changes_since_a_version_that_is_vacuumed_are_a_clear_error(table: IndexTable) -> None:
    (part,) = Path(table.path).glob("part-*.parquet")
    table.put({"_id": "d3", "text": "Another text."})
    part.unlink()
    with pytest.raises(PipelineError, match="was it vacuumed"):
        load_table(table.path).changes(1)


def test_an_open_index_searches(table: IndexTable, tmp_path: Path) -> None:
    path = str(tmp_path / "index")
    update_index(table.path, path)
    index = open_index(path)
    frame = index.search_many(["heron", "second 5"], mode="bm25", k=2)
    assert frame.to_arrow().column_names[:4] == ["query", "rank", "_id", "score"]
    best = frame.to_pandas().query("rank == 1")
    assert best["_id"].tolist() == ["d3", search(path, "second 5", mode="bm25")[0].id]
    assert len(index) == 8
    assert index.search("no such word", mode="bm25").to_pylist() == []


def test_evaluation_by_files_and_by_values(table: IndexTable, tmp_path: Path) -> None:
    path = str(tmp_path / "index")
    update_index(table.path, path)
    (tmp_path / "q.tsv").write_text("q1\theron walks\n")
    (tmp_path / "qrels").write_text("q1 0 d3 1\n")
    by_file = evaluate(path, tmp_path / "q.tsv", tmp_path / "qrels", modes=["bm25"])
    by_value = evaluate(open_index(path), {"q1": "heron walks"}, {"q1": {"d3": 1}}, modes=["bm25"])
    assert by_file.measures().to_pylist() == by_value.measures().to_pylist()
    assert by_file.measures().to_pylist()[0]["ndcg@10"] == 1
    assert np.isclose(by_file.queries().to_pylist()[0]["map"], 1)
    assert by_file.recall_plot().startswith("<svg")


def test_a_job_from_python(tmp_path: Path) -> None:
    job = SmallRun(tmp_path)
    job.write([document(number) for number in range(6)])
    job.config_path.write_text(yaml.safe_dump(job.config))
    assert api.plan(job.config_path)["documents"]["added"] == 6
    assert api.run(job.config_path, "table.part_rows=3", quiet=True).documents["added"] == 6
    found = api.search(job.config["index"]["path"], "Edition of document 3", mode="bm25", k=2).to_pylist()
    assert [hit["rank"] for hit in found] == [1, 2]


def test_chunks_and_embeddings_from_python() -> None:
    chunks = api.chunk("One two. Three four.", {"strategy": "word", "max_chunk_size": 10, "overlap": 0})
    assert chunks.to_pylist() == [{"start_offset": 0, "end_offset": 20, "text": "One two. Three four."}]
    embeddings = api.embed(".hashing-dense", ["one", "two"], "search")
    assert len(embeddings) == 2
