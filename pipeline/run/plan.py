"""The first half of a run: scan the source, read the table's state, make the plan, write the work lists.

Nothing here needs a model, and nothing changes the table.
"""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from pipeline.config.resolve import ResolvedConfig
from pipeline.report.run_report import RunReport
from pipeline.run.compare import Plan, Scan, make_plan
from pipeline.run.source import SMALL_SOURCE, find_source, read_deletions, read_scans, source_format
from pipeline.runners.execute import execute
from pipeline.table.delta import TableState, active_parts, open_table, read_whole
from pipeline.table.open_runs import OpenRun, RunContext, begin_run, now, open_runs
from transforms import files
from transforms.read.formats import FORMATS
from transforms.read.scan import write_scan
from transforms.records import Failure, Piece, Split


@dataclass(frozen=True)
class PlannedRun:
    """A run up to the point where models come in.

    Attributes:
        resolved: the config with its endpoints and models.
        run: what the run's graphs share.
        base: the table as it was; None when there is none.
        state: rows of the table.
        finished_rows: rows of parts that killed runs finished.
        others: the other open runs.
        splits: the source, with the line numbers that the scan found.
        skipped: files of the source's folders that its format does not read, by ending.
        scan: what the scan found.
        plan: what there is to do.
        lost: part files of the table that are damaged or gone. Their rows are none of `state`; they leave the table.
    """

    resolved: ResolvedConfig
    run: RunContext
    base: DeltaTable | None
    state: TableState
    finished_rows: TableState
    others: Sequence[OpenRun]
    splits: Sequence[Split]
    skipped: Mapping[str, int]
    scan: Scan
    plan: Plan
    lost: Sequence[str] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return self.plan.is_empty and not self.lost

    @property
    def version(self) -> int | None:
        """The table's version; None when there is no table."""
        return None if self.base is None else int(self.base.version())

    def location(self, scan_row: int) -> tuple[str, int]:
        """File and line of a row of the scan; line 0 stands for a whole file."""
        path = self.scan.paths[scan_row].as_py()
        if path is not None:
            return path, 0
        line = FORMATS[self.resolved.config.source.format].line(int(self.scan.lines[scan_row]))
        return self.pieces[self.scan.pieces[scan_row]].path, line

    @cached_property
    def pieces(self) -> list[Piece]:
        """The pieces of all splits, as the scan numbers them."""
        return [piece for split in self.splits for piece in split.pieces]


def plan_run(resolved: ResolvedConfig, report: RunReport, damaged: Collection[str] = ()) -> PlannedRun:
    """Scan source and table and compare them.

    Args:
        resolved: the run config with its endpoints and models.
        report: what is told of the run.
        damaged: part files of the table that are known to be damaged, besides those that turn out to be.
    """
    config = resolved.config
    base = open_table(config.table.path)
    source = find_source(config)
    started = now()
    run_id = f"{started:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    others = open_runs(config.table.path)
    folder = begin_run(config.table.path, run_id, started)
    run = RunContext(run_id, started, folder, folder if files.is_local(folder) else None)
    report.begin(run)
    with report.stage("scan"):
        _scan(resolved, run, source.splits)
        splits, scan = read_scans(source.splits, folder)
    resolved = resolved.with_lists(_list_columns(resolved, base, scan))
    with report.stage("plan"):
        active = active_parts(base) if base is not None else []
        state, lost = read_whole(config.table.path, [name for name in active if name not in damaged])
        lost = [*lost, *(name for name in active if name in damaged)]
        finished_rows, _ = read_whole(config.table.path, _finished_parts(config.table.path, others, active))
        plan = make_plan(
            scan,
            state,
            finished_rows,
            resolved.layout.fingerprint,
            full_sync=config.source.sync == "full",
            deletions=read_deletions(config),
        )
    report.add(made_lists=_made_lists(resolved, base))
    report.add(documents=plan.counts(), skipped_files=dict(source.skipped.most_common()))
    return PlannedRun(
        resolved, run, base, state, finished_rows, others, splits, source.skipped, scan, plan, lost
    )


def _scan(resolved: ResolvedConfig, run: RunContext, splits: Sequence[Split]) -> None:
    """Scan the source; a small one here and now, since Beam takes longer to import than that takes."""
    config = resolved.config
    if config.runner.name == "local" and sum(split.size for split in splits) < SMALL_SOURCE:
        for split in splits:
            write_scan(split, source_format(config), config.source.deleted, run.folder, resolved.shape)
        return
    from pipeline.run import graph

    execute(config, lambda pipeline: graph.scan_graph(pipeline, resolved, run, splits))


def _list_columns(resolved: ResolvedConfig, base: DeltaTable | None, scan: Scan) -> set[str]:
    """The plain columns that hold lists.

    A column holds one value a row until the first document with several is seen, or the config says so; from then on
    it holds lists for ever, so that its type changes once at most.
    """
    config, plain = resolved.config, set(resolved.layout.plain)
    lists = {*config.table.lists, *scan.several, *FORMATS[config.source.format].lists}
    if base is not None:
        schema = pa.schema(base.schema().to_arrow())
        lists |= {field.name for field in schema if pa.types.is_list(field.type)}
    return lists & plain


def _made_lists(resolved: ResolvedConfig, base: DeltaTable | None) -> list[str]:
    """Columns that held one value a row in the table, and will hold lists."""
    old = {} if base is None else {field.name: field.type for field in pa.schema(base.schema().to_arrow())}
    return sorted(name for name in resolved.layout.lists if name in old and not pa.types.is_list(old[name]))


def _finished_parts(table_path: str, others: Sequence[OpenRun], active: Sequence[str]) -> list[str]:
    known = set(active)
    return [part for run in others for part in run.parts(table_path) if part not in known]


def unreadable_failures(planned: PlannedRun) -> list[Failure]:
    """The lines of the source that are no document."""
    failures = []
    for row in planned.plan.unreadable.tolist():
        error, message = planned.scan.errors[row].as_py(), planned.scan.messages[row].as_py()
        lost = planned.scan.stands_for[row].as_py()
        failures.append(
            Failure("read", planned.scan.ids[row].as_py(), *planned.location(row), error, message, lost)
        )
    return failures


def write_work(planned: PlannedRun) -> list[Split]:
    """Write each split's work list; returns the splits that have work."""
    from transforms.read.work import WORK_SCHEMA, work_path

    plan, scan = planned.plan, planned.scan
    # The row of the table whose embeddings may hold for each document; where there is none it is null, and so are part
    # and row number.
    similar = pa.array(plan.similar, mask=plan.similar < 0)
    part = pa.array(planned.state.part, pa.int32()).take(similar)
    # Pieces are numbered over the whole source in the scan, and within their split in its work list.
    sizes = [len(split.pieces) for split in planned.splits]
    split_of = np.repeat(np.arange(len(sizes)), sizes)
    first_piece = np.cumsum(sizes) - sizes
    work_pieces = scan.pieces[plan.work]
    work_splits = split_of[work_pieces]
    columns = [
        pa.array((work_pieces - first_piece[work_splits]).astype(np.int32)),
        pa.array(scan.lines[plan.work]),
        scan.ids.take(pa.array(plan.work)),
        scan.content_hashes.take(pa.array(plan.work)),
        pa.DictionaryArray.from_arrays(part, pa.array(planned.state.parts, pa.string())),
        pa.array(planned.state.row, pa.int64()).take(similar),
    ]
    table = pa.Table.from_arrays(columns, schema=WORK_SCHEMA)
    # The work is in source order, so the documents of one split stand together.
    with_work, starts = np.unique(work_splits, return_index=True)
    ends = [*starts.tolist(), len(work_splits)][1:]
    for index, start, end in zip(with_work.tolist(), starts.tolist(), ends, strict=True):
        with files.create(work_path(planned.run.folder, index)) as handle:
            pq.write_table(table.slice(start, end - start), handle, compression="zstd")
    return [planned.splits[index] for index in with_work.tolist()]
