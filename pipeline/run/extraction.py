"""What is told of the documents that were extracted from files: types, pages, time, a library of another version."""

from deltalake import DeltaTable

from pipeline.report.run_json import ExtractionSummary, SlowFile
from pipeline.run.plan import PlannedRun
from transforms.handover.extraction import read_extraction
from transforms.read.formats import FORMATS
from transforms.table.log_digest import said_of


def extraction_summary(planned: PlannedRun) -> ExtractionSummary | None:
    """The summary of a run's extraction; None for a format that extracts nothing."""
    if not FORMATS[planned.resolved.config.source.format].is_folder:
        return None
    from transforms.read.extract.library import library_version

    totals = read_extraction(planned.run.folder)
    library, earlier = library_version(), _earlier_library(planned.base)
    return ExtractionSummary(
        library=library,
        earlier_library=earlier if earlier != library else None,
        types=planned.scan.types,
        skipped=planned.scan.skipped,
        documents=totals.documents,
        pages=totals.pages,
        characters=totals.characters,
        seconds=round(totals.seconds, 3),
        slowest=[SlowFile(path, round(seconds, 3)) for seconds, path in totals.slowest],
    )


def _earlier_library(base: DeltaTable | None) -> str | None:
    """The extraction library of the newest version that names one."""
    for entry in base.history(limit=50) if base is not None else []:
        library = said_of(entry).get("extraction_library")
        if library:
            return str(library)
    return None
