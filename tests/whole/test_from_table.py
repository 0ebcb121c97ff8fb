"""A table as the source of another: its documents with other endpoints, without the files they came from."""

from pathlib import Path

import pytest
from deltalake import DeltaTable
from support.small_run import SmallRun, document


@pytest.fixture
def first(tmp_path):
    """A table of eight documents, one of them changed in its second version."""
    first = SmallRun(tmp_path)
    first.write([document(number) for number in range(8)])
    assert first.run("--quiet") == 0
    first.write([document(number, edition=number == 3) for number in range(8)])
    assert first.run("--quiet") == 0
    return first


@pytest.fixture
def second(first):
    """A run that reads the first one's table."""
    folder = first.folder / "second"
    folder.mkdir()
    source = {"format": "table", "path": first.table_path}
    return SmallRun(folder, source=source, mappings=first.config["mappings"])


def test_the_documents_are_the_same(first, second):
    assert second.run(command="check") == 0
    assert second.run("--quiet") == 0
    assert second.rows() == first.rows()
    assert second.run("--quiet") == 0
    assert second.summary["documents"]["unchanged"] == 8


def test_an_older_version(first, second):
    second.config["source"]["version"] = 1
    assert second.run("--quiet") == 0
    assert "Edition 0 of document 3" in second.rows()["d3"]["_source"]
    second.config["source"]["version"] = 99
    assert second.run("--quiet") == 1


def test_only_what_changed_is_embedded_again(first, second):
    second.run("--quiet")
    first.write([document(number, edition=number == 5) for number in range(1, 9)])
    first.run("--quiet", "--allow-mass-delete")
    assert second.run("--quiet") == 0
    counts = {name: count for name, count in second.summary["documents"].items() if count}
    assert counts == {"added": 1, "changed": 2, "unchanged": 5, "deleted": 1}
    assert second.rows() == first.rows()


def test_a_plan_of_it(second, capsys):
    assert second.run("--format", "json", command="plan") == 0
    assert '"added": 8' in capsys.readouterr().out


def test_a_damaged_part_stops_the_run(first, second, capsys):
    part = Path(DeltaTable(first.table_path).file_uris()[0])
    content = bytearray(part.read_bytes())
    content[-20] ^= 1
    part.write_bytes(content)
    assert second.run("--quiet") == 1
    assert "is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ({"id": "title"}, "its `_id`"),
        ({"url": "sqlite:///x"}, "no meaning for format table"),
        ({"path": ["a", "b"]}, "reads one table"),
        ({"version": -1}, "greater than or equal to 0"),
        ({"path": "nowhere"}, "has no table yet"),
    ],
)
def test_what_cannot_be_read_is_said(second, capsys, source, reason):
    second.config["source"] |= source
    assert second.run("--quiet") in (1, 2)
    assert reason in capsys.readouterr().err
