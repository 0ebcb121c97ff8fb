"""The notebooks run from top to bottom on a small table."""

import json
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

from pipeline.config import load_config
from pipeline.run import run_pipeline

ROOT = Path(__file__).parent.parent
XQUAD = ROOT / "data" / "xquad"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run over 40 paragraphs with the hashing models, and the environment that names it."""
    documents = (XQUAD / "corpus.jsonl").read_text().splitlines()[:40]
    (tmp_path / "corpus.jsonl").write_text("\n".join(documents) + "\n")
    ids = {json.loads(document)["_id"] for document in documents}
    header, *judgements = (XQUAD / "qrels.tsv").read_text().splitlines()
    kept = [line for line in judgements if line.split("\t")[1] in ids]
    (tmp_path / "qrels.tsv").write_text("\n".join([header, *kept]) + "\n")
    spans = [
        f"{query}\t{document}\t0\t100000" for query, document, _ in (line.split("\t") for line in kept[:20])
    ]
    (tmp_path / "spans.tsv").write_text("\n".join(["query-id\tcorpus-id\tstart\tend", *spans]) + "\n")
    chunking = {"strategy": "sentence", "max_chunk_size": 60, "sentence_overlap": 1}
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
    monkeypatch.setenv("QUERIES", str(XQUAD / "queries.jsonl"))
    monkeypatch.setenv("QRELS", str(tmp_path / "qrels.tsv"))
    monkeypatch.setenv("SPANS", str(tmp_path / "spans.tsv"))
    monkeypatch.setenv("SIZES", "20,60")
    monkeypatch.setenv("ENDPOINTS", ".hashing-dense,.hashing-sparse")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run_pipeline(load_config(str(path)), quiet=True)
    return path


def outputs(name: str) -> str:
    """Execute a notebook and return all that it shows."""
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(ROOT)}}).execute()
    return json.dumps([cell.get("outputs", []) for cell in notebook.cells])


@pytest.mark.slow
def test_evaluate_index(environment: Path) -> None:
    shown = outputs("evaluate_index.ipynb")
    assert "40 documents, table version 0" in shown
    assert shown.count("image/png") == 2
    assert shown.count("image/svg+xml") == 2
    assert "meets answer" not in shown or "max_chunk_size" in shown


@pytest.mark.slow
def test_compare_endpoints(environment: Path) -> None:
    shown = outputs("compare_endpoints.ipynb")
    assert ".hashing-sparse" in shown
    assert "nDCG@10 less .hashing-dense" in shown


def test_notebooks_are_stored_without_outputs() -> None:
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")], path.name
