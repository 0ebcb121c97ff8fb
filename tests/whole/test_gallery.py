"""Every run config of the gallery runs: on its own data, services on loopback, and a small model for a large one."""

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import make_encoder
from support.engines import flink_jar
from support.object_store import s3_client, s3_server
from support.paths import ROOT
from support.scripted_service import openai_service, scripted_service

from pipeline import load_table
from pipeline.__main__ import main

CONFIGS = sorted(path.stem for path in (ROOT / "run_configs").glob("*.yaml"))
ELSEWHERE = {
    "quickstart": "tests/whole/test_quickstart.py",
    "nightly": "docs/nightly.md",  # whose commands are run
    "dataflow": "tests/pipeline/runners/test_runners.py",
}
FEW = 12
QUESTION = "How many career sacks did Jared Allen have?"

pytestmark = pytest.mark.slow


def test_every_config_is_run_and_listed() -> None:
    here, page = Path(__file__).read_text(), (ROOT / "docs" / "gallery.md").read_text()
    for name in CONFIGS:
        place = ELSEWHERE.get(name)
        assert f'"{name}"' in here if place is None else f"{name}.yaml" in (ROOT / place).read_text()
        assert f"run_configs/{name}.yaml" in page
    assert len(CONFIGS) >= 10


class Example:
    """A config of the gallery, with its table, index and failures in a folder of the test."""

    def __init__(self, name: str, folder: Path, capsys: pytest.CaptureFixture[str], *changes: str) -> None:
        self.capsys = capsys
        self.config = str(ROOT / "run_configs" / f"{name}.yaml")
        places = [f"{part}.path={folder / part}" for part in ("table", "index", "failures")]
        self.changes = [word for one in (*places, *changes) for word in ("--set", one)]

    def run(self) -> dict[str, Any]:
        """Run it; its summary."""
        return self.answer("run", self.config)

    def best(self, question: str = QUESTION, *options: str) -> str:
        """The id of the best hit."""
        return self.answer("search", self.config, question, *options)["hits"][0]["_id"]

    def answer(self, command: str, *words: str) -> Any:
        """What a command prints as JSON."""
        self.capsys.readouterr()
        code = main([command, *words, *self.changes, "--format", "json"])
        said = self.capsys.readouterr()
        assert code == 0, said.err
        return json.loads(said.out)


def few_lines(folder: Path) -> str:
    """The first paragraphs of the quickstart's corpus, as an override of the source."""
    lines = (ROOT / "data" / "xquad" / "corpus.jsonl").read_text().splitlines(keepends=True)[:FEW]
    (folder / "few.jsonl").write_text("".join(lines))
    return f"source.path={folder / 'few.jsonl'}"


def endpoints_at(folder: Path, url: str) -> str:
    """The gallery's endpoints, with a server on loopback in place of theirs, as an override of their folder."""
    copied = folder / "endpoints"
    shutil.copytree(ROOT / "run_configs" / "endpoints", copied)
    for definition in copied.glob("*.json"):
        text = definition.read_text()
        for theirs in ("http://localhost:8000", "https://localhost:9200"):
            text = text.replace(theirs, url)
        definition.write_text(text)
    return f"endpoints.path={copied}"


def test_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes" / "use").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "chunking.md", tmp_path / "notes")
    shutil.copy(ROOT / "docs" / "nightly.md", tmp_path / "notes" / "use")
    example = Example("notes", tmp_path, capsys, f"source.path={tmp_path / 'notes'}")
    assert example.run()["documents"]["added"] == 2
    assert example.best("how do I stop a run?", "--mode", "dense") == "use/nightly.md"
    assert example.best("how do I stop a run?", "--filter", "path=chunking.md") == "chunking.md"


def test_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lie").mkdir()
    (tmp_path / "lie" / "stop.html").write_text(
        "<title>Stopping</title><p>Ctrl-C ends a run within three seconds."
    )
    (tmp_path / "lie" / "rain.eml").write_text("Subject: Rain\n\nIt rains in the mountains.\n")
    example = Example("documents", tmp_path, capsys, f"source.path={tmp_path / 'lie'}")
    assert example.run()["documents"]["added"] == 2
    assert example.best("how do I stop a run?") == "stop.html"


def test_a_csv_of_pandas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = Example("pandas", tmp_path, capsys)
    documents = example.run()["documents"]
    assert (documents["added"], documents["failed"]) == (120, 0)
    hits = example.answer("search", example.config, "Allen's sacks", "--mode", "dense", "--source")["hits"]
    assert "Jared Allen" in json.dumps(hits[0])


def test_a_service_that_speaks_openais_protocol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDDING_SERVER_KEY", "sk-planted-4711")
    with openai_service() as service:
        changes = few_lines(tmp_path), endpoints_at(tmp_path, service.url)
        example = Example("openai_compatible", tmp_path, capsys, *changes)
        assert example.run()["documents"]["added"] == FEW
        assert example.best(QUESTION, "--mode", "dense") == "d0"


def test_elser_of_a_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELASTIC_API_KEY", "planted-4711")
    with scripted_service() as cluster:
        changes = few_lines(tmp_path), endpoints_at(tmp_path, cluster.url)
        example = Example("cluster_elser", tmp_path, capsys, *changes)
        assert example.run()["documents"]["added"] == FEW
        assert example.best(QUESTION, "--mode", "sparse") == "d0"
        seen = cluster.requests
    assert {request["headers"]["Authorization"] for request in seen} == {"ApiKey planted-4711"}
    assert {request["path"] for request in seen} == {"/_inference/sparse_embedding/.elser-2-elasticsearch"}


def test_a_substitute_for_elser(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = Example("elser_substitute", tmp_path, capsys, few_lines(tmp_path))
    assert "splade-tiny" in json.dumps(example.run())
    assert example.best(QUESTION, "--mode", "sparse") == "d0"


def test_jina_on_a_gpu_by_a_tiny_checkpoint_on_a_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_encoder("qwen3", tmp_path / "model", hidden_size=1024)
    tiny = f"models.jina-embeddings-v5-text-small={{location: {folder}, merged_adapter: retrieval}}"
    example = Example("jina_gpu", tmp_path, capsys, few_lines(tmp_path), tiny, "runner.device=cpu")
    assert example.run()["documents"]["added"] == FEW
    assert load_table(str(tmp_path / "table")).embeddings("semantic").shape[1] == 1024


def test_two_models_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = Example("two_models", tmp_path, capsys, few_lines(tmp_path))
    assert example.run()["documents"]["added"] == FEW
    assert example.best(QUESTION, "--mode", "dense", "--field", "floats") == "d0"
    assert example.best(QUESTION, "--mode", "dense", "--field", "bits") == "d0"


def test_meetings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "few.jsonl").write_text((ROOT / "data/qmsum/corpus.jsonl").read_text().split("\n")[0] + "\n")
    example = Example("meetings", tmp_path, capsys, f"source.path={tmp_path / 'few.jsonl'}")
    assert example.run()["documents"]["added"] == 1


def test_a_database(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/articles.db")
    with sqlite3.connect(tmp_path / "articles.db") as database:
        database.execute(
            "CREATE TABLE articles (id INTEGER, title TEXT, body TEXT, section TEXT, changed TEXT)"
        )
        for row in (
            (1, "Rain", "It rains in the mountains.", "weather", "2026-11-01 10:00:00"),
            (2, "Foxes", "Foxes sleep below old oaks.", "animals", "2026-11-02 11:30:00"),
        ):
            database.execute("INSERT INTO articles VALUES (?, ?, ?, ?, ?)", row)
    example = Example("database", tmp_path, capsys)
    assert example.run()["documents"]["added"] == 2
    assert example.best("wet weather", "--filter", "changed>=2026-11-01") == "1"
    with sqlite3.connect(tmp_path / "articles.db") as database:
        database.execute(
            "UPDATE articles SET body = 'It snows.', changed = '2026-11-03 09:00:00' WHERE id = 1"
        )
    again = example.run()["documents"]
    assert (again["changed"], again["unchanged"]) == (1, 1)


def test_an_object_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few_lines(tmp_path)
    with s3_server(tmp_path) as url:
        client = s3_client(url, monkeypatch)
        client.create_bucket(Bucket="my-bucket")
        client.upload_file(str(tmp_path / "few.jsonl"), "my-bucket", "corpus/few.jsonl")
        table = "table.path=s3://my-bucket/semantic/table", "failures.path=s3://my-bucket/semantic/failures"
        example = Example("object_store", tmp_path, capsys, *table)
        assert example.run()["documents"]["added"] == FEW
        assert example.best(QUESTION, "--mode", "dense") == "d0"
        stored = [one["Key"] for one in client.list_objects_v2(Bucket="my-bucket")["Contents"]]
    assert any(name.startswith("semantic/table/_delta_log/") for name in stored)


@pytest.mark.flink
@pytest.mark.timeout(900)
def test_flink(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = Example("flink", tmp_path, capsys, few_lines(tmp_path), f"runner.job_server_jar={flink_jar()}")
    assert example.run()["documents"]["added"] == FEW
    assert example.best(QUESTION, "--mode", "dense") == "d0"
