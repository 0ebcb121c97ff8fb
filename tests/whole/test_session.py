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

import pyarrow.dataset as ds
import pytest
import yaml
from deltalake import DeltaTable
from support.paths import ROOT
from support.small_run import SENTENCES

from models.endpoints.registry import Registry
from models.open_model import open_model

DOCUMENTS = 2_000
WORK_SECONDS = 60
"""How long the documents take to embed on this machine, about."""

PART_SECONDS = 30
"""The default of `table.part_seconds`."""

SHOWN = re.compile(
    r"([\d,]+)/([\d,]+) documents · ([\d,]+) chunks.*?(\d+:\d\d:\d\d) (\d+):(\d\d):(\d\d) left"
)


@dataclass(frozen=True)
class Bar:
    """What the bar said.

    Attributes:
        at: when, in seconds of the clock.
        text: all of it.
        documents: how many were done.
        left: seconds that it took to be left.
    """

    at: float
    text: str
    documents: int
    left: int


@dataclass
class Session:
    """What a terminal showed.

    Attributes:
        code: the process's exit code.
        text: everything.
        bars: every state of the bar with counts and time left.
        stopped: when Ctrl-C was pressed; None for never.
        ended: when the process was gone.
    """

    code: int = 0
    text: str = ""
    bars: list[Bar] = field(default_factory=list)
    stopped: float | None = None
    ended: float = 0.0


def sentences_a_document() -> int:
    """How many sentences keep the model busy for `WORK_SECONDS`, by its speed of this moment."""
    embedder = open_model(Registry(None).get(".minilm-l6-v2"), {}).load()
    texts = [" ".join(f"{SENTENCES[(n + at) % 5]} {n}." for at in range(8)) for n in range(96)]
    embedder.embed(texts[:32], "ingest")
    begun = time.perf_counter()
    embedder.embed(texts, "ingest")
    seconds = (time.perf_counter() - begun) / (8 * len(texts))
    embedder.close()
    return max(round(WORK_SECONDS / seconds / DOCUMENTS), 2)


def write_config(folder: Path, sentences: int) -> Path:
    """A run over 2,000 documents of different lengths with the bundled dense model, and every default."""
    chance = random.Random(3)
    with (folder / "corpus.jsonl").open("w") as corpus:
        for number in range(DOCUMENTS):
            length = chance.randint(1, 2 * sentences - 1)
            text = " ".join(f"{chance.choice(SENTENCES)} {number}." for _ in range(length))
            corpus.write(json.dumps({"_id": f"d{number}", "text": text}) + "\n")
    config = {
        "source": {"format": "jsonl", "path": str(folder / "corpus.jsonl")},
        "mappings": {
            "properties": {
                "text": {"type": "text", "copy_to": ["dense"]},
                "dense": {"type": "semantic_text", "inference_id": ".minilm-l6-v2"},
            }
        },
        "table": {"path": str(folder / "table")},
        "failures": {"path": str(folder / "failures")},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def in_a_terminal(config: Path, stop_after: float | None = None) -> Session:
    """Run the config in a terminal of 140 columns; Ctrl-C so many seconds after the bar first showed counts."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "140", "TERM": "xterm"}
    command = [sys.executable, "-m", "pipeline", "run", str(config)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=theirs, stdout=theirs, env=environment)
    os.close(theirs)
    session = Session()
    while True:
        try:
            piece = os.read(ours, 65_536).decode(errors="replace")
        except OSError:  # the other end is closed
            break
        session.text += piece
        now = time.monotonic()
        for shown in SHOWN.finditer(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", piece)):
            hours, minutes, seconds = (int(shown[group]) for group in (5, 6, 7))
            left = hours * 3600 + minutes * 60 + seconds
            session.bars.append(Bar(now, shown[0], int(shown[1].replace(",", "")), left))
        begun = session.bars[0].at if session.bars else now
        if stop_after is not None and session.stopped is None and now - begun >= stop_after:
            process.send_signal(signal.SIGINT)
            session.stopped = now
    session.code = process.wait()
    session.ended = time.monotonic()
    os.close(ours)
    return session


def still_seconds(session: Session) -> tuple[int, int]:
    """In how many seconds the bar did not change, and of how many, from its first counts to the end or the signal."""
    end = session.stopped or session.bars[-1].at
    changes = [
        now.at - session.bars[0].at
        for before, now in zip(session.bars, session.bars[1:], strict=False)
        if now.text != before.text
    ]
    seconds = int(end - session.bars[0].at)
    return seconds - len({int(at) for at in changes if at < seconds}), seconds


def record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_session_with_ctrl_c_at_a_random_moment(tmp_path):
    config = write_config(tmp_path, sentences_a_document())
    stop_after = random.uniform(PART_SECONDS + 6, PART_SECONDS + 16)
    first = in_a_terminal(config, stop_after)
    assert first.code == 130, first.text
    assert "loading models" in first.text
    assert "stopping; finished work is kept" in first.text
    assert first.stopped is not None
    waited = first.ended - first.stopped
    assert waited < 3, f"{waited:.1f} s until it had ended; stopped after {stop_after:.1f} s"
    stopped_run = record(tmp_path)
    assert stopped_run["status"] == "stopped"
    still, seconds = still_seconds(first)
    # A busy machine may take the processor away for a second; a bar that stands still does so all the time.
    assert still <= 0.1 * seconds, f"the bar stood still in {still} of {seconds} seconds"

    second = in_a_terminal(config)
    assert second.code == 0, second.text
    run = record(tmp_path)
    assert run["documents"]["added"] == DOCUMENTS
    # What had its embeddings so long before the signal is in part files; the bar counts from batch to batch.
    old = max(bar.documents for bar in first.bars if bar.at <= first.stopped - PART_SECONDS - 1)
    assert 0 < old <= run["documents"]["taken_over"] < DOCUMENTS

    files = DeltaTable(str(tmp_path / "table")).file_uris()
    rows = ds.dataset(files).to_table(columns=["run_id", "dense"]).to_pylist()
    assert len(rows) == DOCUMENTS
    chunks = dict.fromkeys((stopped_run["run_id"], run["run_id"]), 0)
    for row in rows:
        chunks[row["run_id"]] += len(row["dense"]["chunks"])
    assert sum(row["run_id"] == stopped_run["run_id"] for row in rows) == run["documents"]["taken_over"]
    assert run["embedded"] == chunks[run["run_id"]], "only what was missing is embedded"

    # The time that was left is known when all is done; two seconds are for the last batch and for rounding.
    end, begun = second.bars[-1].at, second.bars[0].at
    told = [(bar.left, end - bar.at) for bar in second.bars if bar.at > (begun + end) / 2]
    right = [left for left, true in told if true / 1.5 - 2 <= left <= true * 1.5 + 2]
    print(
        f"stopped after {stop_after:.1f} s, gone {waited:.2f} s later; bar still in {still} of {seconds} seconds; "
        f"{old} documents were {PART_SECONDS} s old, {run['documents']['taken_over']} were taken over, "
        f"{run['embedded']} chunks embedded by the second run, {sum(chunks.values())} in all; "
        f"time left within 1.5 in {len(right)} of {len(told)} states"
    )
    # Another process that begins or ends meanwhile makes any estimate wrong for a while.
    assert len(right) >= 0.75 * len(told), told
