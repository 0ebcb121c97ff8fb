"""What a run changes in the table: parts that appear and parts that go."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import PipelineError
from pipeline.report.run_report import RunReport
from pipeline.run.compare import Rows, has_fingerprint
from pipeline.run.plan import PlannedRun
from pipeline.runners.execute import execute
from pipeline.table.delta import TableState
from transforms import files
from transforms.handover.records import read_records
from transforms.records import Failure, PartFile, PartRewrite
from transforms.table.fingerprint import stale_fields


@dataclass(frozen=True)
class PartChanges:
    """What happens to existing part files.

    Attributes:
        kept: parts that stay as they are.
        removed: parts that go whole.
        rewrites: parts of which some rows stay.
    """

    kept: list[str]
    removed: list[str]
    rewrites: list[PartRewrite]


def stale_rows(state: TableState, dropped: Rows, embedding_fingerprints: Mapping[str, str]) -> Rows:
    """Rows that stay in the table though a field's embedding in them comes from another model than the run's."""
    unique = state.fingerprints.dictionary.to_pylist()
    stale = [one for one in unique if stale_fields(one, embedding_fingerprints)]
    is_stale = has_fingerprint(state, stale)
    is_stale[dropped] = False
    return np.flatnonzero(is_stale)


def part_changes(state: TableState, dropped: Rows, rewritten: Rows | None = None) -> PartChanges:
    """Decide for each part file of a state, given the rows that go.

    Args:
        state: the rows of the parts.
        dropped: rows of the state that go.
        rewritten: rows that stay but must be written again.
    """
    changes = PartChanges([], [], [])
    is_dropped = np.zeros(len(state), bool)
    is_dropped[dropped] = True
    # Rows of each part, and how many of them go.
    total = np.bincount(state.part, minlength=len(state.parts))
    going = np.bincount(state.part[is_dropped], minlength=len(state.parts))
    touched = set() if rewritten is None else set(state.part[rewritten].tolist())
    # The row numbers that go, sorted by part, each part's in their own order, and cut where the next part begins.
    order = np.argsort(state.part[is_dropped], kind="stable")
    rows = np.split(state.row[is_dropped][order], np.cumsum(going)[:-1]) if state.parts else []
    for number, (name, count, gone, part_rows) in enumerate(
        zip(state.parts, total, going, rows, strict=True)
    ):
        if gone == count:
            changes.removed.append(name)
        elif gone or number in touched:
            changes.rewrites.append(PartRewrite(name, tuple(part_rows.tolist())))
        else:
            changes.kept.append(name)
    return changes


SMALL_REWRITE = 20
"""So few parts are copied before worker processes would have started."""


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

    Args:
        planned: the run.
        written: the finished parts.
        failures: what failed of the work; what could not be read was never planned.
        report: of the run.

    Raises:
        PipelineError: documents are unaccounted for.
    """
    from pipeline.run import graph

    plan = planned.plan
    failed = failed_work(planned, failures)
    rows = sum(part.rows for part in written)
    if rows + int(failed.sum()) != len(plan.work):
        raise PipelineError(
            f"{len(plan.work)} documents were planned, but {rows} were written and {int(failed.sum())} failed. "
            "Nothing was published; please report this."
        )
    replaced = plan.previous[~failed & (plan.previous >= 0)]
    replaced_by_finished = plan.taken_over_previous[plan.taken_over_previous >= 0]
    dropped = np.concatenate([plan.deleted, replaced, replaced_by_finished])
    stale = stale_rows(planned.state, dropped, planned.resolved.embedding_fingerprints)
    if planned.base is not None and _schema_changed(planned):
        stale = np.arange(len(planned.state))
    table_changes = part_changes(planned.state, dropped, stale)
    # A finished part is taken over whole where all its rows are; of the others the rows that are wanted are copied.
    unwanted = np.setdiff1d(np.arange(len(planned.finished_rows)), plan.taken_over)
    finished_changes = part_changes(planned.finished_rows, unwanted)
    rewrites = table_changes.rewrites + finished_changes.rewrites
    if rewrites:
        with report.stage("rewrite"):
            execute(
                planned.resolved.config,
                lambda pipeline: graph.rewrite_graph(pipeline, planned.resolved, planned.run, rewrites),
                small=len(rewrites) <= SMALL_REWRITE,
            )
    rewritten = [PartFile(**record) for record in read_records(graph.rewritten_path(planned.run))]
    taken_over = [_existing_part(planned, part) for part in finished_changes.kept]
    removed = [*table_changes.removed, *(rewrite.path for rewrite in table_changes.rewrites), *planned.lost]
    added = int((plan.previous[~failed] < 0).sum() + (plan.taken_over_previous < 0).sum())
    changed = len(replaced) + len(replaced_by_finished)
    report.add(
        documents={**report.summary.documents, "added": added, "changed": changed},
        rewritten_parts=len(rewrites),
    )
    return Changes(written + rewritten + taken_over, removed)


def failed_work(planned: PlannedRun, failures: list[Failure]) -> Any:
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
    ids = planned.finished_rows.ids.filter(
        pa.array(planned.finished_rows.part == planned.finished_rows.parts.index(part))
    )
    bounds = pc.min_max(ids).as_py()
    return PartFile(part, files.size_of(path), len(ids), bounds["min"], bounds["max"])
