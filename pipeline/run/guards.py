"""What stops a run before it changes anything: an empty source, mass deletion, mixed models, too many failures."""

from typing import NoReturn

import numpy as np

from pipeline.errors import PipelineError, TooManyFailures
from pipeline.report.run_report import RunReport
from pipeline.report.summary import reasons_of
from pipeline.run.changes import stale_rows
from pipeline.run.plan import PlannedRun
from pipeline.table.open_runs import RunContext
from transforms import files
from transforms.handover.records import write_failures
from transforms.records import Failure


def refuse(run: RunContext, message: str) -> NoReturn:
    """Stop a run that would do harm; it leaves no folder behind, since it has finished nothing.

    Raises:
        PipelineError: always.
    """
    files.delete_folder(run.folder)
    raise PipelineError(message)


def check_source(planned: PlannedRun) -> None:
    """Refuse to sync a table with a source that has no documents.

    Raises:
        PipelineError: the source is empty, or none of its lines is a document.
    """
    source, plan = planned.resolved.config.source, planned.plan
    if plan.documents or source.sync == "incremental":
        return
    refuse(
        planned.run,
        f"source.path {source.paths} has no documents ({len(plan.unreadable)} unreadable lines). An empty source is "
        "an error, not a deletion; nothing was changed.",
    )


def check_deletions(planned: PlannedRun, *, allow_mass_delete: bool) -> None:
    """Refuse a full sync that would delete too much of the table.

    Raises:
        PipelineError: more than `source.max_delete_ratio` of the rows would go.
    """
    source = planned.resolved.config.source
    deleted, rows = len(planned.plan.deleted), len(planned.state)
    if source.sync == "incremental" or allow_mass_delete or deleted <= source.max_delete_ratio * rows:
        return
    refuse(
        planned.run,
        f"this run would delete {deleted:,} of the table's {rows:,} documents, more than source.max_delete_ratio "
        f"[{source.max_delete_ratio}] allows: the source has {planned.plan.documents:,} documents in "
        f"{len({split.path for split in planned.splits}):,} files. Nothing was changed. If that is right, run again "
        "with --allow-mass-delete.",
    )


def check_models(planned: PlannedRun) -> None:
    """Refuse to change a model while rows stay that this run does not embed again.

    Raises:
        PipelineError: such rows would be left with embeddings of the old model, or with none.
    """
    plan = planned.plan
    leaving = np.concatenate([plan.deleted, plan.previous[plan.previous >= 0], plan.taken_over_previous])
    stale = stale_rows(planned.state, leaving[leaving >= 0], planned.resolved.embedding_fingerprints)
    if plan.is_empty or not len(stale):
        return
    refuse(
        planned.run,
        f"the model of a semantic_text field has changed, and {len(stale):,} of the table's {len(planned.state):,} "
        "documents are not in what this run could read of the source. A table never mixes the embeddings of two "
        "models; nothing was changed. Run once with source.sync=full over the whole, readable source.",
    )


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
    report.add(
        documents={**report.summary.documents, "failed": len(failures)},
        failures_by_reason=reasons_of(failures),
        failures_path=path if failures else None,
    )
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
