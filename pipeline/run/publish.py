"""Publish what a run made: one commit, then the index."""

from collections.abc import Sequence

from pipeline.config.run_config import RunConfig
from pipeline.errors import PipelineError
from pipeline.report.run_json import CHUNK_COUNTS
from pipeline.report.run_report import RunReport
from pipeline.run.changes import Changes
from pipeline.run.plan import PlannedRun
from pipeline.table.delta import commit, commit_description, open_table, update_manifest
from pipeline.table.log import read_log
from pipeline.table.open_runs import clear_dead_runs, publishing
from pipeline.table.parts import list_parts
from transforms.records import PartFile


def publish(planned: PlannedRun, changes: Changes, report: RunReport) -> int | None:
    """Commit the new version, then clear away what killed runs left.

    Returns:
        The version; the old one when nothing changed, or every document that changed has failed.
    """
    path, layout = planned.resolved.config.table.path, planned.resolved.layout
    if not changes.added and not changes.removed:
        if planned.base is None:
            return None
        version = commit_description(path, planned.base, layout)
        update_manifest(path)
        return version
    with report.stage("commit"):
        done = report.summary
        counts = {name: getattr(done, name) for name in ("run_id", "documents", *CHUNK_COUNTS)}
        library = {"extraction_library": done.extraction.library} if done.extraction else {}
        metadata = {**counts, **library}
        with publishing(path):
            check_parts(path, changes.added)
            version = commit(path, planned.base, layout, changes.added, changes.removed, metadata)
            update_manifest(path)
            if planned.others:
                clear_dead_runs(path, planned.others, read_log(path).parts)
    return version


def check_parts(table_path: str, parts: Sequence[PartFile]) -> None:
    """Look at the part files once more before a version names them.

    Raises:
        PipelineError: one is gone or has another size: somebody cleared the table's folder during the run.
    """
    sizes = {name: entry.size for name, entry in list_parts(table_path).items()}
    damaged = [part.path for part in parts if sizes.get(part.path) != part.size]
    if damaged:
        raise PipelineError(
            f"{len(damaged):,} finished part files of this run are gone or were changed, for example {damaged[0]} in "
            f"[{table_path}]; something else cleared that folder during the run. Nothing was published; run again."
        )


def update_index(config: RunConfig, report: RunReport) -> int | None:
    """Bring the index to the table's version; returns that version, or None where there is no index."""
    if config.index is None or open_table(config.table.path) is None:
        return None
    from transforms.index.state import IndexUnusable
    from transforms.index.update import update_index as catch_up

    with report.stage("index"):
        try:
            result = catch_up(config.table.path, config.index.path)
        except (IndexUnusable, OSError) as error:
            raise PipelineError(
                f"the table is published, but its index [{config.index.path}] is not up to date: {error}. "
                "The next run does that, or `semantic-ingest index CONFIG`."
            ) from None
    return int(result.table_version)
