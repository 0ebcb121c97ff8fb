"""A run: scan the source, plan, embed, publish one version of the table, bring the index up to date."""

from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import replace

from pipeline.config.endings import ending_warnings
from pipeline.config.migration import Migration, reminders
from pipeline.config.resolve import ResolvedConfig, resolve
from pipeline.config.run_config import RunConfig
from pipeline.logs import log
from pipeline.report.run_json import RunSummary, work_of
from pipeline.report.run_report import RunReport
from pipeline.run.changes import Changes, collect_changes
from pipeline.run.extraction import extraction_summary
from pipeline.run.guards import (
    check_answers,
    check_columns,
    check_deletions,
    check_embeddings,
    check_fields,
    check_lost,
    check_models,
    check_source,
    report_failures,
)
from pipeline.run.plan import PlannedRun, plan_run, unreadable_failures, write_work
from pipeline.run.publish import publish, update_index
from pipeline.runners.execute import check_runner, embed_counts, execute
from pipeline.runners.local import choose_workers
from pipeline.stop import stoppable
from pipeline.table.migrations import read_migrations
from pipeline.table.open_runs import table_lock
from transforms import files
from transforms.handover.progress import ask_to_stop
from transforms.handover.records import read_records
from transforms.handover.retries import read_retries
from transforms.records import Failure, PartFile


def run_pipeline(
    config: RunConfig,
    *,
    allow_mass_delete: bool = False,
    lock: bool = False,
    quiet: bool = False,
    damaged: Collection[str] = (),
    migrations: Mapping[str, Migration] | None = None,
) -> RunSummary:
    """Run the whole job.

    Args:
        config: the run config.
        allow_mass_delete: let a full sync delete more than `source.max_delete_ratio` of the table.
        lock: fail at once when another run of the table is in progress.
        quiet: show no progress.
        damaged: part files of the table whose documents are to be made again from the source.
        migrations: semantic fields that the table is to hold twice from now on; None leaves them as they are.

    Returns:
        The summary, as run.json holds it.

    Raises:
        PipelineError: the run could not be done; the published table is as it was.
    """
    check_runner(config)
    if migrations is None:
        migrations = read_migrations(config.table.path)
        for reminder in reminders(config, migrations):
            log.warning("%s", reminder)
    resolved = _with_workers(resolve(config, migrations))
    for warning in ending_warnings(config):
        log.warning("%s", warning)
    report = RunReport(resolved, quiet=quiet)
    with table_lock(config.table.path) if lock else nullcontext(), stoppable(report.work), report:
        planned = plan_run(resolved, report, damaged)
        check_source(planned, report)
        check_fields(planned, report)
        check_columns(planned, report)
        check_deletions(planned, report, allow_mass_delete=allow_mass_delete)
        check_models(planned, report)
        check_lost(planned, report)
        if planned.is_empty:
            report.add(extraction=extraction_summary(planned))
            report_failures(planned, unreadable_failures(planned), report)
            return finish(planned, publish(planned, Changes(), report), report)
        check_answers(planned, report)
        from pipeline.run.gates import pass_gates  # the gates search, which takes libraries of its own

        written, failed = embed_work(planned, report)
        check_embeddings(planned, written)
        changes = collect_changes(planned, written, failed, report)
        failures = unreadable_failures(planned) + failed
        report.add(extraction=extraction_summary(planned))
        report_failures(planned, failures, report)
        pass_gates(planned, changes, failures, report)
        return finish(planned, publish(planned, changes, report), report)


def _with_workers(resolved: ResolvedConfig) -> ResolvedConfig:
    """Count the worker processes, where the config leaves that to the machine and the models."""
    runner = resolved.config.runner
    if runner.workers != "auto":
        return resolved
    workers = choose_workers(runner, max((field.model.weight_bytes for field in resolved.fields), default=0))
    counted = runner.model_copy(update={"workers": workers})
    return replace(resolved, config=resolved.config.model_copy(update={"runner": counted}))


def embed_work(planned: PlannedRun, report: RunReport) -> tuple[list[PartFile], list[Failure]]:
    """Chunk and embed what the plan asks for; returns the finished parts and what of it failed."""
    from pipeline.run import graph  # with Beam, which a run without work does not want

    splits = write_work(planned)
    run, fields = planned.run, len(planned.resolved.fields)
    if splits:
        try:
            with report.stage("embed", documents=len(planned.plan.work)):
                execute(
                    planned.resolved.config,
                    lambda pipeline: graph.embed_graph(pipeline, planned.resolved, run, splits),
                    small=len(splits) == 1,
                    on_start=lambda result: report.count_by(lambda: embed_counts(result, fields)),
                )
        except (KeyboardInterrupt, SystemExit):
            ask_to_stop(run.folder)
            raise
        finally:
            retries = dict(sorted(read_retries(run.folder).items()))
            report.add(retries=sum(retries.values()), retries_by_endpoint=retries)
    parts = [PartFile(**record) for record in read_records(graph.parts_path(run))]
    failures = [Failure(**record) for record in read_records(graph.failures_path(run))]
    report.add(**work_of(parts))
    return parts, failures


def finish(planned: PlannedRun, version: int | None, report: RunReport) -> RunSummary:
    """End a run whose table is published: nothing is left to take over, and the index catches up."""
    files.delete_folder(planned.run.folder)
    report.add(table_version=version)
    report.add(index_version=update_index(planned.resolved.config, report))
    return report.finish()
