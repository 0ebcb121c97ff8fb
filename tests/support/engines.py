"""The engines that tests run on: where their programs are, and the `runner` section that names each."""

import os
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT

FLINK_JAR = Path(os.environ.get("FLINK_JOB_SERVER_JAR", ROOT / "build" / "jars" / "flink-job-server.jar"))
PRISM = Path(os.environ.get("PRISM", ROOT / "build" / "bin" / "prism"))


def flink_jar() -> str:
    """The job server's jar; a test that needs it fails where there is none."""
    if not FLINK_JAR.is_file():
        pytest.fail(
            f"there is no Flink job server at {FLINK_JAR}: run `make flink-jar` (needs Java and Maven)"
        )
    return str(FLINK_JAR)


def flink_section(parallelism: int = 1) -> dict[str, Any]:
    """Flink's embedded cluster, workers in this process."""
    return {"name": "flink", "job_server_jar": flink_jar(), "parallelism": parallelism}


def prism_section() -> dict[str, Any]:
    """Prism, workers in this process."""
    if not PRISM.is_file():
        pytest.fail(f"there is no Prism at {PRISM}: run `make prism` (needs Go)")
    return {"name": "prism", "prism_location": str(PRISM)}


def runner_section(engine: str) -> dict[str, Any]:
    """The `runner` section of an engine, by the name that tests give it."""
    sections = {
        "local": lambda: {"name": "local"},
        "local-2": lambda: {"name": "local", "workers": 2},
        "flink": flink_section,
        "flink-2": lambda: flink_section(2),
        "prism": prism_section,
    }
    return sections[engine]()
