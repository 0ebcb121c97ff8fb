"""Source, table and failures on S3: a real server on loopback, credentials from the environment."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from support.known_documents import WRITERS, known_document, zipped
from support.object_store import s3_client, s3_server
from support.small_run import SmallRun, document

from pipeline.config.load import load_config
from pipeline.config.resolve import resolve
from pipeline.errors import PipelineError
from pipeline.table.delta import commit, open_table
from transforms import files
from transforms.records import PartFile
from transforms.table.schema import TableLayout

BUCKET = "acme"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 server in a process of its own."""
    with s3_server(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the server; the environment points everything else there, too."""
    client = s3_client(endpoint, monkeypatch)
    client.create_bucket(Bucket=BUCKET)
    yield client
    for entry in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=entry["Key"])
    client.delete_bucket(Bucket=BUCKET)


def keys(s3: Any, prefix: str = "") -> list[str]:
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])]


class S3Run(SmallRun):
    """A small run whose source, table and failures are in the bucket; its index is local."""

    def __init__(self, folder: Path, s3: Any) -> None:
        super().__init__(folder)
        self.s3 = s3
        self.config["source"] |= {"path": f"s3://{BUCKET}/in/", "split_bytes": 2_000, "max_delete_ratio": 0.5}
        self.config["table"]["path"] = f"s3://{BUCKET}/table"
        self.config["failures"]["path"] = f"s3://{BUCKET}/failures"

    def write(self, documents: list[Any]) -> None:
        """Replace the corpus in the bucket."""
        super().write(documents)
        self.s3.upload_file(str(self.corpus), BUCKET, "in/corpus.jsonl")

    def rows(self) -> dict[str, dict[str, Any]]:
        """The table's rows, read by the Delta library."""
        rows = (
            DeltaTable(self.table_path).to_pyarrow_table().drop_columns(["run_id", "ingested_at"]).to_pylist()
        )
        return {row["_id"]: row for row in rows}


def test_a_first_and_an_incremental_run_give_the_same_table_as_on_disk(tmp_path: Path, s3: Any) -> None:
    (tmp_path / "s3").mkdir()
    (tmp_path / "disk").mkdir()
    remote, local = S3Run(tmp_path / "s3", s3), SmallRun(tmp_path / "disk")
    local.config["source"] |= {"split_bytes": 2_000, "max_delete_ratio": 0.5}
    for documents in (
        [document(number) for number in range(12)] + [b'{"_id": "broken"'],
        [document(number, edition=int(number == 3)) for number in range(2, 14)],
    ):
        for small in (remote, local):
            small.write(documents)
            assert small.run() == 0
        assert remote.rows() == local.rows()
    assert remote.version() == 2
    assert len(keys(s3, "failures/")) == 1
    report = s3.get_object(Bucket=BUCKET, Key=keys(s3, "failures/")[0])["Body"].read()
    assert [(one["path"], one["line"]) for one in map(json.loads, report.splitlines())] == [
        (f"s3://{BUCKET}/in/corpus.jsonl", 13)
    ]
    assert keys(s3, "table/_runs/") == []


def test_the_index_catches_up_from_the_bucket(
    tmp_path: Path, s3: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    small = S3Run(tmp_path, s3)
    small.write([document(number) for number in range(5)])
    assert small.run() == 0
    capsys.readouterr()
    assert small.run("Edition of document 3", "--mode", "bm25", "--format", "json", command="search") == 0
    assert json.loads(capsys.readouterr().out)["hits"]


def test_documents_and_archives_in_the_bucket_are_those_of_a_folder(
    tmp_path: Path, s3: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {
        f"in/deep/{seed}.{ending}": WRITERS[ending][1](known_document(seed))
        for seed, ending in enumerate(("pdf", "docx", "html", "md"))
    }
    packed = [("inside/page.html", known["in/deep/2.html"]), ("notes.txt", b"Some plain words.")]
    (tmp_path / "disk" / "in" / "deep").mkdir(parents=True)
    (tmp_path / "s3").mkdir()
    remote, local = S3Run(tmp_path / "s3", s3), SmallRun(tmp_path / "disk")
    local.config["source"]["path"] = str(tmp_path / "disk" / "in")
    for small in (remote, local):
        small.config["source"]["format"] = "files"
        small.config["source"]["max_delete_ratio"] = 0.5
    for members, removed in ((packed, None), (packed[1:], "in/deep/0.pdf")):
        for name, content in {**known, "in/more.zip": zipped(*members)}.items():
            s3.put_object(Bucket=BUCKET, Key=name, Body=content)
            (tmp_path / "disk" / name).write_bytes(content)
        if removed:
            s3.delete_object(Bucket=BUCKET, Key=removed)
            (tmp_path / "disk" / removed).unlink()
        for small in (remote, local):
            assert small.run() == 0
        assert remote.rows() == local.rows()
    assert sorted(remote.rows()) == ["deep/1.docx", "deep/2.html", "deep/3.md", "more.zip/notes.txt"]
    assert json.loads(remote.rows()["deep/1.docx"]["_source"])["title"] == known_document(1).title
    told = capsys.readouterr().out
    assert told.count("4 unchanged, 2 deleted") == 2
    assert told.count("extracted") == 2, "what did not change was not extracted again"


def test_a_writer_that_fails_leaves_nothing(s3: Any) -> None:
    path = f"s3://{BUCKET}/half"

    def fail() -> None:
        with files.create(path) as handle:
            handle.write(b"half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert keys(s3) == []
    with files.create(path) as handle:
        handle.write(b"whole")
    with files.open_read(path) as handle:
        assert handle.read() == b"whole"


def test_of_two_commits_on_the_same_version_one_wins(tmp_path: Path, s3: Any) -> None:
    """The put of a version's file is conditional, so the other run is told and its rows are not mixed in."""
    small = S3Run(tmp_path, s3)
    small.write([document(number) for number in range(4)])
    assert small.run() == 0
    layout = resolve(load_config(str(small.config_path), [])).layout
    bases = [open_table(small.table_path) for _ in range(6)]
    told: list[str] = []

    def attempt(number: int) -> int | None:
        part = PartFile(f"part-attempt-{number}.parquet", 10, 1, "a", "b", {})
        try:
            return commit(small.table_path, bases[number], layout, [part], [], {"n": number})
        except PipelineError as error:
            told.append(str(error))
            return None

    with ThreadPoolExecutor(len(bases)) as pool:
        versions = list(pool.map(attempt, range(len(bases))))
    assert sorted(versions, key=str) == [2] + [None] * (len(bases) - 1)
    assert all("another run has changed the table" in one for one in told)
    assert small.version() == 2


def test_of_two_first_commits_one_wins(tmp_path: Path, s3: Any) -> None:
    path = f"s3://{BUCKET}/fresh"
    layout = TableLayout({}, (), "{}", "{}")

    def attempt(number: int) -> int | None:
        try:
            return commit(
                path, None, layout, [PartFile(f"part-{number}.parquet", 10, 1, "a", "b", {})], [], {}
            )
        except PipelineError:
            return None

    with ThreadPoolExecutor(4) as pool:
        versions = list(pool.map(attempt, range(4)))
    assert sorted(versions, key=str) == [1, None, None, None]


def test_a_bucket_that_does_not_exist_is_one_sentence(
    tmp_path: Path, s3: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    small = S3Run(tmp_path, s3)
    small.write([document(0)])
    small.config["table"]["path"] = "s3://nobody/table"
    assert small.run() == 1
    error = capsys.readouterr().err
    assert "s3://nobody/table" in error
    assert "Traceback" not in error
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in error
