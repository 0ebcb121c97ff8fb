"""What a person sees and does at a terminal while a run embeds 2,000 documents: a bar that moves, and Ctrl-C."""

import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from support.paths import ROOT
from support.small_run import SENTENCES

DOCUMENTS = 2_000
SHOWN = re.compile(r"([\d,]+)/2,000 documents · ([\d,]+) chunks.*?(\d+:\d\d:\d\d) (\d+):(\d\d):(\d\d) left")


@dataclass
class Session:
    """What a terminal showed.

    Attributes:
        code: the process's exit code.
        text: everything.
        bars: seconds since the first bar with counts -> what it said, and the seconds left that it showed.
        seconds: how long the process lived after that bar; after the signal, where one was sent.
    """

    code: int = 0
    text: str = ""
    bars: list[tuple[float, str, int]] = field(default_factory=list)
    seconds: float = 0.0


def write_config(folder: Path) -> Path:
    """A run over 2,000 documents of different lengths with the bundled dense model."""
    chance = random.Random(3)
    with (folder / "corpus.jsonl").open("w") as corpus:
        for number in range(DOCUMENTS):
            text = " ".join(f"{chance.choice(SENTENCES)} {number}." for _ in range(chance.randint(1, 12)))
            corpus.write(json.dumps({"_id": f"d{number}", "text": text}) + "\n")
    config = {
        "source": {"format": "jsonl", "path": str(folder / "corpus.jsonl")},
        "mappings": {
            "properties": {
                "text": {"type": "text", "copy_to": ["dense"]},
                "dense": {"type": "semantic_text", "inference_id": ".minilm-l6-v2"},
            }
        },
        "table": {"path": str(folder / "table"), "part_seconds": 4},
        "failures": {"path": str(folder / "failures")},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def in_a_terminal(config: Path, stop_at: int | None = None) -> Session:
    """Run the config in a terminal of 140 columns; Ctrl-C once the bar shows `stop_at` documents."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "140", "TERM": "xterm"}
    command = [sys.executable, "-m", "pipeline", "run", str(config)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=theirs, stdout=theirs, env=environment)
    os.close(theirs)
    session, first, since = Session(), None, 0.0
    stopped = False
    while True:
        try:
            piece = os.read(ours, 65_536).decode(errors="replace")
        except OSError:  # the other end is closed
            break
        session.text += piece
        for shown in SHOWN.finditer(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", piece)):
            now = time.monotonic()
            first = since = since if stopped else first or now
            first = first or now
            hours, minutes, seconds = (int(shown[group]) for group in (4, 5, 6))
            session.bars.append((now, shown[0], hours * 3600 + minutes * 60 + seconds))
            if stop_at is not None and not stopped and int(shown[1].replace(",", "")) >= stop_at:
                process.send_signal(signal.SIGINT)
                since, stopped = now, True
    session.code = process.wait()
    os.close(ours)
    begun = since if stopped else session.bars[0][0]
    session.seconds = time.monotonic() - begun
    session.bars = [(at - session.bars[0][0], text, left) for at, text, left in session.bars]
    return session


def record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_bar_moves_and_the_time_left_is_right(tmp_path):
    session = in_a_terminal(write_config(tmp_path))
    assert session.code == 0, session.text
    assert "loading models" in session.text
    counted = [int(SHOWN.search(text)[2].replace(",", "")) for _, text, _ in session.bars]
    seconds = range(int(session.seconds) - 1)
    moved = {
        int(at)
        for (at, _, _), before, now in zip(session.bars[1:], counted, counted[1:], strict=False)
        if now > before
    }
    # A busy machine may take the processor away for a second; a bar that stands still does so all the time.
    assert len(moved & set(seconds)) >= 0.9 * len(seconds), sorted(set(seconds) - moved)
    halves = [(at, left) for at, _, left in session.bars if at > session.seconds / 2]
    for at, left in halves:
        true = session.bars[-1][0] - at
        assert true / 1.5 - 3 <= left <= true * 1.5 + 3, (
            at,
            left,
            true,
        )  # whole seconds, and a last batch of its own


@pytest.mark.long
@pytest.mark.timeout(900)
def test_ctrl_c_at_a_random_moment_keeps_what_is_finished(tmp_path):
    config = write_config(tmp_path)
    stop_at = random.randint(DOCUMENTS // 3, DOCUMENTS * 9 // 10)
    session = in_a_terminal(config, stop_at)
    assert session.code == 130, session.text
    assert "stopping; finished work is kept" in session.text
    assert session.seconds < 3, f"{session.seconds:.1f} s until it had ended; stopped at {stop_at}"
    assert record(tmp_path)["status"] == "stopped"
    # What was embedded a part's age (4 s, and a call of the model) before the signal is in part files.
    shown = [(at, int(SHOWN.search(text)[1].replace(",", ""))) for at, text, _ in session.bars]
    old = max((count for at, count in shown if at < shown[-1][0] - session.seconds - 12), default=0)
    again = subprocess.run(
        [sys.executable, "-m", "pipeline", "run", str(config)], cwd=ROOT, capture_output=True
    )
    assert again.returncode == 0, again.stderr
    documents = record(tmp_path)["documents"]
    assert documents["taken_over"] >= old
    assert documents["added"] == DOCUMENTS
    assert [one["status"] for one in map(json.loads, (tmp_path / "runs.jsonl").open())] == ["stopped", "done"]
