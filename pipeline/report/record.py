"""Keep what is known of a run when it ends: run.json, report.html, a line in runs.jsonl, and what monitoring reads.

All of it lies beside the table. Nothing here can fail a run: the table is published or it is not, and a record that
cannot be written is a warning.
"""

import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import orjson

from pipeline.config.run_config import RunConfig
from pipeline.journal import add_to_journal, read_journal
from pipeline.logs import log
from pipeline.report.page import render_report
from pipeline.report.run_json import RunSummary
from pipeline.report.telemetry import export_opentelemetry, write_prometheus
from transforms import files

KEPT_KEYS = (
    "run_id",
    "started",
    "status",
    "seconds",
    "documents",
    "chunks",
    "embedded",
    "reused",
    "tokens",
    "truncated",
    "tokens_per_second",
    "table_version",
    "retries",
    "failures_by_reason",
    "gates",
    "error",
)
"""What of a summary runs.jsonl holds."""


def keep_record(config: RunConfig, summary: RunSummary) -> None:
    """Write everything that is kept of a run.

    Args:
        config: the run config.
        summary: the run.
    """
    ended = time.time()
    path = config.run_json
    try:
        if path is not None:
            record = summary.to_json()
            _write(path, orjson.dumps(record, option=orjson.OPT_INDENT_2))
            last_runs = read_journal(path.with_name("runs.jsonl"))
            _write(path.with_name("report.html"), render_report(summary, last_runs, path.parent).encode())
            add_to_journal(path.with_name("runs.jsonl"), {key: record[key] for key in KEPT_KEYS})
        if config.telemetry.prometheus is not None:
            write_prometheus(config.telemetry.prometheus, summary, config.table.path, ended)
    except OSError as error:
        log.warning("the run's record could not be written: %s", error)
    export_opentelemetry(summary, config.table.path, ended)


def _write(path: Path, content: bytes) -> None:
    with files.create(str(path)) as handle:
        handle.write(content)


PACKAGES = (
    "semantic-ingest",
    "apache-beam",
    "deltalake",
    "fastokens",
    "pyarrow",
    "tantivy",
    "tokenizers",
    "torch",
    "transformers",
)
"""Packages whose versions a run records."""


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter to a run's results."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
