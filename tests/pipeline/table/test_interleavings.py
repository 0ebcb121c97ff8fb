"""Two commands that write, forced to meet at their worst moments: the newest version stays whole, no row is lost."""

import itertools
import threading

import pytest
from support.small_run import SmallRun, document

from pipeline.config.load import load_config
from pipeline.errors import PipelineError
from pipeline.run.job import run_pipeline
from pipeline.table.history import restore
from pipeline.table.vacuum import vacuum
from transforms import files
from transforms.index.update import update_index


@pytest.fixture
def job(tmp_path):
    """Three versions of rows, and a source that has moved on again."""
    job = SmallRun(tmp_path)
    for edition in range(3):
        job.write([document(number, edition * (number % 3 == 0)) for number in range(9 + edition)])
        assert job.run("--quiet") == 0
    job.write([document(number, 7 * (number % 3 == 1)) for number in range(12)])
    return job


COMMANDS = {
    "run": lambda config: run_pipeline(config, quiet=True),
    "restore": lambda config: restore(config, 1),
    "vacuum": lambda config: vacuum(config, older_than_days=0),
    "index": lambda config: update_index(config.table.path, config.index.path, rebuild=True),
}


@pytest.mark.long
@pytest.mark.parametrize(("first", "second"), list(itertools.product(COMMANDS, COMMANDS)))
@pytest.mark.parametrize("place", ["delete", "commit", "list"])
def test_two_writers_leave_a_whole_table(job, monkeypatch, first, second, place):
    """The second command runs to its end, or until it has to wait, while the first stands still in the middle."""
    config = load_config(str(job.config_path))
    met, ended = threading.Event(), threading.Event()
    main_thread = threading.current_thread()

    def halt(real):
        def halted(*args, **kwargs):
            if threading.current_thread() is main_thread and not met.is_set():
                met.set()
                ended.wait(3)
            return real(*args, **kwargs)

        return halted

    target = {
        "delete": (files, "delete"),
        "list": (files, "list_files"),
        "commit": (__import__("pipeline.table.delta", fromlist=["x"]).DeltaTable, "create_write_transaction"),
    }[place]
    monkeypatch.setattr(*target, halt(getattr(*target)))
    failed = []

    def other():
        met.wait(60)
        try:
            COMMANDS[second](config)
        except Exception as error:
            failed.append(error)
        ended.set()

    thread = threading.Thread(target=other)
    thread.start()
    try:
        COMMANDS[first](config)
    except Exception as error:
        failed.append(error)
    met.set()
    thread.join()
    assert all(
        isinstance(error, PipelineError | OSError) or "another process" in str(error) for error in failed
    )
    monkeypatch.undo()
    assert job.rows()  # every part of the newest version is there
    assert job.run("--quiet") == 0
    assert {name: row["text"] for name, row in job.rows().items()} == {
        f"d{number}": document(number, 7 * (number % 3 == 1))["text"] for number in range(12)
    }
    assert job.run(command="verify") == 0
