"""Runs in processes of their own that can be killed, starved of disk and pointed at a bad source.

Processes are forked from a server that has imported everything already, so that a test can afford many.
"""

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
    ]
)


def _enter(
    argv: list[str],
    output: str,
    environment: dict[str, str],
    file_bytes: int | None,
    user: int | None,
    traps: list[Any],
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
        os.setgid(user)
        os.setuid(user)
    for place, when, number, action in traps:
        _set_trap(place, when, number, action)
    from pipeline.__main__ import main

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


def _set_trap(place: str, when: str, number: int, action: str) -> None:
    """Make the `number`-th call of a function do `action` before or after its work: a signal's name, or `sleep`."""
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
        if action.startswith("sleep"):
            time.sleep(float(action.removeprefix("sleep")))
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

    def start(
        self,
        *arguments: str,
        command: str = "run",
        file_bytes: int | None = None,
        user: int | None = None,
        traps: list[Any] | None = None,
    ) -> "Running":
        """Start a command."""
        self.config_path.write_text(yaml.safe_dump(self.config, sort_keys=False))
        output = self.folder / f"output-{time.monotonic_ns()}.txt"
        argv = [command, str(self.config_path), *arguments]
        process = CONTEXT.Process(
            target=_enter, args=(argv, str(output), dict(os.environ), file_bytes, user, traps or [])
        )
        process.start()
        return Running(process, output)

    def night(self, *arguments: str, **how: Any) -> Outcome:
        """Run a command to its end."""
        return self.start(*arguments, **how).wait()

    def killed_at(self, place: str, when: str = "before", number: int = 1, name: str = "SIGKILL") -> Outcome:
        """Run until a chosen point and die there."""
        return self.night(traps=[(place, when, number, name)])

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


__all__ = ["NightRun", "Outcome", "Running", "assert_same_rows", "document", "same"]
