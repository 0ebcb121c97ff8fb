"""What stops a run before it changes anything: mass deletion, mixed models, too many failures."""

import numpy as np

from pipeline.errors import PipelineError, TooManyFailures
from pipeline.report.run_report import RunReport
from pipeline.run.changes import stale_rows
from pipeline.run.plan import PlannedRun
from transforms import files
from transforms.handover.records import write_failures
from transforms.records import Failure


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
