"""Chunks that are embedded within their document: what is stored, what is made anew, and what is refused."""

import copy
import json

import numpy as np
import pytest
from support.nights import NightRun
from support.small_run import SENTENCES, SmallRun

from models.endpoints.preconfigured import preconfigured
from models.late_chunking import late_chunking
from models.open_model import open_model
from pipeline.__main__ import main
from pipeline.table.migrations import read_migrations
from transforms.chunk.groups import group_chunks

CHUNKING = {"strategy": "sentence", "max_chunk_size": 20, "sentence_overlap": 0}
PROPERTIES = {
    "text": {"type": "text", "copy_to": "dense"},
    "dense": {
        "type": "semantic_text",
        "inference_id": ".minilm-l6-v2",
        "chunking_settings": CHUNKING,
        "late_chunking": True,
    },
}


def document(number: int, sentences: int = 120) -> dict:
    """A document of many windows, whose sentences have as many words each."""
    lines = [f"{SENTENCES[place % 5]} It is number {place} of {number}." for place in range(sentences)]
    return {"_id": f"d{number}", "text": " ".join(lines)}


def edited(number: int, place: int) -> dict:
    """The document with one word of a sentence exchanged for a longer one."""
    text = document(number)["text"].replace(f"is number {place} of", f"was number {place} of")
    assert text != document(number)["text"]
    return {"_id": f"d{number}", "text": text}


def late_run(kind: type[SmallRun], folder) -> SmallRun:
    folder.mkdir(exist_ok=True)
    return kind(folder, mappings={"properties": copy.deepcopy(PROPERTIES)})


@pytest.fixture
def small(tmp_path):
    """A published table of two long documents and a short one."""
    small = late_run(SmallRun, tmp_path)
    small.write([document(0), document(1), document(2, sentences=1)])
    assert small.run("--quiet") == 0
    return small


def places(row: dict) -> list[tuple[str, int, int]]:
    return [
        (chunk["source_field"], chunk["start_offset"], chunk["end_offset"])
        for chunk in row["dense"]["chunks"]
    ]


def vectors(row: dict) -> np.ndarray:
    return np.array([chunk["embeddings"] for chunk in row["dense"]["chunks"]])


def groups_of(row: dict):
    late = late_chunking(open_model(preconfigured(".minilm-l6-v2")))
    return group_chunks(late, [(json.loads(row["_source"]), places(row))])[0]


def test_the_table_holds_what_the_model_makes_of_each_window(small):
    embedder = open_model(preconfigured(".minilm-l6-v2")).load("cpu")
    for row in small.rows().values():
        groups = groups_of(row)
        expected = embedder.embed_spans([group.text for group in groups], [group.spans for group in groups])
        np.testing.assert_allclose(vectors(row), expected.values, atol=1e-6)
    assert len(groups_of(small.rows()["d0"])) > 5
    (chunk,) = small.rows()["d2"]["dense"]["chunks"]
    alone = embedder.embed([document(2, sentences=1)["text"]], "ingest").values
    np.testing.assert_allclose([chunk["embeddings"]], alone, atol=1e-6)


def test_one_sentence_embeds_its_group_alone_and_nothing_is_stale(small, tmp_path):
    before = small.rows()
    small.write([edited(0, 60), document(1), document(2, sentences=1)])
    assert small.run("--quiet") == 0
    after = small.rows()["d0"]
    assert len(places(after)) == len(places(before["d0"]))  # those behind it begin a character later
    sizes = [
        len(new.spans)
        for new, old in zip(groups_of(after), groups_of(before["d0"]), strict=True)
        if new != old
    ]
    assert len(sizes) == 1
    assert (small.summary["embedded"], small.summary["reused"]) == (sizes[0], len(places(after)) - sizes[0])
    assert small.summary["tokens"] <= 256
    changed = np.abs(vectors(after) - vectors(before["d0"])).max(1) > 1e-6
    assert changed.sum() == sizes[0]
    scratch = late_run(SmallRun, tmp_path / "scratch")
    scratch.corpus.write_bytes(small.corpus.read_bytes())
    assert scratch.run("--quiet") == 0
    for id_, row in scratch.rows().items():
        assert places(small.rows()[id_]) == places(row)
        np.testing.assert_allclose(vectors(small.rows()[id_]), vectors(row), atol=1e-6)


def test_a_changed_neighbour_is_not_stale(small):
    """The text of the second chunk stays, and its surroundings do not."""
    before = vectors(small.rows()["d0"])
    small.write([edited(0, 0), document(1), document(2, sentences=1)])
    assert small.run("--quiet") == 0
    after = vectors(small.rows()["d0"])
    assert np.abs(after[1] - before[1]).max() > 1e-5


def test_a_document_that_only_moves_is_reused_whole(small):
    rows = small.rows()
    small.write([{**document(0), "title": "another field"}, document(1), document(2, sentences=1)])
    assert small.run("--quiet") == 0
    assert (small.summary["embedded"], small.summary["reused"]) == (0, len(places(rows["d0"])))
    np.testing.assert_array_equal(vectors(small.rows()["d0"]), vectors(rows["d0"]))


def test_switching_it_embeds_all_again(small):
    small.config["mappings"]["properties"]["dense"] = {**PROPERTIES["dense"], "late_chunking": False}
    before = small.rows()
    assert small.run("--quiet") == 0
    assert small.summary["embedded"] == sum(len(places(row)) for row in before.values())
    assert np.abs(vectors(small.rows()["d0"]) - vectors(before["d0"])).max() > 0.01


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_table(tmp_path):
    documents = [document(number) for number in range(6)]
    killed, whole = (late_run(NightRun, tmp_path / name) for name in ("killed", "whole"))
    for run in (killed, whole):
        run.config["table"]["part_rows"] = 2
        run.write(documents)
    assert killed.killed_at("pipeline.run.job.collect_changes").code < 0
    assert killed.run("--quiet") == whole.run("--quiet") == 0
    assert killed.summary["embedded"] < whole.summary["embedded"]
    for id_, row in whole.rows().items():
        assert places(killed.rows()[id_]) == places(row)
        np.testing.assert_allclose(vectors(killed.rows()[id_]), vectors(row), atol=1e-6)


def test_it_is_searched_verified_and_planned(small, capsys):
    assert small.run("a ship sails across the sea", "--mode", "dense", command="search") == 0
    assert "d0" in capsys.readouterr().out
    assert small.run("--rows", command="verify") == 0
    capsys.readouterr()
    small.write([edited(0, 60), document(1), document(2, sentences=1), document(3)])
    assert small.run("--format", "json", command="plan") == 0
    planned = json.loads(capsys.readouterr().out)
    assert small.run("--quiet") == 0
    assert planned["tokens"] == small.summary["tokens"]
    assert planned["truncated"] == 0


def test_a_migration_brings_and_takes_it(small):
    to = ["--field", "dense", "--to", ".minilm-l6-v2", "--quiet"]
    assert small.run(*to, "--no-late-chunking", command="migrate") == 0
    row = small.rows()["d0"]
    alone = np.array([chunk["embeddings"] for chunk in row["dense.next"]["chunks"]])
    assert np.abs(alone - vectors(row)).max() > 0.01
    assert small.run("--field", "dense", "--drop-next", "--quiet", command="migrate") == 0
    assert (
        small.run(*to, "--chunking", json.dumps({**CHUNKING, "max_chunk_size": 40}), command="migrate") == 0
    )
    assert small.summary["embedded"] > 0


def test_a_header_takes_its_place(small, capsys):
    to = ["--field", "dense", "--to", ".minilm-l6-v2", "--quiet", "--context", "{text}: "]
    assert small.run(*to, "--late-chunking", command="migrate") == 1
    assert "--context and --late-chunking exclude each other" in capsys.readouterr().err
    assert small.run(*to, command="migrate") == 0
    assert small.run("--switch", "--field", "dense", "--quiet", command="migrate") == 0
    migration = read_migrations(small.table_path)["dense"]
    assert (migration.before.late_chunking, migration.after.late_chunking) == (True, False)


def test_a_cluster_is_not_told_of_it(small):
    folder = small.folder / "bulk"
    arguments = [str(small.config_path), str(folder), "--profile", "semantic_text", "--quiet"]
    assert main(["export", "elasticsearch", *arguments]) == 0
    sent = json.loads((folder / "index.json").read_text())["mappings"]["properties"]["dense"]
    assert "late_chunking" not in sent


@pytest.mark.parametrize(
    ("field", "change", "reason"),
    [
        (
            "dense",
            {"inference_id": ".splade-tiny"},
            "of [.splade-tiny] the embeddings are sparse. Leave it out",
        ),
        (
            "dense",
            {"inference_id": ".hashing-dense"},
            "mappings.properties.dense: [late_chunking] needs the vectors",
        ),
        ("dense", {"context": "{text}: "}, "[context] and [late_chunking] exclude each other"),
        ("text", {"late_chunking": True}, "belong to type [semantic_text]"),
    ],
)
def test_where_it_cannot_be_is_said(tmp_path, capsys, field, change, reason):
    small = late_run(SmallRun, tmp_path)
    properties = {name: {**settings} for name, settings in PROPERTIES.items()}
    properties[field].update(change)
    small.config["mappings"] = {"properties": properties}
    small.write([document(0, sentences=2)])
    assert small.run("--quiet") == 2
    assert reason in capsys.readouterr().err
