"""The table's versions: listed, restored, and read from the log."""

import os

import numpy as np
import pytest
from deltalake import DeltaTable
from support.nights import NightRun, assert_same_rows, next_night, output, published

from pipeline.table.log import read_log


@pytest.fixture
def job(tmp_path):
    """A table of 20 documents."""
    return published(tmp_path)


def test_history_tells_what_each_run_did(job, capsys):
    next_night(job)
    code, told = output(job, capsys, command="history")
    assert code == 0
    newest, oldest, described = told["versions"]
    assert (described["version"], described["operation"], described["rows"]) == (0, "describe", 0)
    assert (oldest["version"], oldest["operation"], oldest["added"], oldest["rows"]) == (1, "run", 20, 20)
    assert (newest["added"], newest["changed"], newest["deleted"], newest["rows"]) == (2, 4, 1, 21)
    assert newest["run_id"] == job.summary["run_id"]
    assert newest["restorable"]
    assert oldest["restorable"]
    assert len(output(job, capsys, "--limit", "1", command="history")[1]["versions"]) == 1
    assert job.run(command="history") == 0
    assert job.summary["run_id"][:15] in capsys.readouterr().out


def test_restore_brings_the_rows_and_the_index_back(job, capsys):
    before = job.rows()
    next_night(job)
    after = job.rows()
    code, told = output(job, capsys, "1", command="restore")
    assert (code, told) == (0, {"restored": 1, "table_version": 3, "rows": 20, "index_version": 3})
    assert_same_rows(job.rows(), before)
    assert output(job, capsys, command="verify")[1]["ok"]
    assert output(job, capsys, "--limit", "1", command="history")[1]["versions"][0]["restored"] == 1
    # The source is still that of the second night, so the next run leads there again.
    assert job.run() == 0
    assert (job.summary["documents"]["added"], job.summary["documents"]["changed"]) == (2, 4)
    assert_same_rows(job.rows(), after)
    assert job.run() == 0
    assert job.version() == 4


def test_restore_across_a_change_of_the_mapping(job):
    before = job.rows()
    job.config["mappings"]["properties"]["extra"] = {"type": "keyword"}
    assert job.run() == 0
    assert "extra" in job.table().column_names
    assert job.run("1", command="restore") == 0
    assert_same_rows(job.rows(), before)
    assert job.run() == 0
    assert "extra" in job.table().column_names
    assert len(job.rows()) == 20


def test_restore_of_the_newest_version_changes_nothing(job, capsys):
    assert output(job, capsys, "1", command="restore")[1]["table_version"] == 1


def test_what_cannot_be_restored_is_said_and_changes_nothing(job, capsys):
    next_night(job)
    assert job.run("7", command="restore") == 1
    assert "has no version 7 to go back to; it has 0 to 2" in capsys.readouterr().err
    assert job.run("--older-than", "0", command="vacuum") == 0
    capsys.readouterr()
    assert job.run("1", command="restore") == 1
    assert "part files have been vacuumed" in capsys.readouterr().err
    assert job.version() == 2
    versions = output(job, capsys, command="history")[1]["versions"]
    assert [version["restorable"] for version in versions] == [True, False, True]


def test_restore_waits_for_no_run_that_holds_the_lock(job, capsys):
    from pipeline.table.open_runs import table_lock

    next_night(job)
    with table_lock(job.table_path):
        assert job.run("1", command="restore") == 1
    assert "in progress" in capsys.readouterr().err
    assert job.version() == 2


def test_commands_without_a_table_say_so(tmp_path, capsys):
    job = NightRun(tmp_path)
    for command in ("history", "vacuum", "verify"):
        assert job.run(command=command) == 1
        assert "has no table yet; `run` makes it" in capsys.readouterr().err


def test_the_log_is_read_through_a_checkpoint(job, capsys):
    next_night(job)
    table = DeltaTable(job.table_path)
    table.create_checkpoint()
    os.unlink(f"{job.table_path}/_delta_log/{0:020d}.json")
    next_night(job, edition=2)
    log = read_log(job.table_path)
    assert log.active == {os.path.basename(path) for path in DeltaTable(job.table_path).file_uris()}
    assert log.rows(3) == len(job.rows())
    assert output(job, capsys, command="history")[0] == 0
    assert output(job, capsys, command="verify")[1]["ok"]
    assert job.run("2", command="restore") == 0


def test_the_table_log_agrees_with_delta_lake(job):
    for edition in range(1, 4):
        next_night(job, edition)
    log = read_log(job.table_path)
    assert sorted(log.versions) == list(range(5))
    for version, parts in log.versions.items():
        table = DeltaTable(job.table_path, version=version)
        assert parts == {os.path.basename(path) for path in table.file_uris()}
        assert log.rows(version) == table.to_pyarrow_table(columns=["_id"]).num_rows
    assert np.all([entry.size > 0 for entry in log.parts.values()])
