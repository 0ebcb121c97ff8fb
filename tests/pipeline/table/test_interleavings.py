"""Two commands that write, forced to meet at their worst moments: the newest version stays whole, no row is lost.

The first command stands still at a place in its middle until the second has ended, or has to wait for a lock.
"""

import pkgutil
import shutil
import threading
from collections.abc import Callable
from typing import Any

import filelock
import pytest
from support.small_run import SmallRun, document

from pipeline.config.load import load_config
from pipeline.config.run_config import RunConfig
from pipeline.errors import PipelineError
from pipeline.run.job import run_pipeline
from pipeline.table.history import restore
from pipeline.table.vacuum import vacuum
from pipeline.table.verify import verify
from transforms.index.state import IndexUnusable
from transforms.index.update import update_index

COMMANDS: dict[str, Callable[[RunConfig], Any]] = {
    "run": lambda config: run_pipeline(config, quiet=True),
    "restore": lambda config: restore(config, 1),
    "vacuum": lambda config: vacuum(config, older_than_days=0),
    "index": lambda config: update_index(config.table.path, config.index.path, rebuild=True),
}

PLACES = {
    "run": ["pipeline.run.plan.make_plan", "pipeline.run.publish.commit", "pipeline.run.job.update_index"],
    "restore": ["pipeline.table.history.commit_mark", "pipeline.table.history._catch_up"],
    "vacuum": ["pipeline.table.vacuum.files.delete"],
    "index": ["transforms.index.update.plan_update", "transforms.index.update.IndexState.save"],
}
"""Functions before which a command stands still: what it has read by then may be gone or old when it goes on."""

PATIENCE = 120


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Three versions of rows, and a source that has moved on again."""
    job = SmallRun(tmp_path_factory.mktemp("interleavings") / "run")
    job.folder.mkdir()
    for edition in range(3):
        job.write([document(number, edition * (number % 3 == 0)) for number in range(9 + edition)])
        assert job.run("--quiet") == 0
    job.write([document(number, 7 * (number % 3 == 1)) for number in range(12)])
    return job


@pytest.fixture
def again(job):
    """The same at every test."""
    kept = job.folder.with_name("kept")
    shutil.copytree(job.folder, kept)
    yield job
    shutil.rmtree(job.folder)
    kept.rename(job.folder)


@pytest.fixture(scope="module")
def expected(job, tmp_path_factory):
    """The rows of a table made from scratch of the newest source."""
    scratch = SmallRun(tmp_path_factory.mktemp("scratch"))
    scratch.corpus.write_bytes(job.corpus.read_bytes())
    assert scratch.run("--quiet") == 0
    return scratch.rows()


def meet(monkeypatch: pytest.MonkeyPatch, first: Callable[[], Any], second: Callable[[], Any], place: str):
    """Run two commands, the second while the first stands still before its first call of `place`.

    Returns:
        The errors that they ended with.
    """
    here, go_on = threading.Event(), threading.Event()
    main, failed = threading.current_thread(), []
    call, acquire = pkgutil.resolve_name(place), filelock.BaseFileLock.acquire

    def halted(*args, **kwargs):
        if threading.current_thread() is main and not here.is_set():
            here.set()
            assert go_on.wait(PATIENCE), "the second command neither ends nor waits for a lock"
        return call(*args, **kwargs)

    def acquired(lock, *args, **kwargs):
        if threading.current_thread() is not main and lock.timeout > 0:
            try:
                return acquire(lock, timeout=0)
            except filelock.Timeout:
                go_on.set()  # it has to wait for the first
        return acquire(lock, *args, **kwargs)

    def attempt(command):
        try:
            command()
        except Exception as error:
            failed.append(error)

    def other():
        here.wait(PATIENCE)
        attempt(second)
        go_on.set()

    thread = threading.Thread(target=other, daemon=True)
    with monkeypatch.context() as patched:
        patched.setattr(place, halted)
        patched.setattr(filelock.BaseFileLock, "acquire", acquired)
        thread.start()
        attempt(first)
        assert here.is_set(), f"the first command does not come to {place}"
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the two wait for each other"
    return failed


@pytest.mark.slow
@pytest.mark.parametrize("second", COMMANDS)
@pytest.mark.parametrize(("first", "place"), [(name, place) for name in PLACES for place in PLACES[name]])
def test_two_writers_leave_a_whole_table(again, expected, monkeypatch, first, place, second):
    config = load_config(str(again.config_path))
    failed = meet(monkeypatch, lambda: COMMANDS[first](config), lambda: COMMANDS[second](config), place)
    assert len(failed) < 2, failed
    assert all(isinstance(error, PipelineError | IndexUnusable) for error in failed), failed
    assert again.rows()  # every part of the newest version is there
    run_pipeline(config, quiet=True)
    assert again.rows() == expected
    assert verify(config).problems == []
