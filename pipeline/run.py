"""A run: scan the source, plan, embed, publish one version of the table, bring the index up to date."""

import uuid
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from pipeline import graph
from pipeline.config import RunConfig
from pipeline.errors import PipelineError, TooManyFailures, original_error
from pipeline.graph import RunContext
from pipeline.layout import ResolvedConfig, resolve
from pipeline.open_runs import OpenRun, begin_run, clear_dead_runs, now, open_runs, table_lock
from pipeline.plan import Plan, Scan, make_plan, part_changes, stale_rows
from pipeline.report import RunReport
from pipeline.runners import check_runner, create_runner, pipeline_options
from pipeline.table import TableState, active_parts, commit, open_table, read_state
from pipeline.table_log import read_log
from transforms import files
from transforms.read import Split, list_splits
from transforms.read_work import WORK_SCHEMA, work_path
from transforms.records import Failure, PartFile
from transforms.scan import SCAN_SCHEMA, scan_path
from transforms.write_failures import read_records, write_failures


@dataclass(frozen=True)
class PlannedRun:
    """A run up to the point where models come in.

    Attributes:
        resolved: the config with its endpoints and models.
        run: what the run's graphs share.
        base: the table as it was; None when there is none.
        state: rows of the table.
        adoptable: rows of parts that killed runs finished.
        others: the other open runs.
        splits: the source, with the line numbers that the scan found.
        scan: what the scan found.
        plan: what there is to do.
    """

    resolved: ResolvedConfig
    run: RunContext
    base: DeltaTable | None
    state: TableState
    adoptable: TableState
    others: Sequence[OpenRun]
    splits: Sequence[Split]
    scan: Scan
    plan: Plan

    def location(self, scan_row: int) -> tuple[str, int]:
        """File and line of a row of the scan; line 0 stands for a whole file."""
        whole_file = self.resolved.config.source.format in ("text", "markdown")
        line = 0 if whole_file else int(self.scan.lines[scan_row])
        return self.splits[self.scan.splits[scan_row]].path, line


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


def plan_run(resolved: ResolvedConfig, report: RunReport) -> PlannedRun:
    """Scan source and table and compare them."""
    config = resolved.config
    base = open_table(config.table.path)
    splits = find_splits(config)
    started = now()
    run_id = f"{started:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    others = open_runs(config.table.path)
    folder = begin_run(config.table.path, run_id, started)
    run = RunContext(run_id, started, folder, folder if files.is_local(folder) else None)
    report.begin(run)
    with report.stage("scan"):
        execute(config, lambda pipeline: graph.scan_graph(pipeline, resolved, run, splits))
        splits, scan = read_scans(splits, folder)
    with report.stage("plan"):
        active = active_parts(base) if base is not None else []
        state = read_state(config.table.path, active)
        adoptable = read_state(config.table.path, _finished_parts(config.table.path, others, active))
        plan = make_plan(
            scan,
            state,
            adoptable,
            resolved.layout.fingerprint,
            full_sync=config.source.sync == "full",
            deletions=read_deletions(config),
        )
    if not plan.documents and config.source.sync == "full":
        files.delete_folder(folder)
        raise PipelineError(
            f"source.path {config.source.paths} has no documents ({len(plan.unreadable)} unreadable lines). An empty "
            "source is an error, not a deletion; nothing was changed."
        )
    report.planned(plan)
    return PlannedRun(resolved, run, base, state, adoptable, others, splits, scan, plan)


def find_splits(config: RunConfig) -> list[Split]:
    """List the source's files and cut them into pieces, enough for all workers.

    Raises:
        PipelineError: a path matches nothing or cannot be read.
    """
    source = config.source
    workers = max(config.runner.workers, config.runner.parallelism or 1)
    try:
        splits = list_splits(source.paths, source.format, source.split_bytes)
        if workers > 1 and len(splits) < 4 * workers:
            total = sum(split.end - split.start for split in splits)
            splits = list_splits(source.paths, source.format, max(total // (4 * workers), 64 * 1024))
    except OSError as error:
        raise PipelineError(f"the source cannot be read: {error}") from None
    return splits


def read_deletions(config: RunConfig) -> list[str]:
    """Read the ids of `source.deletions`."""
    if config.source.deletions is None:
        return []
    try:
        with files.open_read(config.source.deletions) as handle:
            lines = handle.read().decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(f"source.deletions [{config.source.deletions}] cannot be read: {error}") from None
    return [line for line in lines if line]


def read_scans(splits: Sequence[Split], folder: str) -> tuple[list[Split], Scan]:
    """Put the scans of all splits together, in source order, and number the lines of each file through."""
    numbered, tables = [], []
    first_line: dict[str, int] = {}
    for split in splits:
        with files.open_read(scan_path(folder, split.index)) as handle:
            table = pq.read_table(handle)
        split = replace(split, first_line=first_line.get(split.path, 1))
        first_line[split.path] = split.first_line + int(table.schema.metadata[b"lines"])
        lines = pc.add(table.column("line"), split.first_line)
        numbered.append(split)
        tables.append(table.set_column(2, "line", lines).replace_schema_metadata(None))
    joined = pa.concat_tables([SCAN_SCHEMA.empty_table(), *tables])
    lengths = [table.num_rows for table in tables]
    column = {name: joined.column(name).combine_chunks() for name in joined.column_names}
    scan = Scan(
        ids=column["id"],
        content_hashes=column["content_hash"],
        lines=column["line"].to_numpy(),
        splits=np.repeat(np.arange(len(tables), dtype=np.int32), lengths),
        deleted=column["deleted"].to_numpy(zero_copy_only=False),
        errors=column["error"],
        messages=column["message"],
    )
    return numbered, scan


def _finished_parts(table_path: str, others: Sequence[OpenRun], active: Sequence[str]) -> list[str]:
    known = set(active)
    return [part for run in others for part in run.parts(table_path) if part not in known]


def check_deletions(planned: PlannedRun, *, allow_mass_delete: bool) -> None:
    """Refuse a full sync that would delete too much of the table.

    Raises:
        PipelineError: more than `source.max_delete_ratio` of the rows would go.
    """
    source = planned.resolved.config.source
    deleted, rows = len(planned.plan.deleted), len(planned.state)
    if source.sync == "incremental" or allow_mass_delete or deleted <= source.max_delete_ratio * rows:
        return
    files.delete_folder(planned.run.folder)
    raise PipelineError(
        f"this run would delete {deleted:,} of the table's {rows:,} documents, more than source.max_delete_ratio "
        f"[{source.max_delete_ratio}] allows: the source has {planned.plan.documents:,} documents in "
        f"{len({split.path for split in planned.splits}):,} files. Nothing was changed. If that is right, run again "
        "with --allow-mass-delete."
    )


def check_models(planned: PlannedRun) -> None:
    """Refuse to change a model while rows stay that this run does not embed again.

    Raises:
        PipelineError: such rows would be left with embeddings of the old model, or with none.
    """
    plan = planned.plan
    leaving = np.concatenate([plan.deleted, plan.previous[plan.previous >= 0], plan.adopted_previous])
    stale = stale_rows(planned.state, leaving[leaving >= 0], planned.resolved.embedding_fingerprints)
    if plan.is_empty or not len(stale):
        return
    files.delete_folder(planned.run.folder)
    raise PipelineError(
        f"the model of a semantic_text field has changed, and {len(stale):,} of the table's {len(planned.state):,} "
        "documents are not in what this run could read of the source. A table never mixes the embeddings of two "
        "models; nothing was changed. Run once with source.sync=full over the whole, readable source."
    )


def unreadable_failures(planned: PlannedRun) -> list[Failure]:
    """The lines of the source that are no document."""
    failures = []
    for row in planned.plan.unreadable.tolist():
        error, message = planned.scan.errors[row].as_py(), planned.scan.messages[row].as_py()
        failures.append(Failure("read", None, *planned.location(row), error, message))
    return failures


def embed_work(planned: PlannedRun, report: RunReport) -> tuple[list[PartFile], list[Failure]]:
    """Chunk and embed what the plan asks for; returns the finished parts and everything that failed."""
    splits = write_work(planned)
    run = planned.run
    if splits:
        with report.stage("embed", documents=len(planned.plan.work)):
            execute(
                planned.resolved.config,
                lambda pipeline: graph.embed_graph(pipeline, planned.resolved, run, splits),
            )
    parts = [PartFile(**record) for record in read_records(graph.parts_path(run))]
    failures = [Failure(**record) for record in read_records(graph.failures_path(run))]
    report.embedded(parts)
    return parts, unreadable_failures(planned) + failures


def write_work(planned: PlannedRun) -> list[Split]:
    """Write each split's work list; returns the splits that have work."""
    plan, scan = planned.plan, planned.scan
    work_splits = scan.splits[plan.work]
    has_previous = plan.previous >= 0
    part_index = (
        np.where(has_previous, planned.state.part[plan.previous], 0)
        if len(planned.state)
        else plan.previous * 0
    )
    row = (
        np.where(has_previous, planned.state.row[plan.previous], 0)
        if len(planned.state)
        else plan.previous * 0
    )
    columns = [
        pa.array(scan.lines[plan.work]),
        scan.content_hashes.take(pa.array(plan.work)),
        pa.DictionaryArray.from_arrays(
            pa.array(part_index.astype(np.int32), mask=~has_previous),
            pa.array(planned.state.parts, pa.string()),
        ),
        pa.array(row, pa.int64(), mask=~has_previous),
    ]
    table = pa.Table.from_arrays(columns, schema=WORK_SCHEMA)
    with_work, starts = np.unique(work_splits, return_index=True)
    ends = [*starts.tolist(), len(work_splits)][1:]
    for index, start, end in zip(with_work.tolist(), starts.tolist(), ends, strict=True):
        with files.create(work_path(planned.run.folder, index)) as handle:
            pq.write_table(table.slice(start, end - start), handle, compression="zstd")
    return [planned.splits[index] for index in with_work.tolist()]


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


def execute(config: RunConfig, build: Callable[[beam.Pipeline], None]) -> None:
    """Build a graph and run it to its end.

    Raises:
        PipelineError: the runner failed or gave up.
        OSError: a file could not be read or written.
        KeyboardInterrupt: the run was stopped; SystemExit where it was by SIGTERM.
    """
    pipeline = beam.Pipeline(runner=create_runner(config.runner), options=pipeline_options(config.runner))
    build(pipeline)
    try:
        state = pipeline.run().wait_until_finish()
    except Exception as error:
        # Beam wraps whatever a stage raises, Ctrl-C included, in an error of its own.
        raise original_error(error) from None
    if state != "DONE":
        raise PipelineError(f"the {config.runner.name} runner ended in state {state}; nothing was published")
