"""History, restore, vacuum and verify; tables that are not ours, full disks, sources that are not there."""

import json
import os
import shutil
import subprocess
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from support.nights import NightRun, assert_same_rows, document, ordinary_user

from pipeline.table.log import read_log
from transforms.table.schema import METADATA_KEY


@pytest.fixture
def job(tmp_path):
    """A table of 20 documents."""
    job = NightRun(tmp_path)
    job.write([document(number) for number in range(20)])
    assert job.run() == 0
    return job


def next_night(job, edition=1):
    """Change some documents, delete one, add two."""
    numbers = range(edition, 20 + 2 * edition)
    job.write([document(number, edition if number % 4 == 0 else 0) for number in numbers])
    assert job.run() == 0


def output(job, capsys, *arguments, command):
    """Run a command that prints JSON; returns exit code and JSON."""
    capsys.readouterr()
    code = job.run(*arguments, "--format", "json", command=command)
    return code, json.loads(capsys.readouterr().out)


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


# history and restore


def test_history_tells_what_each_run_did(job, capsys):
    next_night(job)
    code, told = output(job, capsys, command="history")
    assert code == 0
    newest, oldest = told["versions"]
    assert (oldest["version"], oldest["operation"], oldest["added"], oldest["rows"]) == (0, "run", 20, 20)
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
    code, told = output(job, capsys, "0", command="restore")
    assert (code, told) == (0, {"restored": 0, "table_version": 2, "rows": 20, "index_version": 2})
    assert_same_rows(job.rows(), before)
    assert output(job, capsys, command="verify")[1]["ok"]
    assert output(job, capsys, "--limit", "1", command="history")[1]["versions"][0]["restored"] == 0
    # The source is still that of the second night, so the next run leads there again.
    assert job.run() == 0
    assert (job.summary["documents"]["added"], job.summary["documents"]["changed"]) == (2, 4)
    assert_same_rows(job.rows(), after)
    assert job.run() == 0
    assert job.version() == 3


def test_restore_across_a_change_of_the_mapping(job):
    before = job.rows()
    job.config["mappings"]["properties"]["extra"] = {"type": "keyword"}
    assert job.run() == 0
    assert "extra" in job.table().column_names
    assert job.run("0", command="restore") == 0
    assert_same_rows(job.rows(), before)
    assert job.run() == 0
    assert "extra" in job.table().column_names
    assert len(job.rows()) == 20


def test_restore_of_the_newest_version_changes_nothing(job, capsys):
    assert output(job, capsys, "0", command="restore")[1]["table_version"] == 0


def test_what_cannot_be_restored_is_said_and_changes_nothing(job, capsys):
    next_night(job)
    assert job.run("7", command="restore") == 1
    assert "has no version 7 to go back to; it has 0 to 1" in capsys.readouterr().err
    assert job.run("--older-than", "0", command="vacuum") == 0
    capsys.readouterr()
    assert job.run("0", command="restore") == 1
    assert "part files have been vacuumed" in capsys.readouterr().err
    assert job.version() == 1
    versions = output(job, capsys, command="history")[1]["versions"]
    assert [version["restorable"] for version in versions] == [True, False]


def test_restore_waits_for_no_run_that_holds_the_lock(job, capsys):
    from pipeline.table.open_runs import table_lock

    next_night(job)
    with table_lock(job.table_path):
        assert job.run("0", command="restore") == 1
    assert "in progress" in capsys.readouterr().err
    assert job.version() == 1


def test_commands_without_a_table_say_so(tmp_path, capsys):
    job = NightRun(tmp_path)
    for command in ("history", "vacuum", "verify"):
        assert job.run(command=command) == 1
        assert "has no table yet; `run` makes it" in capsys.readouterr().err


# vacuum


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
    assert (done["bytes"], done["oldest_restorable"]) == (planned["bytes"], 1)
    assert job.part_files() == kept
    assert_same_rows(job.rows(), rows)
    assert job.version() == 1, "vacuum makes no version, so no run is disturbed"
    assert job.run() == 0


def test_vacuum_leaves_a_live_run_alone_and_takes_a_killed_one(job, capsys):
    before = job.part_files()
    job.write([document(number, 1) for number in range(20)])
    gate = job.gate()
    running = job.start(traps=[("pipeline.run.publish.commit", "before", 1, gate.action)])
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


def test_the_log_is_read_through_a_checkpoint(job, capsys):
    next_night(job)
    table = DeltaTable(job.table_path)
    table.create_checkpoint()
    os.unlink(f"{job.table_path}/_delta_log/{0:020d}.json")
    next_night(job, edition=2)
    log = read_log(job.table_path)
    assert log.active == {os.path.basename(path) for path in DeltaTable(job.table_path).file_uris()}
    assert log.rows(2) == len(job.rows())
    assert output(job, capsys, command="history")[0] == 0
    assert output(job, capsys, command="verify")[1]["ok"]
    assert job.run("1", command="restore") == 0


# verify


def rewrite(job, change):
    """Damage a part file behind the log's back; returns its name."""
    name = sorted(read_log(job.table_path).active)[0]
    path = f"{job.table_path}/{name}"
    table = pq.read_table(path)
    pq.write_table(change(table), path)
    return name


def replaced(table, column, value):
    """A table whose first row has another value in a column."""
    values = table.column(column).to_pylist()
    values[0] = value(values[0])
    place = table.schema.get_field_index(column)
    return table.set_column(
        place, table.schema.field(column), pa.array(values, table.schema.field(column).type)
    )


def chunk_damage(**changes):
    """Change the first chunk of a semantic value."""

    def change(value):
        return {**value, "chunks": [{**value["chunks"][0], **changes}, *value["chunks"][1:]]}

    return change


DAMAGE = {
    "hash": lambda table: replaced(table, "_source", lambda text: text.replace("Title", "Tilte")),
    "offsets": lambda table: replaced(table, "dense", chunk_damage(end_offset=9_999)),
    "embedding": lambda table: replaced(table, "dense", chunk_damage(embeddings=[float("nan")] * 64)),
    "rows": lambda table: table.slice(1),
    "duplicate": lambda table: pa.concat_tables([table, table.slice(0, 1)]),
    "fingerprint": lambda table: replaced(table, "fingerprint", lambda _: "{}"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_verify_finds_damage(job, capsys, kind):
    assert output(job, capsys, command="verify")[1] == {
        "ok": True,
        "table_version": 0,
        "parts": 5,
        "rows": 20,
        "chunks": sum(
            len(row["dense"]["chunks"]) + len(row["sparse"]["chunks"]) for row in job.rows().values()
        ),
        "other_fingerprints": 0,
        "orphans": 0,
        "open_runs": 0,
        "index_version": 0,
        "problems": [],
    }
    name = rewrite(job, DAMAGE[kind])
    code, found = output(job, capsys, command="verify")
    assert code == 1
    assert (kind, name if kind != "duplicate" else "table") in {
        (one["kind"], one["where"]) for one in found["problems"]
    }
    assert "size" in {one["kind"] for one in found["problems"]}
    assert job.run(command="verify") == 1
    assert kind in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "detail"),
    [
        ({"embeddings": [0.5] * 3}, "an embedding has 3 numbers; the model's have 64"),
        ({"embeddings": None}, "a chunk has no embedding"),
        ({"start_offset": -1}, "chunk -1.."),
    ],
)
def test_verify_says_what_is_wrong_with_a_chunk(job, capsys, damage, detail):
    rewrite(job, lambda table: replaced(table, "dense", chunk_damage(**damage)))
    problems = output(job, capsys, command="verify")[1]["problems"]
    assert any(detail in one["detail"] and "[d" in one["detail"] for one in problems), problems


def test_verify_finds_a_sparse_weight_that_is_not_positive(job, capsys):
    damage = chunk_damage(embeddings=[("fox", 0.5), ("dog", -1.0)])
    rewrite(job, lambda table: replaced(table, "sparse", damage))
    problems = output(job, capsys, command="verify")[1]["problems"]
    assert [one["kind"] for one in problems].count("embedding") == 1


def test_verify_finds_missing_and_broken_files(job, capsys):
    names = sorted(read_log(job.table_path).active)
    os.unlink(f"{job.table_path}/{names[0]}")
    with open(f"{job.table_path}/{names[1]}", "r+b") as handle:
        handle.truncate(200)
    code, found = output(job, capsys, command="verify")
    assert code == 1
    assert {(one["kind"], one["where"]) for one in found["problems"]} >= {
        ("missing", names[0]),
        ("size", names[1]),
        ("unreadable", names[1]),
    }


def test_verify_finds_an_index_that_lags_behind(job, capsys):
    index = job.config.pop("index")
    next_night(job)
    job.config["index"] = index
    code, found = output(job, capsys, command="verify")
    assert code == 1
    assert {one["kind"] for one in found["problems"]} == {"index"}
    assert job.run() == 0
    assert output(job, capsys, command="verify")[0] == 0


def test_verify_counts_rows_of_an_older_mapping_without_blame(job, capsys):
    job.config["mappings"]["properties"]["dense"]["chunking_settings"]["max_chunk_size"] = 30
    code, found = output(job, capsys, command="verify")
    assert code == 0
    assert found["other_fingerprints"] == 20


# what must end in a clear error, with nothing changed


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
    def newer(table):
        description = json.loads(table.schema.metadata[METADATA_KEY])
        return table.replace_schema_metadata({METADATA_KEY: json.dumps({**description, "format": 99})})

    for name in read_log(job.table_path).active:
        path = f"{job.table_path}/{name}"
        pq.write_table(newer(pq.read_table(path)), path)
    refuses(job, capfd, "has format 99, written by a newer semantic-ingest")


def test_a_table_of_a_newer_delta_lake_is_left_alone(job, capfd):
    protocol = {"minReaderVersion": 99, "minWriterVersion": 99}
    with open(f"{job.table_path}/_delta_log/{1:020d}.json", "w") as handle:
        handle.write(json.dumps({"protocol": protocol}) + "\n")
    refuses(job, capfd, "newer version of Delta Lake")


def test_a_damaged_log_is_left_alone(job, capfd):
    with open(f"{job.table_path}/_delta_log/{1:020d}.json", "w") as handle:
        handle.write("{not json")
    refuses(job, capfd, "cannot be read")


def test_files_beside_the_table_are_left_alone(job, tmp_path):
    """Something else keeps its files in the table's folder; no command touches them."""
    stranger = f"{job.table_path}/notes.parquet"
    pq.write_table(pa.table({"a": [1]}), stranger)
    old = time.time() - 30 * 86_400
    os.utime(stranger, (old, old))
    next_night(job)
    assert job.run("--older-than", "0", command="vacuum") == 0
    assert os.path.exists(stranger)


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


def test_the_table_log_agrees_with_delta_lake(job):
    for edition in range(1, 4):
        next_night(job, edition)
    log = read_log(job.table_path)
    assert sorted(log.versions) == list(range(4))
    for version, parts in log.versions.items():
        table = DeltaTable(job.table_path, version=version)
        assert parts == {os.path.basename(path) for path in table.file_uris()}
        assert log.rows(version) == table.to_pyarrow_table(columns=["_id"]).num_rows
    assert np.all([entry.size > 0 for entry in log.parts.values()])
