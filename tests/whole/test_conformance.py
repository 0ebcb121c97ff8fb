"""Every runner publishes the same table: documents, offsets, failures, and what an incremental run changes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.engines import runner_section
from support.small_run import SmallRun, document

SAME = 0.99999
"""Least cosine of two embeddings that count as the same."""

BROKEN = [b'{"_id": "broken"', b'["no object"]']

ENGINES = [
    pytest.param("local-2", marks=pytest.mark.slow),
    pytest.param("flink", marks=pytest.mark.flink),
    pytest.param("flink-2", marks=[pytest.mark.flink, pytest.mark.long]),
    pytest.param("prism", marks=pytest.mark.cluster),
]


def two_nights(folder: Path, engine: str) -> dict[str, Any]:
    """A first run with failures, then one where documents are new, changed, gone and broken."""
    folder.mkdir()
    small = SmallRun(folder, runner=runner_section(engine))
    # Far more splits than workers, so that it matters who gets which.
    small.config["source"] |= {"split_bytes": 1_000, "max_delete_ratio": 0.5}
    del small.config["index"]
    small.write([document(number) for number in range(40)] + BROKEN)
    assert small.run() == 0
    first = small.rows()
    small.write(
        [document(n, int(n % 7 == 0)) for n in range(45) if n % 5] + [document(8, edition=2)] + BROKEN[:1]
    )
    assert small.run() == 0
    # Broken lines keep a full sync from deleting; without them it deletes.
    held = small.rows()
    small.write([document(n, int(n % 7 == 0)) for n in range(45) if n % 5])
    assert small.run() == 0
    reports = [
        sorted(
            (entry["path"].rpartition("/")[2], entry["line"], entry["error"], entry["stage"])
            for entry in report
        )
        for report in map(read_lines, sorted((folder / "failures").iterdir(), key=written))
    ]
    documents = small.summary["documents"]
    return {"first": first, "held": held, "last": small.rows(), "failures": reports, "documents": documents}


def written(path: Path) -> int:
    """When a report was written: two runs may begin in one second, and names tell seconds."""
    return path.stat().st_mtime_ns


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the local runner with one worker makes of it."""
    return two_nights(tmp_path_factory.mktemp("local") / "run", "local")


def test_the_expected_table_shows_every_case(expected: dict[str, Any]) -> None:
    assert len(expected["first"]) == 40
    assert len(expected["held"]) == 40 + 4
    assert len(expected["last"]) == 36
    assert [len(report) for report in expected["failures"]] == [2, 1]
    assert expected["documents"]["deleted"] == 8
    assert any(len(row["dense"]["chunks"]) > 1 for row in expected["last"].values())


@pytest.mark.parametrize("engine", ENGINES)
def test_same_table_on_every_runner(
    engine: str, expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small graphs too run on the worker processes of the local runner.
    monkeypatch.setattr("pipeline.run.plan.SMALL_SOURCE", 0)
    monkeypatch.setattr("pipeline.run.changes.SMALL_REWRITE", 0)
    found = two_nights(tmp_path / "run", engine)
    assert found["failures"] == expected["failures"]
    assert found["documents"] == expected["documents"]
    for night in ("first", "held", "last"):
        assert_same_rows(found[night], expected[night])


@pytest.mark.long
@pytest.mark.parametrize("engine", ENGINES)
def test_same_embeddings_of_a_real_model(engine: str, tmp_path: Path) -> None:
    rows = []
    for name in ("local", engine):
        (tmp_path / name).mkdir()
        small = SmallRun(tmp_path / name, runner=runner_section(name))
        small.config["mappings"]["properties"]["dense"]["inference_id"] = ".minilm-l6-v2"
        small.config["source"]["split_bytes"] = 1_000
        del small.config["index"]
        small.write([document(number) for number in range(12)])
        assert small.run() == 0
        rows.append(small.rows())
    assert_same_rows(rows[1], rows[0])


def assert_same_rows(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Everything is equal but embeddings, which point the same way."""
    assert found.keys() == expected.keys()
    for document_id, row in expected.items():
        for name, value in row.items():
            if name not in ("dense", "sparse"):
                assert found[document_id][name] == value
                continue
            pairs = list(zip(found[document_id][name]["chunks"], value["chunks"], strict=True))
            for one, other in pairs:
                assert cosine(one["embeddings"], other["embeddings"]) >= SAME
                assert {**one, "embeddings": None} == {**other, "embeddings": None}


def cosine(one: Any, other: Any) -> float:
    """Cosine of two embeddings, dense or sparse."""
    if one == other:
        return 1.0
    if isinstance(one[0], tuple):
        assert [token for token, _ in one] == [token for token, _ in other]
        one, other = ([weight for _, weight in value] for value in (one, other))
    first, second = np.asarray(one, float), np.asarray(other, float)
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
