"""A run: scan the source, plan, embed, publish one version of the table, bring the index up to date."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import graph
from pipeline.config import RunConfig
from pipeline.errors import PipelineError, TooManyFailures
from pipeline.layout import resolve
from pipeline.open_runs import clear_dead_runs, table_lock
from pipeline.plan import part_changes, stale_rows
from pipeline.prepare import (
    PlannedRun,
    check_deletions,
    check_models,
    plan_run,
    unreadable_failures,
    write_work,
)
from pipeline.report import RunReport
from pipeline.runners import check_runner, execute
from pipeline.table import commit, open_table
from pipeline.table_log import read_log
from transforms import files
from transforms.records import Failure, PartFile
from transforms.retries import read_retries
from transforms.write_failures import read_records, write_failures

SMALL_REWRITE = 20
"""So few parts are copied before worker processes would have started."""


def run_pipeline(
    config: RunConfig, *, allow_mass_delete: bool = False, lock: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """Run the whole job.

    Args:
        config: the run config.
        allow_mass_delete: let a full sync delete more than `source.max_delete_ratio` of the table.
        lock: fail at once when another run of the table is in progress.
        quiet: show no progress.

    Returns:
        The summary, as it is printed and written to run.json.

    Raises:
        PipelineError: the run could not be done; the published table is as it was.
    """
    check_runner(config)
    resolved = resolve(config)
    with table_lock(config.table.path) if lock else nullcontext(), RunReport(resolved, quiet=quiet) as report:
        planned = plan_run(resolved, report)
        check_deletions(planned, allow_mass_delete=allow_mass_delete)
        check_models(planned)
        if planned.plan.is_empty:
            failures = unreadable_failures(planned)
            version = planned.base.version() if planned.base is not None else None
            changes = Changes()
        else:
            written, failures = embed_work(planned, report)
            changes = collect_changes(planned, written, failures, report)
        report_failures(planned, failures, report)
        if not planned.plan.is_empty:
            pass_gates(planned, changes, failures, report)
            version = publish(planned, changes, report)
        files.delete_folder(planned.run.folder)
        report.published(version)
        report.index_updated(update_index(config, report))
        return report.finish()


def embed_work(planned: PlannedRun, report: RunReport) -> tuple[list[PartFile], list[Failure]]:
    """Chunk and embed what the plan asks for; returns the finished parts and everything that failed."""
    splits = write_work(planned)
    run = planned.run
    if splits:
        try:
            with report.stage("embed", documents=len(planned.plan.work)):
                execute(
                    planned.resolved.config,
                    lambda pipeline: graph.embed_graph(pipeline, planned.resolved, run, splits),
                    small=len(splits) == 1,
                )
        finally:
            report.retried(read_retries(run.folder))
    parts = [PartFile(**record) for record in read_records(graph.parts_path(run))]
    failures = [Failure(**record) for record in read_records(graph.failures_path(run))]
    report.embedded(parts)
    return parts, unreadable_failures(planned) + failures


@dataclass(frozen=True)
class Changes:
    """What a commit does to the table.

    Attributes:
        added: new part files.
        removed: part files that leave it.
    """

    added: list[PartFile] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


def collect_changes(
    planned: PlannedRun, written: list[PartFile], failures: list[Failure], report: RunReport
) -> Changes:
    """Decide what the commit adds and removes, and copy the rows that stay of parts that lose others.

    A document that failed keeps the row that it has.

    Raises:
        PipelineError: documents are unaccounted for.
    """
    plan = planned.plan
    failed = _failed_work(planned, failures)
    rows = sum(part.rows for part in written)
    if rows + int(failed.sum()) != len(plan.work):
        raise PipelineError(
            f"{len(plan.work)} documents were planned, but {rows} were written and {int(failed.sum())} failed. "
            "Nothing was published; please report this."
        )
    replaced = plan.previous[~failed & (plan.previous >= 0)]
    taken_over = plan.adopted_previous[plan.adopted_previous >= 0]
    dropped = np.concatenate([plan.deleted, replaced, taken_over])
    stale = stale_rows(planned.state, dropped, planned.resolved.embedding_fingerprints)
    if planned.base is not None and _schema_changed(planned):
        stale = np.arange(len(planned.state))
    table_changes = part_changes(planned.state, dropped, stale)
    not_adopted = np.setdiff1d(np.arange(len(planned.adoptable)), plan.adopted)
    adopted_changes = part_changes(planned.adoptable, not_adopted)
    rewrites = table_changes.rewrites + adopted_changes.rewrites
    if rewrites:
        with report.stage("rewrite"):
            execute(
                planned.resolved.config,
                lambda pipeline: graph.rewrite_graph(pipeline, planned.resolved, planned.run, rewrites),
                small=len(rewrites) <= SMALL_REWRITE,
            )
    rewritten = [PartFile(**record) for record in read_records(graph.rewritten_path(planned.run))]
    adopted = [_existing_part(planned, part) for part in adopted_changes.kept]
    removed = table_changes.removed + [rewrite.path for rewrite in table_changes.rewrites]
    added = int((plan.previous[~failed] < 0).sum() + (plan.adopted_previous < 0).sum())
    report.changed(added, len(replaced) + len(taken_over), len(rewrites))
    return Changes(written + rewritten + adopted, removed)


def _failed_work(planned: PlannedRun, failures: list[Failure]) -> Any:
    """Which documents of the work failed, as a boolean array."""
    ids = {failure.document_id for failure in failures if failure.document_id is not None}
    places = {(failure.path, failure.line) for failure in failures if failure.document_id is None}
    work_ids = planned.scan.ids.take(pa.array(planned.plan.work)).to_pylist() if failures else []
    failed = np.zeros(len(planned.plan.work), bool)
    for position, (document_id, row) in enumerate(zip(work_ids, planned.plan.work.tolist(), strict=False)):
        failed[position] = document_id in ids or planned.location(row) in places
    return failed


def _schema_changed(planned: PlannedRun) -> bool:
    from deltalake import Schema

    assert planned.base is not None
    return bool(
        planned.base.schema() != Schema.from_arrow(planned.resolved.layout.schema().remove_metadata())
    )


def _existing_part(planned: PlannedRun, part: str) -> PartFile:
    """Describe a finished part of another run."""
    path = files.join(planned.resolved.config.table.path, part)
    ids = planned.adoptable.ids.filter(
        pa.array(planned.adoptable.part == planned.adoptable.parts.index(part))
    )
    bounds = pc.min_max(ids).as_py()
    return PartFile(part, files.list_files(path)[0][1], len(ids), bounds["min"], bounds["max"])


def report_failures(planned: PlannedRun, failures: list[Failure], report: RunReport) -> None:
    """Write the failure report and stop the run when there are too many.

    Raises:
        TooManyFailures: their share of the source is above `failures.max_ratio`, or a service failed for every
            document that there was to embed.
    """
    config = planned.resolved.config
    path = files.join(config.failures.path, f"{planned.run.run_id}.jsonl")
    if failures:
        write_failures(path, failures)
    report.failed(failures, path)
    documents = planned.plan.documents + len(planned.plan.unreadable)
    outages = sum(failure.error == "TransientError" for failure in failures)
    service_is_down = 0 < outages == len(planned.plan.work)
    if service_is_down or len(failures) > config.failures.max_ratio * documents:
        worst = failures[0]
        reason = f"more than failures.max_ratio [{config.failures.max_ratio}] allows"
        if service_is_down:
            reason = "and so did every one that there was to embed: the service is in trouble"
        raise TooManyFailures(
            f"{len(failures):,} of {documents:,} documents failed, {reason}; nothing was published. The first: "
            f"{worst.stage} {worst.path}:{worst.line}: {worst.error}: {worst.message}. All of them: {path}"
        )


def pass_gates(planned: PlannedRun, changes: Changes, failures: list[Failure], report: RunReport) -> None:
    """Measure the new snapshot before it is published.

    Raises:
        GateFailed: a measure is out of its bounds.
    """
    config = planned.resolved.config
    if not config.gates.measures:
        return
    from pipeline.gates import check_gates, require_gates

    with report.stage("gates"):
        counters = report.counters()
        ratios = {
            "failures": len(failures) / max(planned.plan.documents + len(planned.plan.unreadable), 1),
            "truncated": counters["truncated"] / max(counters["chunks"], 1),
        }
        results = check_gates(config, planned.base, changes.added, changes.removed, ratios)
    report.gated(results)
    require_gates(results)


def publish(planned: PlannedRun, changes: Changes, report: RunReport) -> int | None:
    """Commit the new version, then clear away what killed runs left.

    Returns:
        The version; the old one when every document that changed has failed.
    """
    if not changes.added and not changes.removed:
        return planned.base.version() if planned.base is not None else None
    path = planned.resolved.config.table.path
    with report.stage("commit"):
        metadata = {"semantic_ingest": {"run_id": planned.run.run_id, **report.counters()}}
        schema = planned.resolved.layout.schema()
        check_parts(path, changes.added)
        version = commit(path, planned.base, schema, changes.added, changes.removed, metadata)
        if planned.others:
            clear_dead_runs(path, planned.others, read_log(path).parts)
    return version


def check_parts(table_path: str, parts: Sequence[PartFile]) -> None:
    """Look at the part files once more before a version names them.

    Raises:
        PipelineError: one is gone or has another size: somebody cleared the table's folder during the run.
    """
    sizes = {path.replace("\\", "/").rpartition("/")[2]: size for path, size in list_parts(table_path)}
    damaged = [part.path for part in parts if sizes.get(part.path) != part.size]
    if damaged:
        raise PipelineError(
            f"{len(damaged):,} finished part files of this run are gone or were changed, for example {damaged[0]} in "
            f"[{table_path}]; something else cleared that folder during the run. Nothing was published; run again."
        )


def list_parts(table_path: str) -> list[tuple[str, int]]:
    """Path and size of every part file in the table's folder, published or not."""
    return files.list_files(files.join(table_path, "part-*.parquet"))


def update_index(config: RunConfig, report: RunReport) -> int | None:
    """Bring the index to the table's version; returns that version, or None where there is no index."""
    if config.index is None or open_table(config.table.path) is None:
        return None
    from transforms.index_files import IndexUnusable
    from transforms.write_index import update_index as catch_up

    with report.stage("index"):
        try:
            result = catch_up(config.table.path, config.index.path)
        except (IndexUnusable, OSError) as error:
            raise PipelineError(
                f"the table is published, but its index [{config.index.path}] is not up to date: {error}. "
                "The next run does that, or `python -m pipeline index CONFIG`."
            ) from None
    return int(result.table_version)
