"""The index between processes: some search while another updates, and an update may be killed at any step."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.index_table import IndexTable
from support.paths import ROOT

from pipeline.search.open_index import SearchIndex
from pipeline.search.search import search
from transforms.index.update import update_index
from transforms.index.verify import verify_index

MODES = ("bm25", "sparse", "dense", "hybrid")

SEARCHER = """
import json, sys
from pathlib import Path
from pipeline.search.search import search
from pipeline.search.open_index import SearchIndex

path, stop, out = sys.argv[1], Path(sys.argv[2]), open(sys.argv[3], "w")
earlier = SearchIndex(path)
last = False
while not last:
    last = stop.exists()
    opened = SearchIndex(path)
    for index in (opened, earlier):  # what was opened before the switch stays as it was
        for mode in ("bm25", "sparse", "dense", "hybrid"):
            found = {hit.id: hit.chunk.text for hit in search(index, "marker", mode=mode, k=100)}
            out.write(json.dumps([index.state.table["version"], mode, found]) + "\\n")
    out.flush()
    earlier = opened
"""

KILLED = """
import os, shutil, sys
import transforms.index.join, transforms.index.update as write

def die(*args, **kwargs):
    os.kill(os.getpid(), 9)

table, index, *steps = sys.argv[1:]
for step in steps:
    copy = f"{index}-{step}"
    shutil.copytree(index, copy)
    child = os.fork()
    if not child:
        if step == "save":
            write.IndexState.save = die
        else:
            setattr(transforms.index.join if step == "_commit" else write, step, die)
        write.update_index(table, copy)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def document(number: int, version: int) -> dict[str, Any]:
    return {"_id": f"d{number}", "text": f"marker {number} of version {version}", "year": version}


@pytest.fixture
def table(tmp_path: Path) -> IndexTable:
    table = IndexTable(tmp_path / "table")
    table.put(*[document(number, 0) for number in range(12)])
    return table


@pytest.fixture
def index(tmp_path: Path, table: IndexTable) -> str:
    path = str(tmp_path / "index")
    update_index(table.path, path)
    return path


def test_processes_search_while_another_updates(table: IndexTable, index: str, tmp_path: Path) -> None:
    """Each answer of two searching processes is exactly one version: never a mixture, never a deleted document."""
    texts = {f"d{number}": document(number, 0)["text"] for number in range(12)}
    expected = {1: dict(texts)}  # version 0 is the empty table
    stop, outputs = tmp_path / "stop", [tmp_path / "first", tmp_path / "second"]
    searchers = [
        subprocess.Popen(
            [sys.executable, "-c", SEARCHER, index, str(stop), str(output)], cwd=ROOT, stderr=subprocess.PIPE
        )
        for output in outputs
    ]
    wait_for(lambda: all(output.exists() and output.stat().st_size for output in outputs), searchers)
    for version in range(2, 10):
        changed = [document(number, version) for number in range(version, version + 3)]
        added, deleted = document(100 + version, version), f"d{(version + 5) % 12}"
        new = {one["_id"]: one["text"] for one in (*changed, added) if one["_id"] != deleted}
        assert (
            table.put(*[one for one in (*changed, added) if one["_id"] in new], delete=(deleted,)) == version
        )
        texts = {id_: text for id_, text in texts.items() if id_ != deleted} | new
        expected[version] = dict(texts)
        update_index(table.path, index, rebuild=version == 5)
    stop.touch()
    assert [searcher.wait(60) for searcher in searchers] == [0, 0], [
        searcher.stderr.read().decode() for searcher in searchers if searcher.stderr
    ]
    for output in outputs:
        answers = [json.loads(line) for line in output.read_text().splitlines()]
        for version, mode, found in answers:
            assert found == expected[version], (version, mode)
        seen = [version for version, _, _ in answers]
        assert seen[0] == 1
        assert seen[-5] == 9  # opened after the last switch
        assert len(set(seen)) >= 3


def wait_for(holds: Any, searchers: list[Any]) -> None:
    """Wait until the searchers have begun."""
    end = time.monotonic() + 60
    while not holds() and time.monotonic() < end and all(one.poll() is None for one in searchers):
        time.sleep(0.01)
    assert holds()


def shown(path: str) -> dict[str, dict[str, str]]:
    """What each mode finds."""
    opened = SearchIndex(path)
    return {
        mode: {hit.id: hit.chunk.text for hit in search(opened, "marker", mode=mode, k=100)} for mode in MODES
    }


def test_an_update_that_is_killed_at_any_step_leaves_the_old_index(table: IndexTable, index: str) -> None:
    before = shown(index)
    table.put(document(3, 1), document(50, 1), delete=("d1",))
    steps = ("build_shard", "join_texts", "join_chunks", "_commit", "join_fields", "save", "_remove_old")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, table.path, index, *steps],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert killed.stdout.split() == [str(-signal.SIGKILL)] * len(steps)
    after = {mode: found | {"d3": document(3, 1)["text"]} for mode, found in before.items()}
    for found in after.values():
        found.update({"d50": document(50, 1)["text"]})
        del found["d1"]
    for step in steps:
        # The state is renamed into place in `save`: before it all is old, after it all is new.
        assert shown(f"{index}-{step}") == (after if step == "_remove_old" else before), step
        update_index(table.path, f"{index}-{step}")
        assert shown(f"{index}-{step}") == after, step
        assert verify_index(table.path, f"{index}-{step}") == []


def test_what_a_killed_update_left_is_not_opened_and_goes(table: IndexTable, index: str) -> None:
    before = shown(index)
    state = Path(index) / "index.json"
    half = Path(index) / "g000099"
    shutil.copytree(Path(index) / json.loads(state.read_text())["generation"], half)
    os.truncate(half / "documents.arrow", 10)
    shutil.copytree(half, Path(index) / "build-g000099" / "0")
    (Path(index) / "index.json.4711").write_text('{"format": 1, "gener')
    assert shown(index) == before
    update_index(table.path, index, rebuild=True)
    assert shown(index) == before
    assert sorted(path.name for path in Path(index).iterdir() if path.name.startswith("index.json")) == [
        "index.json"
    ]
    assert not half.exists()
    assert not list(Path(index).glob("build-*"))
