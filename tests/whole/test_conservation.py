"""Every document of a source becomes a row or a failure, a duplicate or a deletion, whatever happened to its bytes."""

import csv
import gzip
import io
import json
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.damage import mutated
from support.text_job import Job

from transforms.read.documents import read_documents
from transforms.read.rows.readers import SourceFormat
from transforms.read.splits import list_source
from transforms.records import Document, Failure

DOCUMENTS = 30


def fields(number: int) -> dict[str, Any]:
    return {"_id": f"d{number}", "text": f'the "text", of\n{number} é', "n": number, "tags": ["a", None, "b"]}


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def elasticdump(rows: list[dict[str, Any]]) -> bytes:
    return jsonl([{"_index": "i", "_id": row.pop("_id"), "_score": 1, "_source": row} for row in rows])


def json_array(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps(rows, indent=1).encode()


def csv_text(rows: list[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["_id", "text", "n", "tags"])
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, row_group_size=7, compression="zstd")
    return out.getvalue()


def text(rows: list[dict[str, Any]]) -> bytes:
    return b"# A title\n\n" + "\n\n".join(row["text"] for row in rows).encode()


def zst(rows: list[dict[str, Any]]) -> bytes:
    return pa.compress(jsonl(rows), "zstd", asbytes=True)


def unpacked(content: bytes) -> bytes:
    return pa.CompressedInputStream(pa.BufferReader(content), "zstd").read()


def count_lines(content: bytes) -> int:
    return sum(bool(line.strip()) for line in content.split(b"\n"))


def count_csv(content: bytes) -> int:
    text = io.StringIO(content.decode("utf-8-sig", "surrogateescape"), newline="")
    reader, count = csv.reader(text, strict=True), -1
    while True:
        try:
            count += bool(next(reader))
        except csv.Error:
            count += 1  # what the reader gives up on ends with its line
        except StopIteration:
            return count


def count_json(content: bytes) -> int:
    try:
        found = json.loads(content)
    except ValueError:
        return content.count(b'"_id"')
    return len(found) if isinstance(found, list) else 1


def count_parquet(content: bytes) -> int:
    return int(pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True).read().num_rows)


FORMATS: dict[str, tuple[str, Callable[[list[dict[str, Any]]], bytes], Callable[[bytes], int]]] = {
    "in.jsonl": ("jsonl", jsonl, count_lines),
    "year=2024/in.jsonl": ("jsonl", jsonl, count_lines),
    "dump.json": ("jsonl", elasticdump, count_lines),
    "in.jsonl.gz": (
        "jsonl",
        lambda rows: gzip.compress(jsonl(rows)),
        lambda data: count_lines(gzip.decompress(data)),
    ),
    "in.jsonl.zst": ("jsonl", zst, lambda data: count_lines(unpacked(data))),
    "in.json": ("json", json_array, count_json),
    "in.csv": ("csv", csv_text, count_csv),
    "in.parquet": ("parquet", parquet, count_parquet),
    "in.txt": ("text", text, lambda data: 1),
    "in.md": ("markdown", text, lambda data: 1),
}
"""Name of a file -> its format, what writes it, and what counts its documents without the reader."""


def write(path: Path, make: Callable[[list[dict[str, Any]]], bytes], seed: int) -> bytes:
    """Write a file whose bytes were changed, unless the seed is 0; returns them."""
    content = make([fields(number) for number in range(DOCUMENTS)])
    content = mutated(content, random.Random(seed)) if seed else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return content


@pytest.mark.parametrize("name", FORMATS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(seed=st.integers(0, 10**9))
def test_a_reader_gives_as_many_documents_and_failures_as_there_are_documents(tmp_path, name, seed):
    format_, make, count = FORMATS[name]
    content = write(tmp_path / name, make, seed)
    id_ = None if format_ in ("text", "markdown") else "_id"
    found = []
    for split in list_source([str(tmp_path / name)], format_, 200).splits:
        for piece in split.pieces:
            found += [
                one for _, one in read_documents(piece, SourceFormat(format_, id_, 10_000)) if one is not None
            ]
    lost = {one.stands_for for one in found if isinstance(one, Failure)}
    assert all(isinstance(one, Document | Failure) for one in found)
    if lost <= {"document"}:
        # A file that cannot be counted is damaged, and then some failure stands for more than a document.
        assert len(found) >= count(content) if format_ == "json" and lost else len(found) == count(content)
    if not seed:
        assert len(found) == (DOCUMENTS if id_ else 1)
        assert not lost


@pytest.mark.parametrize("name", FORMATS)
def test_a_run_accounts_for_every_document(tmp_path, name):
    """Two nights over many damaged files: nothing is lost, nothing is deleted that may be behind damage."""
    format_, make, _ = FORMATS[name]
    folder = tmp_path / "source"
    ids: set[str] = set()
    for night in (1, 2):
        for number in range(12):
            write(
                folder / f"{number}" / name,
                lambda rows, at=number: make(renamed(rows, at)),
                (number * night) % 5,
            )
        job = Job(tmp_path, folder)
        if format_ == "csv":
            job.config["mappings"]["properties"]["n"] = {"type": "keyword"}
        assert job.run("--set", "failures.max_ratio=1", "--allow-mass-delete", format=format_) == 0
        counts, rows = job.summary["documents"], job.rows()
        failures = failures_of(job)
        split = read_again(folder, format_)
        documents = counts["added"] + counts["changed"] + counts["unchanged"]
        assert len(failures) == counts["failed"]
        assert documents + counts["failed"] + counts["duplicates"] == split
        assert len(rows) == documents + counts["held_back"]
        assert set(rows) >= ids if failures else True
        ids = set(rows)
    assert job.run(command="verify") == 0


def failures_of(job: Job) -> list[str]:
    """The lines of a run's failure report."""
    return Path(job.summary["failures_path"] or "/dev/null").read_text().splitlines()


def renamed(rows: list[dict[str, Any]], file: int) -> list[dict[str, Any]]:
    """The rows with ids of a file of their own, but for the last two, which each file has."""
    return [{**row, "_id": f"{row['_id']}-{file}"} for row in rows[:-2]] + rows[-2:]


def read_again(folder: Path, format_: str) -> int:
    """Number of documents and failures that the readers give for a folder."""
    source = SourceFormat(format_, None if format_ in ("text", "markdown") else "_id", 10_000_000)
    splits = list_source([str(folder)], format_, 1 << 20).splits
    return sum(
        one is not None
        for split in splits
        for piece in split.pieces
        for _, one in read_documents(piece, source)
    )


ODD = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.sampled_from(["d1", "d2", 1, 1.0, "1"]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=12)
@given(
    rows=st.lists(st.tuples(ODD, ODD, st.none() | st.sampled_from([0, 1, "true", "no", b"x"])), max_size=12)
)
def test_rows_of_a_database_are_accounted_for(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("sql")
    with sqlite3.connect(folder / "in.db") as connection:
        connection.execute("CREATE TABLE t (_id, text, gone)")
        connection.executemany("INSERT INTO t VALUES (?, ?, ?)", [("first", "one", None), *rows])
    job = Job(folder, "unused")
    job.config["source"] = {"format": "sql", "url": f"sqlite:///{folder}/in.db", "table": "t", "id": "_id"}
    job.config["source"]["deleted"] = "gone"
    assert job.run("--set", "failures.max_ratio=1") == 0
    counts = job.summary["documents"]
    deleted = len(rows) + 1 - counts["failed"] - counts["duplicates"] - len(job.rows())
    assert 0 <= deleted <= sum(gone in (1, "true") for _, _, gone in rows)
    assert counts["added"] == len(job.rows())


@pytest.mark.parametrize("seed", range(6))
def test_a_table_as_a_source_is_accounted_for(tmp_path, capsys, seed):
    """Damage of a part file costs the rest of it, or stops the run; damage of its embeddings costs nothing."""
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "in.jsonl").write_bytes(jsonl([fields(number) for number in range(DOCUMENTS)]))
    made = Job(tmp_path / "made", tmp_path / "made" / "in.jsonl")
    made.config["table"]["part_rows"] = 10
    assert made.run() == 0
    damaged = sorted((made.out / "table").glob("part-*.parquet"))[seed % 3]
    damaged.write_bytes(mutated(damaged.read_bytes(), random.Random(seed)) if seed else damaged.read_bytes())
    job = Job(tmp_path, made.out / "table")
    if job.run("--set", "failures.max_ratio=1", format="table"):
        assert seed
        assert f"the part file {damaged.name} is damaged" in capsys.readouterr().err
        return
    lost = [json.loads(line)["stands_for"] for line in failures_of(job)]
    assert set(lost) <= ({"rest of the file"} if seed else set())
    assert len(job.rows()) == job.summary["documents"]["added"]
    assert DOCUMENTS - 10 * len(lost) <= len(job.rows()) <= DOCUMENTS - bool(lost)
