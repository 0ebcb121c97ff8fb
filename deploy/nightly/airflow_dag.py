"""Airflow DAG: ingest every night, then verify the table; on Sundays clear away old files. For Airflow 3.

Copy it to the DAGs folder. The tasks call the command line in the program's own environment, so that neither needs
the other's packages.
"""

import subprocess
from datetime import datetime, timedelta

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException

HOME = "/opt/semantic-ingest"
CONFIG = "run_configs/quickstart.yaml"
NEEDS_A_PERSON = {2: "the run config is wrong", 3: "a quality gate failed", 4: "too many documents failed"}


def pipeline(*arguments: str) -> None:
    """Run a command; what another try cannot mend fails for good, everything else is tried again."""
    command = [f"{HOME}/.venv/bin/python", "-m", "pipeline", *arguments, "--format", "json"]
    code = subprocess.run(command, cwd=HOME).returncode
    if code in NEEDS_A_PERSON:
        raise AirflowFailException(f"exit code {code}: {NEEDS_A_PERSON[code]}; see the log above")
    if code:
        raise RuntimeError(f"exit code {code}; the next try goes on from the finished parts")


@dag(
    schedule="15 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=15)},
    tags=["ingest"],
)
def semantic_ingest() -> None:
    """Chunk, embed and publish what changed."""

    @task(execution_timeout=timedelta(hours=8))
    def ingest() -> None:
        pipeline("run", CONFIG, "--lock", "--quiet", "--log-format", "json")

    @task(retries=0)
    def verify() -> None:
        pipeline("verify", CONFIG)

    @task
    def vacuum() -> None:
        if datetime.now().isoweekday() == 7:
            pipeline("vacuum", CONFIG, "--older-than", "14")

    ingest() >> verify() >> vacuum()


semantic_ingest()
