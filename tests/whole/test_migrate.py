"""A semantic field moves to another endpoint: side by side, switched, alone; at any time a nightly run may come."""

import json
import re

import pytest
from support.small_run import SmallRun, document

from pipeline.__main__ import main

CHUNKING = {"strategy": "sentence", "max_chunk_size": 30, "sentence_overlap": 0}


@pytest.fixture
def small(tmp_path):
    """A table of eight documents, an endpoint to move to, and queries."""
    small = SmallRun(tmp_path, endpoints={"path": str(tmp_path / "endpoints")})
    body = {"service": "hashing", "service_settings": {"dimensions": 32}}
    put_file = tmp_path / "new.json"
    put_file.write_text(json.dumps(body))
    arguments = ["--file", str(put_file), "--path", str(tmp_path / "endpoints")]
    assert main(["endpoints", "put", "text_embedding/new", *arguments]) == 0
    small.write([document(number) for number in range(8)])
    assert small.run("--quiet") == 0
    return small


def migrate(small, *arguments):
    """One step for the field `dense`; returns the exit code."""
    return small.run("--field", "dense", "--quiet", *arguments, command="migrate")


def begin(small, *arguments):
    """Begin moving `dense` to the other endpoint, with other chunks."""
    return migrate(small, "--to", "new", "--chunking", json.dumps(CHUNKING), *arguments)


def name_new(small):
    """Write the new embedding into the config."""
    field = small.config["mappings"]["properties"]["dense"]
    field |= {"inference_id": "new", "chunking_settings": CHUNKING}


def column(run, name):
    """One column of a table: id -> value."""
    return {id_: row[name] for id_, row in run.rows().items()}


def fields_of(small):
    """The semantic columns of the first row: name -> endpoint and length of its vectors."""
    row = small.rows()["d0"]
    return {
        name: (row[name]["inference_id"], len(row[name]["chunks"][0]["embeddings"]))
        for name in row
        if name.startswith("dense")
    }


def test_the_new_one_comes_beside_the_old_one(small):
    before = column(small, "dense")
    assert begin(small) == 0
    assert fields_of(small) == {"dense": (".hashing-dense", 64), "dense.next": ("new", 32)}
    assert column(small, "dense") == before
    old, new, other = (
        sum(len(one["chunks"]) for one in column(small, name).values())
        for name in ("dense", "dense.next", "sparse")
    )
    assert small.summary["embedded"] == new < old
    assert small.summary["reused"] == old + other


def test_begun_again_it_does_nothing(small):
    assert begin(small) == 0
    version = small.version()
    assert begin(small) == 0
    assert small.version() == version
    assert migrate(small, "--to", ".hashing-sparse") == 1


@pytest.mark.parametrize("switched", [False, True])
def test_a_nightly_run_keeps_both_fresh(small, switched):
    begin(small)
    if switched:
        assert migrate(small, "--switch") == 0
    small.write([document(number, edition=number % 2) for number in range(9)])
    assert small.run("--quiet") == 0
    assert small.summary["documents"]["changed"] == 4
    assert small.summary["documents"]["added"] == 1
    old, new = ("dense.old", "dense") if switched else ("dense", "dense.next")
    fresh = SmallRun(small.folder / "fresh", endpoints=small.config["endpoints"])
    fresh.folder.mkdir()
    fresh.config["source"] = small.config["source"]
    fresh.run("--quiet")
    assert column(small, old) == column(fresh, "dense")
    name_new(fresh)
    fresh.run("--quiet")
    assert column(small, new) == column(fresh, "dense")


def test_the_switch_embeds_nothing_and_the_end_is_that_of_a_fresh_run(small, capsys):
    begin(small)
    rows = small.rows()
    assert migrate(small, "--switch") == 0
    assert small.summary["embedded"] == 0
    assert fields_of(small) == {"dense": ("new", 32), "dense.old": (".hashing-dense", 64)}
    for id_, row in small.rows().items():
        assert row["dense"] == rows[id_]["dense.next"]
        assert row["dense.old"] == rows[id_]["dense"]
    assert begin(small) == 1
    assert "is on its way to [new] already; end that with --drop-old first" in capsys.readouterr().err
    # The config still names the old one: the next run says so, and leaves the table as it is.
    capsys.readouterr()
    assert small.run("--quiet") == 0
    assert "has switched this field to [new]" in capsys.readouterr().err
    assert small.summary["embedded"] == 0
    assert migrate(small, "--drop-old") == 1
    name_new(small)
    assert migrate(small, "--drop-old") == 0
    assert small.summary["embedded"] == 0
    assert small.run("--quiet") == 0
    assert small.summary["documents"]["unchanged"] == 8
    fresh = SmallRun(small.folder / "fresh", endpoints=small.config["endpoints"])
    fresh.folder.mkdir()
    fresh.config |= {"source": small.config["source"], "mappings": small.config["mappings"]}
    fresh.run("--quiet")
    assert small.rows() == fresh.rows()
    assert small.run(command="verify") == 0


def test_it_ends_before_the_switch_too(small):
    rows = small.rows()
    begin(small)
    assert migrate(small, "--drop-old") == 1
    assert migrate(small, "--drop-next") == 0
    assert small.rows() == rows
    assert migrate(small, "--switch") == 1


def test_restore_undoes_it(small):
    rows, version = small.rows(), small.version()
    begin(small)
    migrate(small, "--switch")
    assert small.run(str(version), command="restore") == 0
    assert small.rows() == rows
    assert small.run("--quiet") == 0
    assert small.rows() == rows
    assert small.summary["documents"]["unchanged"] == 8


def test_both_are_searched_and_measured(small, capsys):
    (small.folder / "queries.jsonl").write_text('{"_id": "q", "text": "Edition 0 of document 3 says"}\n')
    (small.folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\td3\t1\n")
    judged = ["--queries", str(small.folder / "queries.jsonl"), "--qrels", str(small.folder / "qrels.tsv")]
    assert begin(small, *judged) == 0
    shown = capsys.readouterr().out
    assert re.search(r"vectors +ndcg@10 +1\.0000", shown)
    assert "bytes in the table" in shown
    for field in ("dense", "dense.next"):
        assert small.run("Number 3", "--mode", "dense", "--field", field, command="search") == 0
        assert "d3" in capsys.readouterr().out
    assert small.run(command="migrate") == 0
    assert "`migrate --switch`" in capsys.readouterr().out


def test_a_third_embedding_is_refused(small, capsys):
    begin(small)
    small.config["mappings"]["properties"]["dense"]["inference_id"] = ".hashing-sparse"
    assert small.run("--quiet") == 2
    assert "is moving this field from [.hashing-dense] to [new]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--to", "nowhere"], "Inference endpoint not found [nowhere]"),
        (["--to", "new", "--switch"], "steps of their own"),
        (["--switch"], "no migration of [dense] was begun"),
        (["--to", ".hashing-dense"], "with these settings already"),
        (["--to", "new", "--chunking", "{"], "not JSON"),
        (["--to", "new", "--chunking", '{"strategy": "wrong"}'], "chunking"),
        (["--chunking", "{}", "--switch"], "go with --to"),
    ],
)
def test_what_cannot_be_is_said(small, capsys, arguments, reason):
    version = small.version()
    assert migrate(small, *arguments) in (1, 2)
    assert reason in capsys.readouterr().err
    assert small.version() == version


def test_an_unknown_field(small, capsys):
    assert small.run("--field", "dens", "--to", "new", command="migrate") == 1
    assert "no semantic_text field [dens]; it has dense, sparse" in capsys.readouterr().err
