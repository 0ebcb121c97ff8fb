"""Kill commands that write at random moments, go on as a user would, and compare with a table made from scratch.

As a script: ``python -m support.kills KILLS SEED`` with ``tests`` on the path. The moments are spread over all the
processor time that a command takes. It prints how far each had come, and exits with 1 where anything went wrong.
"""

import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.damage import hits_of
from support.nights import NightRun, Running, assert_same_rows
from support.small_run import SmallRun, document

from pipeline.config.load import load_config
from pipeline.table.verify import verify
from transforms.index.state import IndexState

MARK = "SEMANTIC_INGEST_KILLED"
"""Variable by which processes that a killed command leaves behind are known."""

DOCUMENTS = 24


@dataclass(frozen=True)
class Case:
    """A command that is killed.

    Attributes:
        command: ``run``, ``index``, ``restore``, ``vacuum`` or ``put``.
        workers: its processes.
        weight: how often it is chosen.
    """

    command: str
    workers: int
    weight: int


CASES = (
    Case("run", 1, 8),
    Case("run", 2, 4),
    Case("index", 1, 4),
    Case("index", 2, 2),
    Case("restore", 1, 4),
    Case("vacuum", 1, 4),
    Case("put", 1, 3),
)

BODY = {
    "service": "openai",
    "service_settings": {"api_key": "sk-literal", "model_id": "m"},
    "task_settings": {"headers": {"X-Token": "sk-other"}},
}


class Campaign:
    """A table of three versions with a killed run beside it and a source that has moved on, to be killed again.

    Attributes:
        job: the run that is killed; it is put back after each trial.
        scratch: rows of a table made from scratch of the newest source.
        first: rows of version 1, to which `restore` goes back.
        newest: rows of the newest version.
        definitions: the files of an endpoint that was put undisturbed.
        seconds: processor time that each case takes, by what was seen last.
    """

    def __init__(self, folder: Path) -> None:
        (folder / "run").mkdir()
        self.job = NightRun(folder / "run")
        self.job.config["endpoints"] = {"path": str(folder / "run" / "endpoints")}
        self.job.config["source"]["split_bytes"] = 4096
        (folder / "run" / "body.json").write_text(json.dumps(BODY))
        for edition in range(3):
            self.job.write(_source(edition))
            assert self.job.run("--quiet") == 0
            if edition == 0:
                self.first = self.job.rows()
        self.newest = self.job.rows()
        self.job.write(_source(5))
        assert self.job.killed_at("transforms.table.write.write_part", "after", 2).code == -signal.SIGKILL
        self.job.write(_source(3))
        self.scratch = _from_scratch(folder / "scratch", _source(3))
        self.definitions = self._put_undisturbed(folder / "put")
        self.seconds: dict[Case, float] = {}

    def _put_undisturbed(self, folder: Path) -> dict[str, bytes]:
        folder.mkdir()
        assert (
            self._here(
                ["endpoints", "put", "text_embedding/mine", "--path", str(folder), "--file", self._body]
            )
            == 0
        )
        return _files(folder)

    @property
    def _body(self) -> str:
        return str(self.job.folder / "body.json")

    def trial(self, case: Case, moment: float) -> str | None:
        """Kill a command after a share of its time, and go on.

        Returns:
            How far it had come; None where it had ended by then, so that this was no kill.

        Raises:
            AssertionError: something is not as it should be.
        """
        if case not in self.seconds:
            self._timed(case)
        kept = self.job.folder.with_name("kept")
        shutil.copytree(self.job.folder, kept)
        try:
            return self._killed(case, moment)
        finally:
            shutil.rmtree(self.job.folder)
            kept.rename(self.job.folder)

    def _timed(self, case: Case) -> None:
        self.seconds[case] = 60.0
        assert self.trial(case, 1.0) is None

    def _killed(self, case: Case, moment: float) -> str | None:
        mark = f"{os.getpid()}-{time.monotonic_ns()}"
        running = self._start(case, mark)
        used = 0.0
        while running.process.is_alive() and used <= moment * self.seconds[case]:
            time.sleep(0.001)
            used = max(used, _processor_seconds(running.process.pid))
        running.signal(signal.SIGKILL)
        outcome = running.wait()
        if outcome.code != -signal.SIGKILL:
            assert outcome.code == 0, outcome
            self.seconds[case] = used
            return None
        reached = self._reached(case)
        self._check_readers(case)
        self._go_on(case)
        _assert_gone(mark)
        return reached

    def _start(self, case: Case, mark: str) -> Running:
        constants: dict[str, Any] = {}
        if case.workers > 1:
            constants = {"transforms.index.update.PROCESS_ROWS": 1}
        return self.job.start_command(self._command(case), constants=constants, environment={MARK: mark})

    def _command(self, case: Case) -> list[str]:
        config = str(self.job.config_path)
        workers = ["--workers", str(case.workers)]
        return {
            "run": ["run", config, "--quiet", "--set", f"runner.workers={case.workers}"],
            "index": ["index", config, "--rebuild", *workers],
            "restore": ["restore", config, "1"],
            "vacuum": ["vacuum", config, "--older-than", "0"],
            "put": [
                "endpoints",
                "put",
                "text_embedding/mine",
                "--path",
                self._endpoints,
                "--file",
                self._body,
            ],
        }[case.command]

    @property
    def _endpoints(self) -> str:
        return str(self.job.folder / "endpoints")

    def _reached(self, case: Case) -> str:
        """How far a killed command had come, by what it left on disk."""
        if case.command == "put":
            return f"{len(_files(Path(self._endpoints)))} files"
        state = IndexState.load(self.job.folder / "index")
        assert state is not None
        if state.table["version"] > 3 or state.generation != self._generation:
            return "index written"
        if list((self.job.folder / "index").glob("build-*")):
            return "index begun"
        if self.job.version() > 3:
            return "published"
        own = [name for name in self.job.open_runs() if not name.startswith(".")][1:]
        if own:
            made = any(own[0] in name for name in self.job.part_files())
            return "parts written" if made else "run begun"
        before = len(list(self.job.folder.with_name("kept").glob("table/part-*")))
        return "files deleted" if len(self.job.part_files()) < before else "nothing written"

    @property
    def _generation(self) -> str:
        state = IndexState.load(self.job.folder.with_name("kept") / "index")
        assert state is not None
        return state.generation

    def _check_readers(self, case: Case) -> None:
        """Whoever reads now sees the table before or after the command, and can search."""
        after = {"run": self.scratch, "restore": self.first}.get(case.command, self.newest)
        published = self.job.version() > 3
        assert_same_rows(self.job.rows(), after if published else self.newest)
        wrong = [hit for hit in hits_of(self.job).values() if not hit.startswith("[")]
        assert not wrong, wrong

    def _go_on(self, case: Case) -> None:
        """The command again, then the next night's run."""
        again = Case(case.command, 1, 0)  # of either kind the other can go on
        if case.command == "put":
            self._put_again()
        else:
            assert self._here(self._command(again)) == 0
        if case.command in ("index", "restore"):
            self._check(self.first if case.command == "restore" else self.newest)
        assert self._here(self._command(Case("run", 1, 0))) == 0
        self._check(self.scratch)
        assert self._here(self._command(Case("vacuum", 1, 0))) == 0
        found = self._check(self.scratch)
        assert (found.orphans, found.open_runs) == (0, 0), found
        assert not list(self.job.folder.glob("table/.*.tmp"))

    def _put_again(self) -> None:
        """An endpoint that is there is whole; one that is not leaves nothing in the way."""
        folder = Path(self._endpoints)
        is_there = (folder / "mine.json").exists()
        assert self._here(self._command(Case("put", 1, 0))) == int(is_there)
        assert self._here(["endpoints", "get", "mine", "--path", str(folder)]) == 0
        assert self._here(["endpoints", "list", "--path", str(folder)]) == 0
        assert _files(folder) == self.definitions

    def _check(self, rows: dict[str, Any]) -> Any:
        assert_same_rows(self.job.rows(), rows)
        found = verify(load_config(str(self.job.config_path)))
        assert found.ok, found.problems
        assert found.index_version == self.job.version()
        return found

    def _here(self, argv: list[str]) -> int:
        """Run a command in this process."""
        from pipeline.__main__ import main

        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return main(argv)


def _source(edition: int) -> list[dict[str, Any]]:
    """The source of a night: a third of it is new in each edition, one document is gone and one has come."""
    numbers = range(edition, DOCUMENTS + edition)
    return [document(number, edition if number % 3 == edition % 3 else 0) for number in numbers]


def _from_scratch(folder: Path, documents: list[Any]) -> dict[str, Any]:
    folder.mkdir()
    scratch = SmallRun(folder)
    scratch.write(documents)
    assert scratch.run("--quiet") == 0
    return scratch.rows()


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _processor_seconds(pid: int) -> float:
    """Processor time of a process and its children so far; unlike the clock it does not know how busy a machine is."""
    total = 0.0
    with contextlib.suppress(OSError):
        total += time.clock_gettime(~pid << 3 | 2)  # how Linux names the clock of a process
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            total += sum(map(_processor_seconds, map(int, children.read_text().split())))
    return total


def _processes(mark: str) -> list[str]:
    """Command lines of processes that a command with this mark has started and that live."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in (path / "environ").read_bytes():
                found.append((path / "cmdline").read_bytes().decode())
    return found


def _assert_gone(mark: str) -> None:
    """A killed command takes its processes along."""
    end = time.monotonic() + 30
    while (left := _processes(mark)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left, f"processes of the killed command live on: {left}"


def kill(campaign: Campaign, case: Case, chance: random.Random) -> str:
    """Kill a command at a random moment; returns how far it had come.

    Raises:
        AssertionError: what the kill left could not be mended as a user would.
    """
    while (reached := campaign.trial(case, chance.random())) is None:
        continue  # it had ended before
    return reached


def main(count: int, seed: int) -> int:
    tally: Counter[tuple[str, int, str]] = Counter()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            campaign = Campaign(Path(folder))
        for number in range(count):
            chance = random.Random(seed + number)
            case = chance.choices(CASES, [case.weight for case in CASES])[0]
            try:
                tally[case.command, case.workers, kill(campaign, case, chance)] += 1
            except AssertionError:
                wrong += 1
                print("seed", seed + number, case, traceback.format_exc()[-3000:], flush=True)
            if number % 20 == 19:
                print(number + 1, dict(tally), campaign.seconds, file=sys.stderr, flush=True)
    for (command, workers, reached), times in sorted(tally.items()):
        print(f"{times:4} {command}, {workers} workers: {reached}")
    print(f"{tally.total()} kills, {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
