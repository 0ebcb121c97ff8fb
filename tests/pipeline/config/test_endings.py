"""Warnings of endpoints that end: which field, by when, and how to move it."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.__main__ import main
from pipeline.config.endings import ending_warnings
from pipeline.config.load import load_config

LATER = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()
CONFIG = """
source: {format: jsonl, path: docs.jsonl, id: _id}
mappings:
  properties:
    one: {type: semantic_text, inference_id: ends}
    two: {type: semantic_text, inference_id: .hashing-dense}
endpoints: {path: eps}
table: {path: table}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eps").mkdir()
    body = {
        "task_type": "text_embedding",
        "service": "hashing",
        "service_settings": {"dimensions": 8},
        "metadata": {"heuristics": {"end_of_life_date": LATER}},
    }
    (tmp_path / "eps" / "ends.json").write_text(json.dumps(body))
    (tmp_path / "run.yaml").write_text(CONFIG)
    (tmp_path / "docs.jsonl").write_text('{"_id": "a", "one": "some text", "two": "more text"}\n')
    return tmp_path


def test_the_field_and_the_command_are_named(folder):
    (warning,) = ending_warnings(load_config("run.yaml"))
    assert warning == (
        f"[ends] reaches its end of life on {LATER}, in 30 days; after that requests fail. Move [one] to another"
        " endpoint: `semantic-ingest migrate CONFIG --field one --to ENDPOINT`"
    )
    assert ending_warnings(load_config("run.yaml"), datetime(2000, 1, 1, tzinfo=UTC).date()) == []


def test_commands_warn(folder, capsys, caplog):
    assert main(["check", "run.yaml"]) == 0
    assert f"warning: [ends] reaches its end of life on {LATER}" in capsys.readouterr().err
    assert main(["endpoints", "list", "--path", "eps"]) == 0
    told = capsys.readouterr()
    assert LATER in told.out
    assert "`semantic-ingest migrate run.yaml --field one --to ENDPOINT`" in told.err
    assert main(["run", "run.yaml", "--quiet"]) == 0
    assert "--field one --to ENDPOINT" in capsys.readouterr().err + caplog.text
    definition = json.loads((folder / "eps" / "ends.json").read_text())
    definition["metadata"]["heuristics"]["end_of_life_date"] = "2999-01-01"
    (folder / "eps" / "ends.json").write_text(json.dumps(definition))
    assert main(["run", "run.yaml", "--quiet", "--format", "json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["embedded"] == 0  # what is told of a model changes no row
