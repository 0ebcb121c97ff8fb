"""The notebooks run from top to bottom on a small table."""

import csv
import json
import re
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient
from support.paths import ROOT

from pipeline import api

MEETINGS = ROOT / "data" / "qmsum"
DOCUMENTS = 4


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run over some meetings with the hashing models, and the environment that names it."""
    documents = (MEETINGS / "corpus.jsonl").read_text().splitlines()[:DOCUMENTS]
    (tmp_path / "corpus.jsonl").write_text("\n".join(documents) + "\n")
    ids = {json.loads(document)["_id"] for document in documents}
    for name in ("qrels.tsv", "spans.tsv"):
        header, *lines = (MEETINGS / name).read_text().splitlines()
        kept = [line for line in lines if line.split("\t")[1] in ids]
        (tmp_path / name).write_text("\n".join([header, *kept]) + "\n")
    chunking = {"strategy": "sentence", "max_chunk_size": 250, "sentence_overlap": 1}
    semantic = {
        name: {"type": "semantic_text", "inference_id": id_, "chunking_settings": chunking}
        for name, id_ in (("text_sparse", ".hashing-sparse"), ("text_dense", ".hashing-dense"))
    }
    config = {
        "source": {"format": "jsonl", "path": str(tmp_path / "corpus.jsonl")},
        "mappings": {"properties": {"text": {"type": "text", "copy_to": [*semantic]}, **semantic}},
        **{part: {"path": str(tmp_path / part)} for part in ("table", "index", "failures")},
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("CONFIG", str(path))
    monkeypatch.setenv("QUERIES", str(MEETINGS / "queries.jsonl"))
    monkeypatch.setenv("QRELS", str(tmp_path / "qrels.tsv"))
    monkeypatch.setenv("SPANS", str(tmp_path / "spans.tsv"))
    monkeypatch.setenv("SIZES", "60,250")
    monkeypatch.setenv("ENDPOINTS", ".hashing-dense,.hashing-sparse")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    api.run(path, quiet=True)
    return path


def outputs(name: str) -> str:
    """Execute a notebook and return all that it shows."""
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(ROOT)}}).execute()
    shown = json.dumps([cell.get("outputs", []) for cell in notebook.cells])
    assert '"stderr"' not in shown
    return shown


@pytest.mark.slow
def test_evaluate_index(environment: Path) -> None:
    shown = outputs("evaluate_index.ipynb")
    assert f"{DOCUMENTS} documents, table version 1" in shown
    assert shown.count("image/png") == 2
    assert shown.count("image/svg+xml") == 2
    measured = (environment.parent / "chunking.csv").read_text()
    rows = list(csv.DictReader(measured.splitlines()))
    assert len(rows) == 2 * 2 * 4  # sizes, overlaps, modes
    small, large = ([row for row in rows if row["max_chunk_size"] == size] for size in ("60", "250"))
    assert int(small[0]["chunks"]) > 2 * int(large[0]["chunks"])
    for row in rows:
        # A document that comes with the right chunk counts in both, one with another chunk only by document.
        assert 0 < float(row["by answer"]) <= 1
        assert 0 < float(row["answer share"]) <= 1
        assert float(row["by document"]) > 0.5
    by_mode = {
        (row["max_chunk_size"], row["overlap"], row["mode"]): float(row["answer share"]) for row in rows
    }
    assert (
        by_mode["60", "0", "bm25"] > by_mode["250", "0", "bm25"]
    )  # small chunks hold less beside the answer


@pytest.mark.slow
def test_compare_endpoints(environment: Path) -> None:
    shown = outputs("compare_endpoints.ipynb")
    assert ".hashing-sparse" in shown
    assert "nDCG@10 minus .hashing-dense" in shown
    assert shown.count("image/png") == 2


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_stored_with_what_it_shows(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run it from the top"
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.get("name", output.output_type) for output in outputs} <= {
        "stdout",
        "display_data",
        "execute_result",
    }
    assert json.dumps(outputs).count("image/") >= 2
    assert not re.search(r"/(home|root|tmp|work)/", json.dumps(outputs))


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_uses_the_public_names_only(path: Path) -> None:
    source = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    ours = re.findall(r"^(?:from|import) ((?:pipeline|transforms|models)\S*)(?: import (.*))?$", source, re.M)
    assert {module for module, _ in ours} == {"pipeline.api"}
    assert {name for _, names in ours for name in names.split(", ")} <= set(api.__all__)
    assert ".raw" not in source
