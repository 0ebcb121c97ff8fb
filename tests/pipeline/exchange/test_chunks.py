"""The stream of chunks, and the files that it becomes."""

import json
import os
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from support.small_run import SmallRun

from pipeline.__main__ import main
from pipeline.api.loaded_table import load_table
from pipeline.exchange.chunks import Vocabulary, chunk_ids

TEXTS = ["Plain words. And more of them.", "One 😀 two 🦊🦊 three. Four!", "𝒯hird 😀.", "Last one."]


@pytest.fixture
def job(tmp_path: Path) -> SmallRun:
    small = SmallRun(tmp_path)
    small.write(
        [{"_id": f"d{n}", "text": [text, "x"], "title": text, "year": n} for n, text in enumerate(TEXTS)]
    )
    assert small.run() == 0
    return small


def export(job: SmallRun, target: Path, *options: str) -> int:
    return main(["export", "chunks", str(job.config_path), str(target), *options])


def test_offsets_cut_the_text_in_utf16_and_in_code_points(job: SmallRun, tmp_path: Path) -> None:
    target = tmp_path / "dense.parquet"
    assert export(job, target, "--field", "dense", "--column", "year") == 0
    rows = pq.read_table(target).to_pylist()
    sources = {f"d{n}": {"text": f"{text}\nx", "title": text} for n, text in enumerate(TEXTS)}
    assert len(rows) > len(TEXTS)
    differing = 0
    for row in rows:
        text = sources[row["_id"]][row["source_field"]]
        assert text[row["start_code_point"] : row["end_code_point"]] == row["text"]
        cut = text.encode("utf-16-le")[2 * row["start_offset"] : 2 * row["end_offset"]]
        assert cut.decode("utf-16-le") == row["text"]
        assert row["year"] == int(row["_id"][1:])
        differing += (
            row["start_offset"] != row["start_code_point"] or row["end_offset"] != row["end_code_point"]
        )
    assert differing >= 3
    assert len({row["chunk_id"] for row in rows}) == len(rows)
    stored = {
        id_: [chunk["embeddings"] for chunk in row["dense"]["chunks"]] for id_, row in job.rows().items()
    }
    assert [row["embedding"] for row in rows if row["_id"] == "d1"] == stored["d1"]


def test_tokens_have_numbers_and_the_vocabulary_says_which(job: SmallRun, tmp_path: Path) -> None:
    target = tmp_path / "sparse.parquet"
    assert export(job, target, "--field", "sparse") == 0
    tokens = json.loads((tmp_path / "sparse.vocabulary.json").read_text())
    stored = {
        id_: [dict(one["embeddings"]) for one in row["sparse"]["chunks"]] for id_, row in job.rows().items()
    }
    found: dict[str, list[dict[str, float]]] = {}
    for row in pq.read_table(target).to_pylist():
        named = {
            tokens[number]: weight for number, weight in zip(row["token_ids"], row["weights"], strict=True)
        }
        found.setdefault(row["_id"], []).append(named)
    assert found == stored


def test_a_folder_follows_the_table(job: SmallRun, tmp_path: Path) -> None:
    folder = tmp_path / "chunks"
    assert export(job, folder) == 0
    before = json.loads((folder / "sparse" / "vocabulary.json").read_text())
    first = {row["chunk_id"]: row["text"] for row in _rows(folder / "dense")}
    kept = {path.name: path.stat().st_mtime_ns for path in (folder / "dense").glob("*.parquet")}
    job.write(
        [{"_id": f"d{n}", "text": f"{text} New.", "title": text} for n, text in enumerate(TEXTS[1:], 1)]
    )
    assert job.run("--allow-mass-delete") == 0
    assert export(job, folder) == 0
    fresh = tmp_path / "fresh"
    assert export(job, fresh) == 0
    assert sorted(map(str, _rows(folder / "dense"))) == sorted(map(str, _rows(fresh / "dense")))
    after = json.loads((folder / "sparse" / "vocabulary.json").read_text())
    assert after[: len(before)] == before
    assert len(after) > len(before), "the number of a token stays, new ones come behind"
    titles = [row for row in _rows(folder / "dense") if row["source_field"] == "title"]
    assert all(first[row["chunk_id"]] == row["text"] for row in titles if row["start_offset"] == 0)
    assert not (folder / "dense" / ".new").exists()
    # Exported again nothing is written.
    now = {path.name: path.stat().st_mtime_ns for path in (folder / "dense").glob("*.parquet")}
    assert export(job, folder) == 0
    assert (
        {path.name: path.stat().st_mtime_ns for path in (folder / "dense").glob("*.parquet")} == now != kept
    )


def _rows(folder: Path) -> list[dict]:
    return duckdb.sql(f"SELECT * FROM read_parquet('{folder}/*.parquet')").fetch_arrow_table().to_pylist()


def test_a_file_that_was_left_half_written_is_not_seen(job: SmallRun, tmp_path: Path, monkeypatch) -> None:
    replace = os.replace

    def dies(source, target):
        if str(target).endswith(".parquet"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", dies)
    assert export(job, tmp_path / "chunks") != 0
    assert not list((tmp_path / "chunks").rglob("chunks-*.parquet"))


def test_record_batches_come_from_the_api(job: SmallRun) -> None:
    batches = list(load_table(job.table_path).iter_chunks("dense"))
    assert sum(batch.num_rows for batch in batches) == len(load_table(job.table_path).chunks("dense"))
    assert batches[0].schema.field("embedding").type.list_size == 64


def test_wrong_names_are_told(job: SmallRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(job, tmp_path / "x.parquet", "--field", "dens") == 1
    assert "did you mean [dense]?" in capsys.readouterr().err
    assert export(job, tmp_path / "x.parquet") == 1
    assert "choose one of dense, sparse with --field" in capsys.readouterr().err
    assert export(job, tmp_path / "x.parquet", "--field", "dense", "--column", "yeer") == 1
    assert "did you mean [year]?" in capsys.readouterr().err


def test_columns_of_several_values_are_lists(tmp_path: Path) -> None:
    job = SmallRun(tmp_path)
    job.config["mappings"]["properties"] |= {"tags": {"type": "keyword"}, "serial": {"type": "unsigned_long"}}
    job.write(
        [
            {"_id": "a", "text": "One.", "tags": ["red", "blue"], "serial": 2**64 - 1},
            {"_id": "b", "text": "Two.", "tags": "red"},
            {"_id": "c", "text": "Three."},
        ]
    )
    assert job.run() == 0
    assert (
        export(job, tmp_path / "x.parquet", "--field", "dense", "--column", "tags", "--column", "serial") == 0
    )
    found = duckdb.sql(f"SELECT _id, tags, serial FROM '{tmp_path}/x.parquet' ORDER BY _id").fetchall()
    assert found == [("a", ["red", "blue"], 2**64 - 1), ("b", ["red"], None), ("c", None, None)]


def test_a_vocabulary_only_grows() -> None:
    vocabulary = Vocabulary(["a"])
    assert vocabulary.numbers(["b", "a", "b", "c"]).tolist() == [1, 0, 1, 2]
    assert vocabulary.tokens == ["a", "b", "c"]


def test_the_id_of_a_place_never_changes() -> None:
    found = chunk_ids(["d1", "ü🦊", "d1"], "meta.body", [0, 12, 1])
    found.validate(full=True)
    assert found.to_pylist() == [
        "64fd35a7-f390-804b-b0bd-542262334b3a",
        "add1b1b2-7a92-84cf-b4c3-4b992e1b433e",
        "951d6ea3-5a6e-83bd-b9b5-c0a54e6b99cc",
    ]
    assert chunk_ids([], "meta.body", []).to_pylist() == []
