"""Damage of every kind is found."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.nights import next_night, output, published

from pipeline.table.log import read_log


@pytest.fixture
def job(tmp_path):
    """A table of 20 documents."""
    return published(tmp_path)


def rewrite(job, change):
    """Damage a part file behind the log's back; returns its name."""
    name = sorted(read_log(job.table_path).active)[0]
    path = f"{job.table_path}/{name}"
    table = pq.read_table(path)
    pq.write_table(change(table), path)
    return name


def replaced(table, column, value):
    """A table whose first row has another value in a column."""
    values = table.column(column).to_pylist()
    values[0] = value(values[0])
    place = table.schema.get_field_index(column)
    return table.set_column(
        place, table.schema.field(column), pa.array(values, table.schema.field(column).type)
    )


def chunk_damage(**changes):
    """Change the first chunk of a semantic value."""

    def change(value):
        return {**value, "chunks": [{**value["chunks"][0], **changes}, *value["chunks"][1:]]}

    return change


DAMAGE = {
    "hash": lambda table: replaced(table, "_source", lambda text: text.replace("Title", "Tilte")),
    "offsets": lambda table: replaced(table, "dense", chunk_damage(end_offset=9_999)),
    "embedding": lambda table: replaced(table, "dense", chunk_damage(embeddings=[float("nan")] * 64)),
    "rows": lambda table: table.slice(1),
    "duplicate": lambda table: pa.concat_tables([table, table.slice(0, 1)]),
    "fingerprint": lambda table: replaced(table, "fingerprint", lambda _: "{}"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_verify_finds_damage(job, capsys, kind):
    assert output(job, capsys, command="verify")[1] == {
        "ok": True,
        "table_version": 1,
        "parts": 5,
        "rows": 20,
        "chunks": sum(
            len(row["dense"]["chunks"]) + len(row["sparse"]["chunks"]) for row in job.rows().values()
        ),
        "other_fingerprints": 0,
        "orphans": 0,
        "open_runs": 0,
        "index_version": 1,
        "problems": [],
    }
    name = rewrite(job, DAMAGE[kind])
    code, found = output(job, capsys, command="verify")
    assert code == 1
    assert (kind, name if kind != "duplicate" else "table") in {
        (one["kind"], one["where"]) for one in found["problems"]
    }
    assert "size" in {one["kind"] for one in found["problems"]}
    assert job.run(command="verify") == 1
    assert kind in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "detail"),
    [
        ({"embeddings": [0.5] * 3}, "an embedding has 3 numbers; the model's have 64"),
        ({"embeddings": None}, "a chunk has no embedding"),
        ({"start_offset": -1}, "chunk -1.."),
    ],
)
def test_verify_says_what_is_wrong_with_a_chunk(job, capsys, damage, detail):
    rewrite(job, lambda table: replaced(table, "dense", chunk_damage(**damage)))
    problems = output(job, capsys, command="verify")[1]["problems"]
    assert any(detail in one["detail"] and "[d" in one["detail"] for one in problems), problems


def test_verify_finds_a_sparse_weight_that_is_not_positive(job, capsys):
    damage = chunk_damage(embeddings=[("fox", 0.5), ("dog", -1.0)])
    rewrite(job, lambda table: replaced(table, "sparse", damage))
    problems = output(job, capsys, command="verify")[1]["problems"]
    assert [one["kind"] for one in problems].count("embedding") == 1


def test_verify_finds_missing_and_broken_files(job, capsys):
    names = sorted(read_log(job.table_path).active)
    os.unlink(f"{job.table_path}/{names[0]}")
    with open(f"{job.table_path}/{names[1]}", "r+b") as handle:
        handle.truncate(200)
    code, found = output(job, capsys, command="verify")
    assert code == 1
    assert {(one["kind"], one["where"]) for one in found["problems"]} >= {
        ("missing", names[0]),
        ("size", names[1]),
        ("unreadable", names[1]),
    }


def test_verify_finds_an_index_that_lags_behind(job, capsys):
    index = job.config.pop("index")
    next_night(job)
    job.config["index"] = index
    code, found = output(job, capsys, command="verify")
    assert code == 1
    assert {one["kind"] for one in found["problems"]} == {"index"}
    assert job.run() == 0
    assert output(job, capsys, command="verify")[0] == 0


def test_verify_counts_rows_of_an_older_mapping_without_blame(job, capsys):
    job.config["mappings"]["properties"]["dense"]["chunking_settings"]["max_chunk_size"] = 30
    code, found = output(job, capsys, command="verify")
    assert code == 0
    assert found["other_fingerprints"] == 20
