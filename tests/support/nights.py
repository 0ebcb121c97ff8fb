"""Runs in processes of their own that can be killed, starved of disk and pointed at a bad source.

Processes are forked from a server that has imported everything already, so that a test can afford many.
"""

import ctypes
import glob
import importlib
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from support.paths import ROOT
from support.small_run import SmallRun, document

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "pipeline.__main__",
        "pipeline.run.job",
        "pipeline.table.history",
        "pipeline.table.verify",
        "transforms.index.update",
        "models.local.model",
        "models.local.hashing",
        "models.remote.model",
        "apache_beam.runners.portability.fn_api_runner",
        "icu",
        "tantivy",
        "httpx",
        "encodings.utf_8_sig",  # a process that has dropped its rights may not read the standard library
    ]
)


def _enter(
    argv: list[str],
    output: str,
    environment: dict[str, str],
    file_bytes: int | None,
    user: int | None,
    traps: list[Any],
    constants: dict[str, Any],
) -> None:
    """What a forked process does: one command, its output to a file.

    The server was forked by whichever test came first; its environment is not that of the test that asks.
    """
    os.environ.clear()
    os.environ.update(environment)
    with open(output, "wb") as handle:
        os.dup2(handle.fileno(), 1)
        os.dup2(handle.fileno(), 2)
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    if user is not None:
        _become(user)
    for place, when, number, action in traps:
        _set_trap(place, when, number, action)
    for place, value in constants.items():
        module_name, _, name = place.rpartition(".")
        setattr(importlib.import_module(module_name), name, value)
    from pipeline.__main__ import main
    from pipeline.stop import answer_signals

    answer_signals()
    code = 1
    try:
        code = main(argv)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


NOBODY = 65534


def ordinary_user() -> int:
    """A user without root's rights who may still read the code: whoever owns the closed folder that it lies in."""
    places = [place for root in (ROOT, Path(sys.base_prefix)) for place in (root, *root.parents)]
    closed = [place for place in places if not place.stat().st_mode & 0o001]
    return closed[0].stat().st_uid if closed else NOBODY


def _become(user: int) -> None:
    """Drop root's rights; where the code belongs to root, keep its name and drop what lets it pass over modes."""
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    version, this_process = 0x20080522, 0
    header, nothing = (ctypes.c_uint32 * 2)(version, this_process), (ctypes.c_uint32 * 6)()
    if user == 0 and ctypes.CDLL(None, use_errno=True).capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset")


def _set_trap(place: str, when: str, number: int, action: str) -> None:
    """Make the `number`-th call of a function do `action` before or after its work: a signal's name, or a gate's."""
    module_name, _, name = place.rpartition(".")
    owner: Any
    try:
        owner = importlib.import_module(module_name)
    except ModuleNotFoundError:
        module_name, _, class_name = module_name.rpartition(".")
        owner = getattr(importlib.import_module(module_name), class_name)
    real = getattr(owner, name)
    calls = [0]

    def act() -> None:
        if action.startswith("wait at "):
            Gate(Path(action.removeprefix("wait at "))).wait()
        else:
            os.kill(os.getpid(), getattr(signal, action))
            time.sleep(20)

    def trapped(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        due = calls[0] == number or number == 0
        if due and when == "before":
            act()
        result = real(*arguments, **named)
        if due and when == "after":
            act()
        return result

    setattr(owner, name, trapped)


class Gate:
    """A place where processes wait until the test lets them go on.

    Attributes:
        action: what a trap does that leads here.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.action = f"wait at {path}"

    def wait(self) -> None:
        """Wait here, in the process that was trapped."""
        self._path.with_name(f"{self._path.name}-{os.getpid()}").touch()
        end = time.monotonic() + 240
        while not self._path.exists() and time.monotonic() < end:
            time.sleep(0.002)

    @property
    def arrived(self) -> int:
        """Number of processes that have come here."""
        return len(list(self._path.parent.glob(f"{self._path.name}-*")))

    def open(self) -> None:
        """Let all go on."""
        self._path.touch()


class Outcome:
    """How a run ended.

    Attributes:
        code: exit code; negative for the signal that killed it.
        output: what it printed.
    """

    def __init__(self, code: int, output: str) -> None:
        self.code = code
        self.output = output

    def __repr__(self) -> str:
        return f"exit code {self.code}, printed:\n{self.output}"


class NightRun(SmallRun):
    """A small run whose commands are processes."""

    def start(self, *arguments: str, command: str = "run", **how: Any) -> "Running":
        """Start a command on the config; see `start_command`."""
        self.config_path.write_text(yaml.safe_dump(self.config, sort_keys=False))
        return self.start_command([command, str(self.config_path), *arguments], **how)

    def start_command(
        self,
        argv: list[str],
        *,
        file_bytes: int | None = None,
        user: int | None = None,
        traps: list[Any] | None = None,
        constants: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
    ) -> "Running":
        """Start a command.

        Args:
            argv: its command line.
            file_bytes: largest file that it may write.
            user: whom it runs as.
            traps: what happens at which call of a function, see `_set_trap`.
            constants: dotted names in its modules -> values to set.
            environment: variables besides those of this process.
        """
        output = self.folder / f"output-{time.monotonic_ns()}.txt"
        variables = {**os.environ, **(environment or {})}
        limits = (file_bytes, user, traps or [], constants or {})
        process = CONTEXT.Process(target=_enter, args=(argv, str(output), variables, *limits))
        process.start()
        return Running(process, output)

    def night(self, *arguments: str, **how: Any) -> Outcome:
        """Run a command to its end."""
        return self.start(*arguments, **how).wait()

    def killed_at(self, place: str, when: str = "before", number: int = 1, name: str = "SIGKILL") -> Outcome:
        """Run until a chosen point and die there."""
        return self.night(traps=[(place, when, number, name)])

    def gate(self) -> Gate:
        """A gate for the commands of this job."""
        return Gate(self.folder / f"gate{time.monotonic_ns()}")

    def two_at_once(self, *arguments: str) -> list[Outcome]:
        """Run twice at the same time: both have planned and embedded before either is let through to publish."""
        gate = self.gate()
        traps = [("pipeline.run.job.collect_changes", "after", 1, gate.action)]
        running = [self.start(*arguments, traps=traps) for _ in range(2)]
        # A run that has nothing to commit, or that failed, never comes there.
        while gate.arrived < 2 and all(one.process.is_alive() for one in running):
            time.sleep(0.002)
        gate.open()
        return [one.wait() for one in running]

    def json(self, *arguments: str, command: str) -> Any:
        """Run a command that prints JSON."""
        outcome = self.night(*arguments, "--format", "json", command=command)
        return json.loads(outcome.output[outcome.output.index("{") :])

    def part_files(self) -> set[str]:
        """Part files in the table's folder, whoever wrote them."""
        return {os.path.basename(path) for path in glob.glob(f"{self.table_path}/part-*.parquet")}

    def open_runs(self) -> list[str]:
        """Folders of runs that have not ended."""
        return sorted(os.path.basename(path) for path in glob.glob(f"{self.table_path}/_runs/*"))


class Running:
    """A command that is going on."""

    def __init__(self, process: Any, output: Path) -> None:
        self.process = process
        self.output = output

    def wait(self, seconds: float = 240) -> Outcome:
        """Wait for its end."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"still going on after {seconds} seconds:\n{self.output.read_text()}")
        printed = self.output.read_text() if self.output.exists() else ""  # killed before it could print
        return Outcome(self.process.exitcode, printed)

    def signal(self, number: int) -> None:
        """Send a signal."""
        if self.process.is_alive():
            os.kill(self.process.pid, number)

    def until(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        """Wait until something has happened."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end or not self.process.is_alive():
                raise AssertionError(f"it never came to that:\n{self.output.read_text()}")
            time.sleep(0.002)


def published(folder: Path) -> NightRun:
    """A table of 20 documents."""
    job = NightRun(folder)
    job.write([document(number) for number in range(20)])
    assert job.run() == 0
    return job


def next_night(job: NightRun, edition: int = 1) -> None:
    """Change some documents, delete one, add two."""
    numbers = range(edition, 20 + 2 * edition)
    job.write([document(number, edition if number % 4 == 0 else 0) for number in numbers])
    assert job.run() == 0


def output(job: NightRun, capsys: Any, *arguments: str, command: str) -> tuple[int, Any]:
    """Run a command that prints JSON; returns exit code and JSON."""
    capsys.readouterr()
    code = job.run(*arguments, "--format", "json", command=command)
    return code, json.loads(capsys.readouterr().out)


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal, numbers within 1e-6."""
    if isinstance(left, float) and isinstance(right, float):
        return abs(left - right) <= 1e-6
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def assert_same_rows(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Assert that two tables have the same ids, hashes, offsets, and vectors within 1e-6."""
    assert sorted(found) == sorted(expected)
    for name, row in expected.items():
        wrong = [column for column in row if not same(found[name].get(column), row[column])]
        assert not wrong, (
            f"[{name}] differs in {wrong}: {found[name][wrong[0]]!r:.500} not {row[wrong[0]]!r:.500}"
        )
