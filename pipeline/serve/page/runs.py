"""The page's runs: the table's versions, the runs that made them, their reports, evaluations over time."""

from dataclasses import asdict, fields
from typing import Any

import orjson

from models.errors import bad_request
from pipeline.config.run_config import RunConfig
from pipeline.errors import PipelineError
from pipeline.journal import read_journal
from pipeline.report.page import render_report
from pipeline.report.run_json import GateResult, RunSummary, Stage
from pipeline.serve.corpus import Corpus
from pipeline.table.history import history
from pipeline.table.open_runs import open_runs

VERSIONS = 100
"""Versions of the table that the page shows."""


def config_of(corpus: Corpus) -> RunConfig:
    """The run config of a server.

    Raises:
        InferenceError: 404, it was started without one.
    """
    if corpus.config is None:
        bad_request("this server was started without a run config, so that it knows no runs", status=404)
    return corpus.config


def overview(corpus: Corpus) -> dict[str, Any]:
    """Everything that the list of runs shows."""
    config = config_of(corpus)
    runs = _runs(config)
    try:
        versions = [asdict(version) for version in history(config, VERSIONS)]
        going_on = [{"run_id": run.run_id, "started": run.started} for run in open_runs(config.table.path)]
    except PipelineError:  # no table yet
        versions, going_on = [], []
    path = config.run_json
    evaluations = [] if path is None else read_journal(path.with_name("evaluations.jsonl"))
    return {
        "table": config.table.path,
        "versions": versions,
        "runs": list(reversed(runs)),
        "going_on": going_on,
        "evaluations": evaluations,
    }


def _runs(config: RunConfig) -> list[dict[str, Any]]:
    """The runs, the oldest first; of the last one everything is known."""
    path = config.run_json
    if path is None:
        return []
    found = read_journal(path.with_name("runs.jsonl"))
    try:
        last = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return found
    return [last if run.get("run_id") == last.get("run_id") else run for run in found]


def report(corpus: Corpus, run_id: str) -> str:
    """The report of a run as a page of its own, as far as it is still known.

    Raises:
        InferenceError: 404, there is no such run.
    """
    runs = _runs(config_of(corpus))
    for at, run in enumerate(runs):
        if run.get("run_id") == run_id:
            return render_report(_summary(run), runs[:at])
    bad_request(f"no run [{run_id}]", "resource_not_found_exception", 404)


def _summary(run: dict[str, Any]) -> RunSummary:
    known = {one.name for one in fields(RunSummary)}
    values = {name: value for name, value in run.items() if name in known}
    values["gates"] = [GateResult(**gate) for gate in run.get("gates") or []]
    values["stages"] = [Stage(**stage) for stage in run.get("stages") or []]
    return RunSummary(**values)
