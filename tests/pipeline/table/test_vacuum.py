"""Clearing away: old versions, killed runs, and what is not ours to delete."""

import json
import os
import shutil
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.nights import assert_same_rows, document, next_night, output, published

from pipeline.table.log import read_log


@pytest.fixture
def job(tmp_path):
    """A table of 20 documents."""
    return published(tmp_path)


def test_vacuum_removes_old_versions_and_only_them(job, capsys):
    next_night(job)
    rows, kept = job.rows(), read_log(job.table_path).active
    code, planned = output(job, capsys, "--older-than", "0", "--dry-run", command="vacuum")
    assert code == 0
    assert planned["dry_run"]
    assert {one["why"] for one in planned["removed"]} == {"old version"}
    assert job.part_files() > kept, "a dry run deletes nothing"
    assert output(job, capsys, command="vacuum")[1]["removed"] == [], "younger than a week"
    done = output(job, capsys, "--older-than", "0", command="vacuum")[1]
    assert [one["path"] for one in done["removed"]] == [one["path"] for one in planned["removed"]]
    assert (done["bytes"], done["oldest_restorable"]) == (planned["bytes"], 2)
    assert job.part_files() == kept
    assert_same_rows(job.rows(), rows)
    assert job.version() == 2, "vacuum makes no version, so no run is disturbed"
    assert job.run() == 0


def test_vacuum_leaves_a_live_run_alone_and_takes_a_killed_one(job, capsys):
    before = job.part_files()
    job.write([document(number, 1) for number in range(20)])
    gate = job.gate()
    running = job.start(traps=[("pipeline.run.job.collect_changes", "after", 1, gate.action)])
    running.until(lambda: gate.arrived == 1)
    assert len(job.part_files()) >= len(before) + 5
    told = job.json("--older-than", "0", command="vacuum")
    assert told["removed"] == [], "its parts are in no version yet, and it is alive"
    gate.open()
    assert running.wait().code == 0

    assert job.night("--older-than", "0", command="vacuum").code == 0
    kept = job.part_files()
    job.write([document(number, 2) for number in range(20)])
    assert job.killed_at("pipeline.run.publish.commit").code < 0
    assert job.part_files() > kept
    assert job.json(command="verify")["open_runs"] == 1
    assert job.json(command="vacuum")["removed"] == [], "the next run may still take it over"
    told = job.json("--older-than", "0", command="vacuum")
    assert {one["why"] for one in told["removed"]} == {"orphaned part", "killed run"}
    assert job.part_files() == kept
    assert job.open_runs() == []


def test_vacuum_takes_parts_that_nobody_knows_once_they_are_old(job, capsys):
    orphan = f"{job.table_path}/part-20200101T000000-abcdef-0123456789ab.parquet"
    shutil.copy(f"{job.table_path}/{sorted(job.part_files())[0]}", orphan)
    assert output(job, capsys, command="verify")[1]["orphans"] == 1
    assert output(job, capsys, command="vacuum")[1]["removed"] == []
    old = time.time() - 8 * 86_400
    os.utime(orphan, (old, old))
    removed = output(job, capsys, command="vacuum")[1]["removed"]
    assert [(one["path"], one["why"]) for one in removed] == [(os.path.basename(orphan), "orphaned part")]
    assert output(job, capsys, command="verify")[1]["orphans"] == 0


def test_a_process_number_that_is_used_again_keeps_no_killed_run_alive(job):
    """After a reboot the number of a killed run belongs to somebody else."""
    from pipeline.table.open_runs import open_runs

    job.write([document(number, 1) for number in range(20)])
    assert job.killed_at("pipeline.run.publish.commit").code < 0
    marker = f"{job.table_path}/_runs/{job.open_runs()[0]}/run.json"
    with open(marker) as handle:
        values = json.load(handle)
    with open(marker, "w") as handle:
        json.dump({**values, "pid": os.getppid()}, handle)
    assert open_runs(job.table_path)[0].is_dead
    with open(marker, "w") as handle:
        json.dump({**values, "pid": os.getppid(), "process": ""}, handle)
    assert not open_runs(job.table_path)[0].is_dead, (
        "without a start time a living process is taken for the run"
    )


def test_files_beside_the_table_are_left_alone(job, tmp_path):
    """Something else keeps its files in the table's folder; no command touches them."""
    stranger = f"{job.table_path}/notes.parquet"
    pq.write_table(pa.table({"a": [1]}), stranger)
    old = time.time() - 30 * 86_400
    os.utime(stranger, (old, old))
    next_night(job)
    assert job.run("--older-than", "0", command="vacuum") == 0
    assert os.path.exists(stranger)
