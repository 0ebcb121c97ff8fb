"""A run may be killed at any moment: the next one takes over what is finished, and the table is as it should be."""

import glob
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from deltalake import DeltaTable
from support.nights import NightRun, assert_same_rows, document

DOCUMENTS = 40


def corpus(edition=0):
    """The source of a night; about a third of it is new in each edition, and some is gone."""
    numbers = range(edition, DOCUMENTS + edition)
    return [document(number, edition if number % 3 == edition % 3 else 0) for number in numbers]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The rows after each of two nights that nothing happened to."""
    job = NightRun(tmp_path_factory.mktemp("undisturbed"))
    editions = []
    for edition in (0, 1):
        job.write(corpus(edition))
        outcome = job.night()
        assert outcome.code == 0, outcome
        editions.append(job.rows())
    return editions


@pytest.fixture
def job(tmp_path):
    """A run over the first night's source."""
    job = NightRun(tmp_path)
    job.write(corpus())
    return job


POINTS = [
    pytest.param("pipeline.run.plan.find_source", "after", 1, marks=pytest.mark.long),
    pytest.param("pipeline.run.plan.begin_run", "after", 1, marks=pytest.mark.long),
    pytest.param("pipeline.run.plan.read_scans", "before", 1, marks=pytest.mark.long),
    ("pipeline.run.plan.make_plan", "after", 1),
    pytest.param("pipeline.run.job.write_work", "after", 1, marks=pytest.mark.long),
    pytest.param("transforms.table.write.write_part", "before", 1, marks=pytest.mark.long),
    pytest.param("transforms.table.write.write_part", "after", 1, marks=pytest.mark.long),
    ("transforms.table.write.write_part", "after", 3),
    pytest.param("pipeline.run.job.collect_changes", "before", 1, marks=pytest.mark.long),
    pytest.param("pipeline.run.job.collect_changes", "after", 1, marks=pytest.mark.long),
    ("pipeline.run.publish.commit", "before", 1),
    ("pipeline.run.publish.commit", "after", 1),
    pytest.param("pipeline.run.job.update_index", "before", 1, marks=pytest.mark.long),
    pytest.param("transforms.index.update._write_generation", "before", 1, marks=pytest.mark.long),
    ("transforms.index.state.IndexState.save", "before", 1),
    pytest.param("transforms.index.state.IndexState.save", "after", 1, marks=pytest.mark.long),
]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("place", "when", "number"), POINTS)
def test_killed_at_a_chosen_point_of_the_second_night(job, undisturbed, place, when, number):
    assert job.night().code == 0
    job.write(corpus(edition=1))
    outcome = job.killed_at(place, when, number)
    assert outcome.code == -signal.SIGKILL, outcome
    # Readers see the night before or the new one, never something between.
    published = DeltaTable(job.table_path).version() == 2
    assert_same_rows(job.rows(), undisturbed[1 if published else 0])

    outcome = job.night()
    assert outcome.code == 0, outcome
    assert_same_rows(job.rows(), undisturbed[1])
    verified = job.json(command="verify")
    assert verified["ok"], verified
    assert verified["index_version"] == job.version()


def test_half_written_files_are_never_taken_for_parts(job, undisturbed):
    """Killed between writing a file and naming it; the temporary file stays behind and does no harm."""
    for number in range(1, 8, 2):
        assert job.killed_at("os.replace", "before", number).code == -signal.SIGKILL
    left = glob.glob(f"{job.table_path}/**/.*.tmp", recursive=True, include_hidden=True)
    assert left
    assert job.night().code == 0
    assert_same_rows(job.rows(), undisturbed[0])
    assert job.night("--older-than", "0", command="vacuum").code == 0
    assert not glob.glob(f"{job.table_path}/**/.*.tmp", recursive=True, include_hidden=True)
    assert_same_rows(job.rows(), undisturbed[0])


def test_finished_parts_are_kept_and_not_embedded_again(job, undisturbed):
    assert job.killed_at("transforms.table.write.write_part", "after", 7).code == -signal.SIGKILL
    finished = job.part_files()
    assert len(finished) == 7
    assert job.night().code == 0
    assert job.summary["documents"]["taken_over"] == 7 * 4
    assert job.summary["documents"]["added"] == DOCUMENTS
    assert finished <= job.part_files(), "finished parts are published as they are"
    assert finished <= set(DeltaTable(job.table_path).get_add_actions(flatten=True)["path"].to_pylist())
    assert_same_rows(job.rows(), undisturbed[0])
    assert job.open_runs() == [], "nothing is left of the killed run"


def test_killed_again_and_again_a_run_still_gets_on(job, undisturbed):
    """Each try is killed after two more parts; what one finished the next need not do."""
    repeated = 0
    for _ in range(5):
        before = len(job.part_files())
        assert job.killed_at("transforms.table.write.write_part", "after", 2).code == -signal.SIGKILL
        repeated += 2 - (len(job.part_files()) - before)
    assert len(job.part_files()) == 10
    assert job.night().code == 0
    assert job.summary["documents"]["taken_over"] == DOCUMENTS
    assert job.summary["embedded"] == 0
    assert repeated == 0
    assert_same_rows(job.rows(), undisturbed[0])


def test_what_changed_meanwhile_is_not_taken_over(job, undisturbed):
    """The source moves on between the kill and the next night; parts of the old edition must not come back."""
    assert job.killed_at("pipeline.run.publish.commit").code == -signal.SIGKILL
    job.write(corpus(edition=1))
    assert job.night().code == 0
    assert_same_rows(job.rows(), undisturbed[1])
    assert 0 < job.summary["documents"]["taken_over"] < DOCUMENTS
    assert job.json(command="verify")["orphans"] == 0


def test_another_model_takes_over_nothing(job):
    assert job.killed_at("pipeline.run.publish.commit").code == -signal.SIGKILL
    settings = job.config["mappings"]["properties"]["dense"]["chunking_settings"]
    settings["max_chunk_size"] = 30
    assert job.night().code == 0
    assert job.summary["documents"]["taken_over"] == 0
    assert job.json(command="verify")["other_fingerprints"] == 0


def test_a_run_killed_after_its_commit_costs_older_versions_nothing(job):
    """It left its folder behind; the next run clears that away, and must not take published parts for leftovers."""
    assert job.killed_at("pipeline.run.publish.commit", "after").code == -signal.SIGKILL
    first = job.rows()
    job.write(corpus(edition=1))
    assert job.night().code == 0
    assert job.night("1", command="restore").code == 0
    assert_same_rows(job.rows(), first)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_killed_at_random_moments(job, undisturbed):
    chance = random.Random(20)
    begun = time.monotonic()
    assert job.night().code == 0
    seconds = time.monotonic() - begun
    job.write(corpus(edition=1))
    killed = 0
    for _ in range(8):
        running = job.start()
        time.sleep(chance.uniform(0, seconds))
        running.signal(signal.SIGKILL)
        killed += running.wait().code == -signal.SIGKILL
        assert_same_rows(job.rows(), undisturbed[1 if job.version() > 1 else 0])
    assert killed
    assert job.night().code == 0
    assert_same_rows(job.rows(), undisturbed[1])
    assert job.json(command="verify")["ok"]


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("place", ["pipeline.run.plan.make_plan", "transforms.table.write.write_part"])
def test_a_stopped_run_says_how_to_go_on(job, undisturbed, name, code, place):
    outcome = job.killed_at(place, "after", 2 if "part" in place else 1, name)
    assert outcome.code == code, outcome
    assert "Run the same command again" in outcome.output
    assert "Traceback" not in outcome.output
    assert "stopping; finished work is kept" in outcome.output
    assert (job.summary["status"], job.summary["error"]) == ("stopped", None)
    assert DeltaTable.is_deltatable(job.table_path) is False
    assert job.night().code == 0
    assert_same_rows(job.rows(), undisturbed[0])


def test_the_command_line_itself_killed_and_stopped(job, undisturbed):
    """The same through `semantic-ingest`, as cron starts it."""
    job.night(command="check")
    command = [sys.executable, "-m", "pipeline", "run", str(job.config_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not glob.glob(f"{job.table_path}/_runs/*/scan-*.parquet"):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and len(glob.glob(f"{job.table_path}/_runs/*/scan-*.parquet")) < 2:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Run the same command again" in errors
    assert job.night().code == 0
    assert_same_rows(job.rows(), undisturbed[0])


def test_two_runs_at_once_lose_and_double_nothing(job, undisturbed):
    """Two real processes: one commits, the other says so and ends with 1; the next run has nothing left to do."""
    assert job.night().code == 0
    job.write(corpus(edition=1))
    outcomes = job.two_at_once()
    assert sorted(outcome.code for outcome in outcomes) == [0, 1], outcomes
    loser = next(outcome for outcome in outcomes if outcome.code == 1)
    assert "another run has changed the table" in loser.output
    assert "Traceback" not in loser.output
    assert job.version() == 2
    assert_same_rows(job.rows(), undisturbed[1])
    assert job.night().code == 0
    assert (job.version(), job.summary["embedded"]) == (2, 0)


def test_two_first_runs_at_once_make_one_table(job, undisturbed):
    outcomes = job.two_at_once()
    assert sorted(outcome.code for outcome in outcomes) == [0, 1], outcomes
    assert not any("Traceback" in outcome.output for outcome in outcomes)
    assert_same_rows(job.rows(), undisturbed[0])


def test_with_lock_the_second_run_does_not_even_start(job):
    gate = job.gate()
    first = job.start("--lock", traps=[("pipeline.run.publish.commit", "before", 1, gate.action)])
    first.until(lambda: gate.arrived == 1)
    second = job.night("--lock")
    assert second.code == 1
    assert "is in progress" in second.output
    assert f"process {first.process.pid}" in second.output
    first.signal(signal.SIGKILL)
    assert first.wait().code == -signal.SIGKILL
    assert job.night("--lock").code == 0, "the system frees the lock of a killed process"
    assert os.path.exists(f"{job.table_path}/_runs/.lock")
