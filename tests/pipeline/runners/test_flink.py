"""Flink for real: its embedded cluster, and a cluster of processes some of which are killed in the middle of a run."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.engines import ROOT, flink_section
from support.flink_cluster import FlinkCluster
from support.small_run import SmallRun, document

pytestmark = pytest.mark.timeout(900)


@pytest.mark.flink
def test_a_run_on_the_embedded_cluster_from_another_directory(tmp_path: Path) -> None:
    """The command itself, in a process and folder of its own."""
    small = SmallRun(tmp_path, runner=flink_section())
    del small.config["index"]
    small.write([document(number) for number in range(8)] + [b"{"])
    done = start(small).communicate()
    assert len(small.rows()) == 8, done
    documents = small.summary["documents"]
    assert (documents["added"], documents["failed"]) == (8, 1)


EMBEDDINGS = "dense.chunks.list.element.embeddings.list.element"


@pytest.mark.flink
def test_a_failing_graph_is_one_error_and_publishes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = SmallRun(tmp_path, runner=flink_section())
    small.write([document(number) for number in range(8)])
    assert small.run() == 0
    small.write([document(number, edition=1) for number in range(8)])
    # Embeddings of the last part: the launcher looks at one of the first part, the workers at all of them.
    part = max(Path(small.table_path).glob("part-*.parquet"))
    group = pq.read_metadata(part).row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    (place,) = [one.data_page_offset for one in columns if one.path_in_schema == EMBEDDINGS]
    content = bytearray(part.read_bytes())
    content[place + 60 : place + 67] = b"damaged"
    part.write_bytes(content)
    assert small.run() == 1
    error = capsys.readouterr().err
    assert "the flink runner failed; nothing was published: " in error
    # Workers log tracebacks of their own; the command's last word is one sentence.
    assert error.rstrip().splitlines()[-1].startswith("error: the flink runner failed")
    assert small.version() == 1


STARTED: list["subprocess.Popen[str]"] = []


@pytest.fixture(autouse=True)
def _no_run_is_left() -> Iterator[None]:
    """A test that fails must not leave its run going on."""
    yield
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.wait()


def start(small: SmallRun) -> "subprocess.Popen[str]":
    """Start a run in a process of its own."""
    small.config_path.write_text(json.dumps(small.config))
    command = [sys.executable, "-m", "pipeline", "run", str(small.config_path)]
    return subprocess.Popen(
        command, cwd=small.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def slow_run(folder: Path, runner: dict[str, Any]) -> SmallRun:
    """A run that a real model keeps busy for a while and that publishes many small parts."""
    folder.mkdir()
    small = SmallRun(folder, runner=runner)
    properties = small.config["mappings"]["properties"]
    properties["dense"]["inference_id"] = ".minilm-l6-v2"
    del small.config["index"]
    small.config["source"]["split_bytes"] = 4_000
    small.config["table"]["part_rows"] = 5
    small.write([document(number) for number in range(300)])
    return small


def wait_for_parts(small: SmallRun, process: "subprocess.Popen[str]", count: int) -> None:
    """Wait until the run has finished some part files."""
    deadline = time.monotonic() + 300
    while len(list(Path(small.table_path).glob("part-*.parquet"))) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no part file has appeared"
        time.sleep(0.05)


def finish(small: SmallRun, process: "subprocess.Popen[str]") -> int:
    """Wait for a run; where it gave up, run again as a user would. Returns the number of runs."""
    output = process.communicate(timeout=400)[0]
    if process.returncode == 0:
        return 1
    again = start(small)
    output += again.communicate(timeout=400)[0]
    assert again.returncode == 0, output
    return 2


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the local runner publishes."""
    small = slow_run(tmp_path_factory.mktemp("flink") / "local", {"name": "local"})
    assert small.run() == 0
    return small.rows()


def same_documents(small: SmallRun, expected: dict[str, Any]) -> bool:
    """Nothing lost, nothing doubled, and every chunk where it belongs."""

    def outline(rows: dict[str, Any]) -> dict[str, Any]:
        return {
            key: (
                row["content_hash"],
                [(one["start_offset"], one["end_offset"]) for one in row["dense"]["chunks"]],
            )
            for key, row in rows.items()
        }

    return outline(small.rows()) == outline(expected)


@pytest.mark.cluster
def test_a_run_on_a_cluster(tmp_path: Path, expected: dict[str, Any]) -> None:
    with FlinkCluster(tmp_path / "flink") as cluster:
        small = slow_run(tmp_path / "run", cluster.runner())
        process = start(small)
        wait_for_parts(small, process, 1)
        assert len(cluster.workers()) == 2
        assert finish(small, process) == 1
        states = [job["state"] for job in cluster.get("/jobs/overview")["jobs"]]
    assert same_documents(small, expected)
    assert states == ["FINISHED", "FINISHED"]


@pytest.mark.cluster
@pytest.mark.parametrize("victim", ["task manager", "worker"])
def test_a_killed_process_loses_and_doubles_nothing(
    victim: str, tmp_path: Path, expected: dict[str, Any]
) -> None:
    with FlinkCluster(tmp_path / "flink") as cluster:
        small = slow_run(tmp_path / "run", cluster.runner())
        process = start(small)
        wait_for_parts(small, process, 3)
        if victim == "worker":
            cluster.workers()[0].kill()
        else:
            cluster.kill_task_manager()
        runs = finish(small, process)
        jobs = [job["jid"] for job in cluster.get("/jobs/overview")["jobs"]]
        losses = [cluster.get(f"/jobs/{job}/exceptions")["exceptionHistory"]["entries"] for job in jobs]
    print(f"after the loss of a {victim}: {runs} run(s), {len(jobs)} Flink jobs")
    assert same_documents(small, expected)
    assert any(losses), "the loss went by unnoticed, so nothing was tested"


def test_the_documented_cluster_command_names_this_folder() -> None:
    assert "pytest -m cluster" in (ROOT / "Makefile").read_text()
