"""Chunks that are embedded below a header: only the model sees it, and only a changed header embeds again."""

import json

import numpy as np
import pytest
from support.small_run import SmallRun, document

from models.endpoints.preconfigured import preconfigured
from models.open_model import open_model
from models.text import Utf16Text
from pipeline.__main__ import main

CONTEXT = "{name} > {section}\n"


def markdown(number, name="Handbook"):
    """A document with two sections."""
    sentences = document(number)["text"]
    return {"_id": f"d{number}", "name": name, "text": f"# Intro\n\n{sentences}\n\n## Details\n\n{sentences}"}


@pytest.fixture
def small(tmp_path):
    """A published table of four documents whose chunks have headers."""
    chunking = {"strategy": "sentence", "max_chunk_size": 20, "sentence_overlap": 0}
    dense = {"type": "semantic_text", "inference_id": ".hashing-dense", "chunking_settings": chunking}
    properties = {
        "name": {"type": "keyword"},
        "text": {"type": "text", "copy_to": "dense"},
        "dense": {**dense, "context": CONTEXT},
    }
    small = SmallRun(tmp_path, mappings={"properties": properties})
    small.write([markdown(number) for number in range(4)])
    assert small.run("--quiet") == 0
    return small


def test_the_model_sees_the_header_and_the_table_does_not(small):
    row = small.rows()["d1"]
    text = Utf16Text(json.loads(row["_source"])["text"])
    chunks = row["dense"]["chunks"]
    shown = [text.slice(chunk["start_offset"], chunk["end_offset"]) for chunk in chunks]
    headers = ["Handbook\n", *["Handbook > Intro\n"] * (len(chunks) - 1)]
    details = next(at for at, one in enumerate(shown) if "## Details" in one)
    headers[details + 1 :] = ["Handbook > Intro > Details\n"] * (len(chunks) - details - 1)
    embedder = open_model(preconfigured(".hashing-dense"), {}).load(None)
    inputs = [header + one for header, one in zip(headers, shown, strict=True)]
    stored = np.array([chunk["embeddings"] for chunk in chunks])
    assert np.allclose(stored, embedder.embed(inputs, "ingest").values)
    assert not np.allclose(stored, embedder.embed(shown, "ingest").values)


def test_only_a_changed_header_embeds_again(small):
    chunks = {id_: len(row["dense"]["chunks"]) for id_, row in small.rows().items()}
    small.write([markdown(0, name="Manual"), *(markdown(number) for number in range(1, 4))])
    assert small.run("--quiet") == 0
    assert (small.summary["embedded"], small.summary["reused"]) == (chunks["d0"], 0)
    # A heading that changes is a header that changes for what is below it.
    changed = markdown(1)
    changed["text"] = changed["text"].replace("## Details", "## Particulars")
    small.write([markdown(0, name="Manual"), changed, markdown(2), markdown(3)])
    assert small.run("--quiet") == 0
    assert 0 < small.summary["embedded"] < chunks["d1"]
    assert small.summary["reused"] == chunks["d1"] - small.summary["embedded"]


def test_it_is_searched_and_verified(small, capsys):
    assert small.run("Edition 0 of document 2", "--mode", "dense", command="search") == 0
    assert "d2" in capsys.readouterr().out
    assert small.run("--rows", command="verify") == 0


def test_another_template_embeds_all_again(small):
    total = sum(len(row["dense"]["chunks"]) for row in small.rows().values())
    small.config["mappings"]["properties"]["dense"]["context"] = "{name}: "
    assert small.run("--quiet") == 0
    assert small.summary["embedded"] == total


def test_the_plan_counts_headers(small, capsys):
    capsys.readouterr()
    tokens = []
    for context in (CONTEXT, None):
        small.config["mappings"]["properties"]["dense"]["context"] = context
        small.config["table"]["path"] = str(small.folder / "other")
        assert small.run("--format", "json", command="plan") == 0
        tokens.append(json.loads(capsys.readouterr().out)["tokens"])
    assert tokens[0] > tokens[1]


def test_a_migration_brings_a_header(small):
    arguments = ["--field", "dense", "--to", ".hashing-dense", "--context", "{name}: ", "--quiet"]
    assert small.run(*arguments, command="migrate") == 0
    row = small.rows()["d0"]
    assert len(row["dense"]["chunks"]) == len(row["dense.next"]["chunks"])
    assert row["dense"]["chunks"][-1]["embeddings"] != row["dense.next"]["chunks"][-1]["embeddings"]


def test_a_cluster_is_not_told_of_it(small):
    folder = small.folder / "bulk"
    arguments = [str(small.config_path), str(folder), "--profile", "semantic_text", "--quiet"]
    assert main(["export", "elasticsearch", *arguments]) == 0
    assert "context" not in json.loads((folder / "index.json").read_text())["mappings"]["properties"]["dense"]


@pytest.mark.parametrize(
    ("field", "context", "reason"),
    [
        ("dense", "{nam}: ", "context [{nam}], which is not a field of the mapping; did you mean [name]"),
        ("dense", "{name", "stands alone"),
        ("text", "{name}", "belong to type [semantic_text]"),
    ],
)
def test_a_wrong_template_is_named(small, capsys, field, context, reason):
    small.config["mappings"]["properties"][field]["context"] = context
    assert small.run("--quiet") == 2
    assert reason in capsys.readouterr().err
