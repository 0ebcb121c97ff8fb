"""The first half of a run: scan the source, read the table's state, make the plan, write the work lists.

Nothing here needs a model, and nothing changes the table.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from pipeline import graph
from pipeline.config import RunConfig
from pipeline.errors import PipelineError
from pipeline.graph import RunContext
from pipeline.layout import ResolvedConfig
from pipeline.open_runs import OpenRun, begin_run, now, open_runs
from pipeline.plan import Plan, Scan, make_plan, stale_rows
from pipeline.report import RunReport
from pipeline.runners import execute
from pipeline.table import TableState, active_parts, open_table, read_state
from transforms import files
from transforms.read import Split, list_splits
from transforms.read_work import WORK_SCHEMA, work_path
from transforms.records import Failure
from transforms.scan import SCAN_SCHEMA, scan_path

SMALL_SOURCE = 256 * 1024 * 1024
"""A source of fewer bytes is scanned in some ten seconds; worker processes take as long to start."""


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
        execute(
            config,
            lambda pipeline: graph.scan_graph(pipeline, resolved, run, splits),
            small=sum(split.end - split.start for split in splits) < SMALL_SOURCE,
        )
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
            enough = min(source.split_bytes, max(total // (4 * workers), 64 * 1024))
            splits = list_splits(source.paths, source.format, enough)
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
