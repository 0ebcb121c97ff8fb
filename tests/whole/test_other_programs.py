"""Tables that other Delta Lake programs have changed: what they leave behind is worked with, or told in a sentence."""

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Field
from support.text_job import SEMANTIC, Job, lines

DOCUMENTS = [{"_id": f"d{number}", "text": f"one {number}", "n": number} for number in range(6)]
IDS = [document["_id"] for document in DOCUMENTS]


def published(folder: Path) -> Job:
    """A table of three part files with a dense and a sparse field, a plain column and a list."""
    job = Job(folder, lines(folder / "in.jsonl", *DOCUMENTS), n={"type": "integer"}, tags={"type": "keyword"})
    job.config["table"] |= {"part_rows": 2, "lists": ["tags"]}
    job.config["mappings"]["properties"] |= {
        "text": {"type": "text", "copy_to": ["sem", "sparse"]},
        "sparse": {**SEMANTIC, "inference_id": ".hashing-sparse"},
    }
    assert job.run() == 0
    return job


def merge(table: DeltaTable, **row: str) -> Any:
    source = pa.table({name: [value] for name, value in row.items()})
    return table.merge(source, "t._id = s._id", source_alias="s", target_alias="t")


def vacuum(table: DeltaTable) -> None:
    table.optimize.compact()
    table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)


def new_column(table: DeltaTable) -> None:
    table.alter.add_columns([Field("owner", "string")])
    DeltaTable(table.table_uri).update(updates={"owner": "'somebody'"})


HARMLESS: dict[str, Callable[[DeltaTable], Any]] = {
    "checkpoint": DeltaTable.create_checkpoint,
    "compact": lambda table: table.optimize.compact(),
    "z_order": lambda table: table.optimize.z_order(["_id", "n"]),
    "vacuum": vacuum,
    "delete": lambda table: table.delete("_id = 'd1' OR _id = 'd2'"),
    "update": lambda table: table.update(updates={"run_id": "'theirs'"}, predicate="n > 2"),
    "merge": lambda table: merge(table, _id="d4").when_matched_delete().execute(),
    "new column": new_column,
}


@pytest.mark.parametrize("operation", HARMLESS)
def test_a_table_that_another_program_changed_goes_on(tmp_path, capsys, operation):
    job = published(tmp_path)
    before = job.rows()
    HARMLESS[operation](job.table)
    left = sorted({"delete": {"d0", "d3", "d4", "d5"}, "merge": set(IDS) - {"d4"}}.get(operation, IDS))
    # Until the index is told, it is all that lags behind.
    capsys.readouterr()
    job.run(command="verify")
    assert {line.partition(":")[0] for line in capsys.readouterr().out.splitlines()[1:-1]} <= {"index"}
    for command in ("index", "verify", "history"):
        assert job.run(command=command) == 0, capsys.readouterr()
    assert job.ids({"match_all": {}}) == left
    # A run brings back what is gone, and copies the rows that stay beside one that changed.
    lines(tmp_path / "in.jsonl", *DOCUMENTS[:-1], {"_id": "d5", "text": "six"})
    for command in ("run", "verify", "index", "history"):
        assert job.run(command=command) == 0, capsys.readouterr()
    assert job.summary["documents"]["unchanged"] == len(set(left) - {"d5"})
    assert job.ids({"match_all": {}}) == IDS
    rows = job.rows()
    for name in IDS[:-1]:
        for column in ("_source", "content_hash", "n", "tags", "sem", "sparse"):
            assert rows[name][column] == before[name][column]


WRONG: dict[str, tuple[Callable[[DeltaTable], Any], str]] = {
    "column": (
        lambda table: table.update(updates={"n": "n + 100"}, predicate="_id = 'd1'"),
        "[d1] n is not the value that its _source holds",
    ),
    "hash": (
        lambda table: table.update(updates={"_source": "'{}'"}, predicate="_id = 'd1'"),
        "[d1] has content_hash",
    ),
    "rows": (
        lambda table: merge(table, _id="x").when_not_matched_insert({"_id": "s._id"}).execute(),
        "1 rows without _id or _source or content_hash or fingerprint",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_rows_that_another_program_made_wrong_are_found_and_mended(tmp_path, capsys, kind):
    job = published(tmp_path)
    operation, told = WRONG[kind]
    operation(job.table)
    assert job.run(command="verify") == 1
    assert told in capsys.readouterr().out
    assert job.run("--repair", command="verify") == 0
    assert job.ids({"match_all": {}}) == IDS
    assert [row["n"] for _, row in sorted(job.rows().items())] == list(range(6))


def test_rows_of_another_program_are_not_published_beside_ours(tmp_path, capsys):
    job = published(tmp_path)
    merge(job.table, _id="x").when_not_matched_insert({"_id": "s._id"}).execute()
    assert job.run(command="index") == 1
    assert "another program wrote rows without [content_hash, fingerprint]" in capsys.readouterr().err
    assert job.run(sync="incremental") == 1
    assert "part files of the table are damaged" in capsys.readouterr().err
    assert job.run(sync="full") == 0
    assert sorted(job.rows()) == IDS


def test_rows_deleted_by_deletion_vectors_do_not_come_back(tmp_path, capsys):
    job = published(tmp_path)
    path, version = job.table.table_uri.removeprefix("file://"), job.table.version()
    log = (Path(path) / "_delta_log" / f"{version:020}.json").read_text().splitlines()
    add = next(action["add"] for action in map(json.loads, log) if "add" in action)
    features = ["deletionVectors"]
    actions = [
        {
            "protocol": {
                "minReaderVersion": 3,
                "minWriterVersion": 7,
                "readerFeatures": features,
                "writerFeatures": features,
            }
        },
        {"remove": {"path": add["path"], "deletionTimestamp": 1, "dataChange": True}},
        {"add": {**add, "deletionVector": deletion_vector([1])}},
    ]
    commit = Path(path) / "_delta_log" / f"{version + 1:020}.json"
    commit.write_text("".join(json.dumps(action) + "\n" for action in actions))
    for command in ("run", "index", "verify"):
        assert job.run(command=command) == 1
        told = capsys.readouterr()
        assert "deleted rows with deletion vectors" in told.err + told.out
        assert "Traceback" not in told.err


def deletion_vector(rows: list[int]) -> dict[str, Any]:
    """Rows of a file as an inline deletion vector: a Roaring bitmap in Z85 (Delta Lake's protocol, 2024)."""
    head = struct.pack("<IQIIIHHI", 1681511377, 1, 0, 12346, 1, 0, len(rows) - 1, 16)
    data = head + struct.pack(f"<{len(rows)}H", *rows)
    data += bytes(-len(data) % 4)
    z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    b85 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
    text = base64.b85encode(data).decode().translate(str.maketrans(b85, z85))
    return {
        "storageType": "i",
        "pathOrInlineDv": text,
        "sizeInBytes": len(data),
        "cardinality": len(rows),
    }
