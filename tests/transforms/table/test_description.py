"""What a table says about itself, whoever compacts it and whenever a run was killed."""

import json
from dataclasses import replace
from pathlib import Path

from deltalake import DeltaTable
from support.index_table import IndexTable

from pipeline.table.delta import commit_description, describe_table, update_manifest
from transforms.index.snapshot import Snapshot
from transforms.index.update import update_index
from transforms.table.description import DESCRIPTION


def put(path: Path, *numbers: int, chunking: str = "line") -> IndexTable:
    table = IndexTable(path, chunking={"text_dense": chunking})
    table.put(*({"_id": f"d{number}", "text": f"Number {number}.\nMore."} for number in numbers))
    return table


def test_the_description_is_a_property_of_the_table(tmp_path: Path) -> None:
    table = put(tmp_path / "table", 1, 2)
    stated = json.loads(DeltaTable(table.path).metadata().configuration[DESCRIPTION])
    assert stated["mappings"]["properties"]["text_dense"]["type"] == "semantic_text"
    assert stated["fields"]["text_dense"]["model_settings"]["dimensions"] == 64
    assert stated["fields"]["text_dense"]["endpoint"]["inference_id"] == ".hashing-dense"


def test_another_program_may_compact_the_table(tmp_path: Path) -> None:
    table = put(tmp_path / "table", *range(5))
    table.put({"_id": "d9", "text": "Nine."})
    update_index(table.path, str(tmp_path / "index"))
    DeltaTable(table.path).optimize.compact()
    snapshot = Snapshot.of_table(table.path)
    assert len(snapshot.parts) == 1
    report = update_index(table.path, str(tmp_path / "index"))
    assert (report.documents, report.added, report.rebuilt) == (6, 0, "")
    assert update_index(table.path, str(tmp_path / "fresh")).documents == 6


def test_a_run_that_was_killed_before_its_rows_leaves_the_old_description_in_force(tmp_path: Path) -> None:
    """The new description is committed first; until its rows come, the one that fits the rows is told."""
    table = put(tmp_path / "table", 1, 2)
    layout = table.layout()
    told = json.loads(layout.description)
    told["fields"]["text_dense"]["embedding_fingerprint"] = "of another model"
    other = replace(layout, description=json.dumps(told))
    assert commit_description(table.path, DeltaTable(table.path), other) == 2
    fields = describe_table(table.path, DeltaTable(table.path))["fields"]
    assert fields["text_dense"]["embedding_fingerprint"] != "of another model"
    table.layout = lambda: replace(other, fingerprint='{"text_dense":"of another model."}')
    table.put(*({"_id": f"d{number}", "text": "All anew."} for number in (1, 2)))
    fields = describe_table(table.path, DeltaTable(table.path))["fields"]
    assert fields["text_dense"]["embedding_fingerprint"] == "of another model"


def test_a_description_that_stays_is_committed_once(tmp_path: Path) -> None:
    table = put(tmp_path / "table", 1)
    assert table.version == 1
    assert commit_description(table.path, DeltaTable(table.path), table.layout()) == 1
    put(tmp_path / "table", 2)
    assert table.version == 2
    put(tmp_path / "table", 3, chunking="none")
    assert table.version == 4


def test_the_manifest_names_the_files_that_count(tmp_path: Path) -> None:
    table = put(tmp_path / "table", 1, 2)
    manifest = tmp_path / "table" / "_symlink_format_manifest" / "manifest"
    for change in ({"_id": "d3", "text": "Three."}, {"_id": "d1", "text": "One."}):
        table.put(change)
        update_manifest(table.path)
        assert set(manifest.read_text().split()) == set(DeltaTable(table.path).file_uris())
