"""Move a field to another endpoint while processes are killed and another one searches; used by tests and by hand.

As a script: ``python -m support.moving FOLDER CORPUS QUERIES FROM TO`` with ``tests`` on the path.
"""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from deltalake import DeltaTable

from pipeline.search.open_index import SearchIndex
from pipeline.search.search import search

FIELD = "dense"


@dataclass
class Outcome:
    """What a move under fire did.

    Attributes:
        kills: processes that were killed, by step.
        answers: searches that were answered meanwhile.
        wrong: what a search answered that neither the old nor the new embedding answers, or its error.
        embedded: step -> chunks that its last, whole run embedded.
        expected: step -> chunks of the new field in the rows that this run wrote.
        largest_difference: between vectors of the moved table and of one made from scratch.
        same_chunks: whether ids, offsets and source fields are those of the table made from scratch.
    """

    kills: dict[str, int] = field(default_factory=dict)
    answers: int = 0
    wrong: list[str] = field(default_factory=list)
    embedded: dict[str, int] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)
    largest_difference: float = 0.0
    same_chunks: bool = False


@dataclass(frozen=True)
class Move:
    """A corpus and the two endpoints.

    Attributes:
        folder: where everything is written.
        corpus: JSON lines with ``_id``, ``title`` and ``text``.
        queries: texts to search with.
        old: endpoint that the field has.
        new: endpoint that it gets.
    """

    folder: Path
    corpus: Path
    queries: list[str]
    old: str
    new: str

    def config(self, name: str, endpoint: str, table: str) -> Path:
        """Write a run config."""
        path = self.folder / f"{name}.yaml"
        source = {"format": "jsonl", "path": str(self.corpus)}
        text = {"type": "text", "copy_to": [FIELD]}
        moved = {"type": "semantic_text", "inference_id": endpoint}
        places = {part: {"path": str(self.folder / table / part)} for part in ("table", "index", "failures")}
        places["table"] |= {"part_seconds": 2.0}
        mappings = {"properties": {"title": text, "text": text, FIELD: moved}}
        path.write_text(yaml.safe_dump({"source": source, "mappings": mappings, **places}))
        return path


def move_under_fire(move: Move, kills: dict[str, int], seed: int = 1) -> Outcome:
    """Take every step of a migration, killing its process at random moments first, while another process searches.

    Args:
        move: what to move.
        kills: step -> how often it is killed before it is let through.
        seed: of the moments.
    """
    chance = random.Random(seed)
    outcome = Outcome()
    moving = move.config("moving", move.old, "moved")
    _run(["run", str(moving), "--quiet"])
    shutil.copytree(move.folder / "moved" / "index", move.folder / "old-index")
    answers, stop = move.folder / "answers.jsonl", multiprocessing.get_context("spawn").Event()
    searcher = multiprocessing.get_context("spawn").Process(
        target=_search_on, args=(str(move.folder / "moved" / "index"), move.queries, str(answers), stop)
    )
    searcher.start()
    try:
        for step in ("--to", "--switch", "--drop-old"):
            if step == "--drop-old":
                move.config("moving", move.new, "moved")
            arguments = ["migrate", str(moving), "--field", FIELD, "--quiet", step]
            arguments += [move.new] if step == "--to" else []
            # Starting up takes a second or two; each kill comes later than the one before.
            moments = [chance.uniform(1.0, 3.0) * (1 + number) for number in range(kills.get(step, 0))]
            outcome.kills[step] = sum(_is_killed_after(arguments, moment) for moment in moments)
            _run(arguments)
            _count(move, step, outcome)
    finally:
        stop.set()
        searcher.join(120)
    _judge(move, answers, outcome)
    fresh = move.config("fresh", move.new, "fresh")
    _run(["run", str(fresh), "--quiet"])
    _compare(move, outcome)
    return outcome


def _run(arguments: list[str]) -> None:
    """Run a command to its end. What is already done is no error."""
    done = subprocess.run([sys.executable, "-m", "pipeline", *arguments], capture_output=True, text=True)
    over = "already" in done.stderr or "no migration" in done.stderr
    assert done.returncode == 0 or over, done.stderr


def _is_killed_after(arguments: list[str], seconds: float) -> bool:
    """Kill a command after some time; whether it was still at work."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(seconds)
    is_at_work = process.poll() is None
    if is_at_work:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return is_at_work


def _count(move: Move, step: str, outcome: Outcome) -> None:
    """Hold what the last run embedded against the rows that it wrote."""
    summary = json.loads((move.folder / "moved" / "run.json").read_text())
    new = f"{FIELD}.next" if step == "--to" else None
    outcome.embedded[step] = summary["embedded"]
    outcome.expected[step] = 0
    for uri in DeltaTable(str(move.folder / "moved" / "table")).file_uris() if new else ():
        for row in pq.read_table(uri, columns=["run_id", new]).to_pylist():
            if row["run_id"] == summary["run_id"]:
                outcome.expected[step] += len(row[new]["chunks"])


def _search_on(index_path: str, queries: list[str], answers: str, stop: Any) -> None:
    """Search until told to stop, each query with whatever version the index shows by then."""
    asked = 0
    with Path(answers).open("w") as out:
        while not stop.is_set():
            index = SearchIndex(index_path)
            query = queries[asked % len(queries)]
            asked += 1
            try:
                # Twice in the same open index: it is one version, whatever is published meanwhile.
                found = [search(index, query, mode="dense", field=FIELD) for _ in range(2)]
                hits: list[Any] = [[(hit.id, round(hit.score, 6)) for hit in one] for one in found]
            except Exception as error:
                hits = [repr(error)]
            out.write(json.dumps([query, hits]) + "\n")
            out.flush()


def _judge(move: Move, answers: Path, outcome: Outcome) -> None:
    """Every answer is that of the old embedding or that of the new one, never anything else."""
    old = SearchIndex(str(move.folder / "old-index"))
    new = SearchIndex(str(move.folder / "moved" / "index"))
    right: dict[str, list[Any]] = {}
    for line in answers.read_text().splitlines():
        query, found = json.loads(line)
        if query not in right:
            right[query] = [_ids(search(index, query, mode="dense", field=FIELD)) for index in (old, new)]
        outcome.answers += 1
        if len({json.dumps(one) for one in found}) != 1 or [id_ for id_, _ in found[0]] not in right[query]:
            outcome.wrong.append(f"{query[:60]}: {str(found)[:300]}")


def _ids(hits: list[Any]) -> list[str]:
    return [hit.id for hit in hits]


def _compare(move: Move, outcome: Outcome) -> None:
    """Hold the moved table against the one made from scratch."""
    moved, fresh = (_rows(move.folder / name / "table") for name in ("moved", "fresh"))
    places = [{id_: [chunk[:3] for chunk in row] for id_, row in rows.items()} for rows in (moved, fresh)]
    outcome.same_chunks = places[0] == places[1]
    for id_, row in moved.items():
        for one, other in zip(row, fresh[id_], strict=False):
            difference = np.abs(np.subtract(one[3], other[3])).max(initial=0)
            outcome.largest_difference = max(outcome.largest_difference, float(difference))


def _rows(table: Path) -> dict[str, list[Any]]:
    """Document -> its chunks: source field, offsets, vector."""
    found = {}
    for uri in DeltaTable(str(table)).file_uris():
        for row in pq.read_table(uri, columns=["_id", FIELD]).to_pylist():
            found[row["_id"]] = [
                (one["source_field"], one["start_offset"], one["end_offset"], one["embeddings"])
                for one in row[FIELD]["chunks"]
            ]
    return found


if __name__ == "__main__":
    folder, corpus, queries, old, new = sys.argv[1:]
    texts = [json.loads(line)["text"] for line in Path(queries).read_text().splitlines()]
    move = Move(Path(folder), Path(corpus), texts, old, new)
    move.folder.mkdir(parents=True, exist_ok=True)
    print(move_under_fire(move, {"--to": 3, "--switch": 1, "--drop-old": 1}))
