"""Tables that are not ours, sources that go away, missing rights, full disks: a clear error, and nothing changed."""

import json
import os
import subprocess

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from support.nights import NightRun, assert_same_rows, document, ordinary_user, published

from transforms.table.description import DESCRIPTION


@pytest.fixture
def job(tmp_path):
    """A table of 20 documents."""
    return published(tmp_path)


def snapshot(folder):
    """Every file below a folder with its content, the report of the run aside."""
    return {
        os.path.join(root, name): (
            os.stat(os.path.join(root, name)).st_mtime_ns,
            os.path.getsize(os.path.join(root, name)),
        )
        for root, _, names in os.walk(folder)
        for name in names
        if name not in ("run.json", "report.html", "runs.jsonl", "run.yaml")
        and not name.startswith("output-")
        and name != ".lock"
    }


def refuses(job, capfd, sentence, command="run"):
    """Assert that a run ends with 1 and a sentence, without a traceback, and changes nothing."""
    before = snapshot(job.folder)
    capfd.readouterr()
    assert job.run(command=command) == 1
    errors = capfd.readouterr().err
    assert sentence in errors, errors
    assert "Traceback" not in errors
    assert snapshot(job.folder) == before


def test_a_table_of_another_program_is_left_alone(tmp_path, capfd):
    job = NightRun(tmp_path)
    job.write([document(1)])
    write_deltalake(job.table_path, pa.table({"sku": ["a"], "price": [1.5]}))
    for command in ("run", "history", "vacuum", "verify"):
        refuses(job, capfd, "holds a Delta table of another program: it has no column _id", command)


def test_a_table_of_a_newer_format_is_left_alone(job, capfd):
    table = DeltaTable(job.table_path)
    description = json.loads(table.metadata().configuration[DESCRIPTION])
    newer = {DESCRIPTION: json.dumps({**description, "format": 99})}
    table.alter.set_table_properties(newer, raise_if_not_exists=False)
    refuses(job, capfd, "has format 99, written by a newer semantic-ingest")


def test_a_table_of_a_newer_delta_lake_is_left_alone(job, capfd):
    protocol = {"minReaderVersion": 99, "minWriterVersion": 99}
    with open(f"{job.table_path}/_delta_log/{2:020d}.json", "w") as handle:
        handle.write(json.dumps({"protocol": protocol}) + "\n")
    refuses(job, capfd, "newer version of Delta Lake")


def test_a_damaged_log_is_left_alone(job, capfd):
    with open(f"{job.table_path}/_delta_log/{2:020d}.json", "w") as handle:
        handle.write("{not json")
    refuses(job, capfd, "cannot be read")


@pytest.mark.parametrize("kind", ["file", "folder", "glob"])
def test_a_source_that_is_not_mounted_is_an_error_not_a_deletion(job, capfd, kind):
    mount = job.folder / "mount"
    mount.mkdir()
    job.config["source"]["path"] = {
        "file": str(mount / "corpus.jsonl"),
        "folder": str(mount),
        "glob": str(mount / "*.jsonl"),
    }[kind]
    refuses(job, capfd, "matches no jsonl file")


def test_a_mount_that_goes_away_between_scan_and_embedding_fails_the_run(job):
    rows = job.rows()
    job.write([document(number, 1) for number in range(20)])
    gate = job.gate()
    running = job.start(traps=[("pipeline.run.job.write_work", "after", 1, gate.action)])
    running.until(lambda: gate.arrived == 1)
    os.rename(job.corpus, f"{job.corpus}.away")
    gate.open()
    outcome = running.wait()
    assert outcome.code == 1
    assert "Traceback" not in outcome.output, outcome
    assert "corpus.jsonl" in outcome.output
    assert_same_rows(job.rows(), rows)


def test_a_source_that_changes_during_the_run_costs_what_changed(job):
    """Lines that are not what was planned fail and are tried again; what is in their place waits for its own night."""
    job.write([document(number, 1) for number in range(20)])
    gate = job.gate()
    running = job.start(traps=[("pipeline.run.job.write_work", "after", 1, gate.action)])
    running.until(lambda: gate.arrived == 1)
    job.write([document(number, 2 if number == 3 else 1) for number in range(15)])
    gate.open()
    outcome = running.wait()
    assert outcome.code == 0, outcome
    assert job.summary["documents"]["failed"] == 6
    rows = job.rows()
    assert "Edition 0" in rows["d3"]["_source"], "the old row stays"
    assert "Edition 0" in rows["d19"]["_source"]
    assert "Edition 1" in rows["d2"]["_source"]
    assert job.night("--allow-mass-delete").code == 0
    assert sorted(job.rows()) == sorted(f"d{number}" for number in range(15))
    assert "Edition 2" in job.rows()["d3"]["_source"]


@pytest.mark.parametrize("what", ["source", "table", "log"])
def test_a_missing_right_is_a_clear_error(job, what):
    """As another user, for root may do anything; where the tests do not run as root, the mode alone is enough."""
    user = ordinary_user() if os.getuid() == 0 else None
    for root, folders, _ in os.walk(job.folder):
        for folder in folders:
            os.chmod(os.path.join(root, folder), 0o777)
    for place in (job.folder, *job.folder.parents):
        if "pytest-" in place.name or "pytest-" in str(place.parent):
            os.chmod(place, 0o777)
    job.write([document(number, 1) for number in range(20)])
    rows, version = job.rows(), job.version()
    target = {"source": job.corpus, "table": job.table_path, "log": f"{job.table_path}/_delta_log"}[what]
    os.chmod(target, 0o000 if what == "source" else 0o555)
    outcome = job.night(user=user)
    os.chmod(target, 0o777)
    assert outcome.code == 1, outcome
    assert "Traceback" not in outcome.output, outcome
    assert "ermission denied" in outcome.output, outcome
    assert_same_rows(job.rows(), rows)
    assert job.version() == version
    assert job.night().code == 0
    assert "Edition 1" in job.rows()["d0"]["_source"]


def test_what_may_only_be_read_is_searched_and_verified(job):
    """Table and index belong to the nightly job; somebody else looks."""
    assert job.night(command="index").code == 0
    user = ordinary_user() if os.getuid() == 0 else None
    for place in (job.folder, *job.folder.parents):
        if "pytest-" in place.name or "pytest-" in str(place.parent):
            os.chmod(place, 0o755)
    folders = [root for top in ("table", "index") for root, _, _ in os.walk(job.folder / top)]
    for folder in folders:
        os.chmod(folder, 0o555)
    config = str(job.config_path)
    commands = (
        ["search", config, "Edition of document 3"],
        ["index", config, "--verify"],
        ["verify", config],
    )
    outcomes = [job.start_command(argv, user=user).wait() for argv in commands]
    written = job.start_command(["index", config, "--rebuild"], user=user).wait()
    for folder in folders:
        os.chmod(folder, 0o755)
    assert [outcome.code for outcome in outcomes] == [0, 0, 0], outcomes
    assert "d3" in outcomes[0].output
    assert "everything holds" in outcomes[2].output
    assert written.code == 1
    assert "ermission denied" in written.output
    assert "Traceback" not in written.output


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of its own of 400 kB where the system lets us mount one; else an ordinary folder."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        os.getuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], capture_output=True
        ).returncode
    )
    yield folder, mounted
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("what", ["table", "index"])
def test_a_full_disk_is_a_clear_error_and_costs_nothing(tmp_path, small_disk, what):
    disk, mounted = small_disk
    job = NightRun(tmp_path)
    job.config["table"] = {"path": str(disk / "table"), "part_rows": 50}
    if what == "index":
        job.config |= {"table": {"path": str(tmp_path / "table")}, "index": {"path": str(disk / "index")}}
    job.write([document(number) for number in range(10)])
    assert job.night().code == 0
    rows = job.rows()
    job.write([document(number) for number in range(1_500)])
    # Where no disk can be mounted a limit on the size of files stands in for it.
    outcome = job.night(file_bytes=None if mounted else 40_000)
    assert outcome.code == 1, outcome
    assert "Traceback" not in outcome.output, outcome
    assert any(words in outcome.output for words in ("No space left", "File too large", "os error")), outcome
    if what == "table":
        assert_same_rows(job.rows(), rows)
        job.config["index"]["path"] = str(tmp_path / "index")
    else:
        job.config["index"]["path"] = str(tmp_path / "other-index")
    job.write([document(number) for number in range(12)])
    # The finished parts of the run that failed are kept for the next one; this gives their room back.
    assert job.night("--older-than", "0", command="vacuum").code == 0
    assert job.night("--allow-mass-delete").code == 0
    assert len(job.rows()) == 12
    verified = job.json(command="verify")
    assert verified["ok"], verified
