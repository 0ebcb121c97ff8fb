"""The command in a user's own folder."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.paths import ROOT

from pipeline.errors import did_you_mean

COMMAND = Path(sys.executable).with_name("semantic-ingest")


def start(folder, *arguments):
    return subprocess.run([COMMAND, *arguments], cwd=folder, capture_output=True, text=True)


def test_the_version():
    done = start(ROOT, "--version")
    assert done.returncode == 0
    assert done.stdout.startswith("semantic-ingest ")


def test_it_works_beside_a_pipeline_and_models_of_ones_own(tmp_path):
    """Also in the worker processes, which are started in the same folder."""
    (tmp_path / "pipeline.py").write_text("raise SystemExit('not this one')")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("raise SystemExit('nor this one')")
    config = {
        "source": {"format": "jsonl", "path": str(ROOT / "data/xquad/corpus.jsonl"), "split_bytes": 65_536},
        "mappings": {
            "properties": {
                "text": {"type": "text", "copy_to": ["dense"]},
                "dense": {"type": "semantic_text", "inference_id": ".hashing-dense"},
            }
        },
        "table": {"path": "table"},
        "failures": {"path": "failures"},
        "runner": {"workers": 2},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    done = start(tmp_path, "run", "run.yaml", "--quiet")
    assert done.returncode == 0, done.stderr
    assert "240 added" in done.stdout


ENDPOINTS = [".minilm-l6-v2", ".splade-tiny", ".hashing-dense", ".hashing-sparse"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("minilm", ".minilm-l6-v2"),
        ("splade", ".splade-tiny"),
        (".hashing-dens", ".hashing-dense"),
        ("hashing", ".hashing-dense] or [.hashing-sparse"),
        ("nothing-like-it", None),
        ("", None),
    ],
)
def test_did_you_mean(word, meant):
    assert did_you_mean(word, ENDPOINTS) == (f"; did you mean [{meant}]?" if meant else "")


def test_a_run_says_what_it_did_and_nothing_else(tmp_path):
    """No warnings of libraries, no padded lines; both files that tell more are named."""
    lines = "".join(f'{{"_id": "d{n}", "text": "The red fox jumps over dog {n}."}}\n' for n in range(20))
    (tmp_path / "corpus.jsonl").write_text(lines)
    assert start(tmp_path, "init", "corpus.jsonl", "-o", "run.yaml").returncode == 0
    config = (tmp_path / "run.yaml").read_text().replace(".minilm-l6-v2", ".hashing-dense")
    (tmp_path / "run.yaml").write_text(config)
    done = start(tmp_path, "run", "run.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "out/corpus/report.html, out/corpus/run.json" in done.stdout
    assert [line for line in done.stdout.splitlines() if line != line.rstrip()] == []
    assert done.stdout.startswith("documents ")
