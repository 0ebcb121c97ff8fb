"""What stops a run before it changes anything: an empty source, mass deletion, mixed models, too many failures."""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.embeddings import Embeddings
from models.errors import InferenceError
from pipeline.config.resolve import ResolvedField
from pipeline.errors import PipelineError, TooManyFailures
from pipeline.logs import log
from pipeline.report.run_json import reasons_of
from pipeline.report.run_report import RunReport
from pipeline.run.changes import stale_rows
from pipeline.run.plan import PlannedRun, unreadable_failures
from pipeline.run.source import source_format
from pipeline.table.delta import read_state
from pipeline.table.embedding_check import embedding_lengths, known_chunk, likeness
from transforms import files
from transforms.handover.records import write_failures
from transforms.read.columns import DocumentShape
from transforms.read.formats import FORMATS
from transforms.read.rows.readers import BadDocumentError
from transforms.records import Failure, PartFile
from transforms.table.parts import open_part
from transforms.table.schema import changed_columns

FIRST_REASONS = 3
"""Failures that a message shows; the report has them all."""


def refuse(planned: PlannedRun, report: RunReport | None, message: str) -> NoReturn:
    """Stop a run that would do harm; it leaves no folder behind, since it has finished nothing.

    Args:
        planned: the run.
        report: of the run, which then keeps what could not be read; None for a plan, which leaves nothing.
        message: why, and what to do.

    Raises:
        PipelineError: always, with the first reasons why lines could not be read.
    """
    failures = unreadable_failures(planned)
    path = None if report is None else keep_failures(planned, failures, report)
    files.delete_folder(planned.run.folder)
    raise PipelineError(f"{message}{first_reasons(failures, path)}")


def first_reasons(failures: Sequence[Failure], path: str | None = None) -> str:
    """The first failures, each with its file and line, as the end of a message; empty where nothing failed."""
    if not failures:
        return ""
    shown = []
    for one in failures[:FIRST_REASONS]:
        place = f"{one.path}:{one.line}" if one.line else one.path
        lost = "" if one.stands_for == "document" else f" (lost: {LOST[one.stands_for]})"
        shown.append(f"{one.stage} {place}: {one.error}: {one.message}{lost}")
    more = "" if path is None else f" {'Each' if len(failures) > 1 else 'It'} is listed in {path}"
    return f" The first: {'; '.join(shown)}.{more}"


SAME_MODEL = 0.98
"""Cosine of two embeddings of one text by one model: services add noise of their batches and processors."""

LOST = {"rest of the file": "the rest of the file", "unknown": "an unknown number of documents"}


def keep_failures(planned: PlannedRun, failures: Sequence[Failure], report: RunReport) -> str | None:
    """Write the failure report; returns its path, or None where nothing failed."""
    path = files.join(planned.resolved.config.failures.path, f"{planned.run.run_id}.jsonl")
    if failures:
        write_failures(path, list(failures))
    report.add(
        documents={**report.summary.documents, "failed": len(failures)},
        failures_by_reason=reasons_of(failures),
        failures_path=path if failures else None,
    )
    return path if failures else None


def lost_share(planned: PlannedRun, failures: Sequence[Failure]) -> float:
    """The share of the source's documents that failed, a file with an unknown number of them by its share of bytes."""
    documents = planned.plan.documents + len(planned.plan.unreadable)
    single = sum(one.stands_for == "document" for one in failures)
    broken = {one.path for one in failures if one.stands_for != "document"}
    size = sum(piece.size for piece in planned.pieces)
    of_broken = sum(piece.size for piece in planned.pieces if piece.path in broken)
    share = single / documents if documents else 0.0
    # However small a broken file is, it had a document.
    return min(
        1.0, share + (max(of_broken / max(size, 1), len(broken) / max(documents, 1)) if broken else 0.0)
    )


def check_source(planned: PlannedRun, report: RunReport | None = None) -> None:
    """Refuse to sync a table with a source that has no documents.

    Raises:
        PipelineError: the source is empty, or none of its lines is a document.
    """
    source, plan = planned.resolved.config.source, planned.plan
    if plan.documents or (source.sync == "incremental" and not len(plan.unreadable)):
        return
    refuse(
        planned,
        report,
        f"source.path {source.paths} has no documents ({len(plan.unreadable):,} lines or files could not be read). An "
        "empty source is an error, not a deletion; nothing was changed.",
    )


def check_fields(planned: PlannedRun, report: RunReport | None = None) -> None:
    """Refuse a semantic field that no document fills, neither of the source nor of the table.

    Raises:
        PipelineError: there is one; most often a name in the mapping is not that of the documents.
    """
    resolved, scan = planned.resolved, planned.scan
    source, format_ = resolved.config.source, FORMATS[resolved.config.source.format]
    if not planned.plan.documents:
        return
    filled, known = scan.filled, scan.fields
    if format_.names is not None and (format_.is_folder or source.updated_at):
        # What the documents hold is read later; what they may hold is known.
        known = format_.names(source_format(resolved.config))
        filled = [field.name for field in resolved.fields if may_be_filled(field, known)]
    stays = len(planned.state) and source.sync == "incremental"
    for field in resolved.fields:
        if field.name in filled or (stays and _is_filled(planned, field.name)):
            continue
        refuse(planned, report, f"{unfilled(field, known)} Nothing was changed.")


def may_be_filled(field: ResolvedField, known: Collection[str]) -> bool:
    """Whether documents that have only some fields can fill a semantic field; an object's fields are not known."""
    return any(source in known or source.partition(".")[0] in known for source in field.field.sources)


def unfilled(field: ResolvedField, known: Iterable[str]) -> str:
    """The sentence about a semantic field that no document fills."""
    sources = ", ".join(f"[{name}]" for name in field.field.sources)
    fields = ", ".join(f"[{name}]" for name in known) or "no fields"
    return (
        f"no document fills the semantic_text field [{field.name}], which embeds {sources}; set the names in the "
        f"mapping right. The documents have {fields}."
    )


def _is_filled(planned: PlannedRun, name: str) -> bool:
    """Whether some row of the table has chunks in a field."""
    for part in planned.state.parts:
        file = open_part(planned.resolved.config.table.path, part)
        if name not in file.schema_arrow.names:
            continue
        column = file.read(columns=[f"{name}.inference_id"]).column(name)
        if column.null_count < len(column):
            return True
    return False


def check_columns(planned: PlannedRun, report: RunReport) -> None:
    """Refuse a type that values of rows which stay do not fit; they would be lost.

    Raises:
        PipelineError: with the rows.
    """
    plan, state = planned.plan, planned.state
    if planned.base is None or plan.is_empty:
        return
    shape = planned.resolved.shape
    old, new = pa.schema(planned.base.schema().to_arrow()), planned.resolved.layout.schema()
    changed = [name for name in changed_columns(old, new) if name in planned.resolved.layout.plain]
    if not changed:
        return
    stays = np.ones(len(state), bool)
    leaving = np.concatenate([plan.deleted, plan.previous, plan.taken_over_previous])
    stays[leaving[leaving >= 0]] = False
    wrong = list(islice(_misfits(planned, shape.only(changed), stays), FIRST_REASONS))
    if wrong:
        refuse(
            planned,
            report,
            f"the mapping gives [{', '.join(changed)}] another type, and rows that stay hold values that do not "
            f"fit it: {'; '.join(wrong)}. Nothing was changed. Mend these documents, or run once with "
            "source.sync=full over the whole source.",
        )


def _misfits(planned: PlannedRun, shape: DocumentShape, stays: npt.NDArray[np.bool_]) -> Iterator[str]:
    for number, part in enumerate(planned.state.parts):
        rows = planned.state.row[stays & (planned.state.part == number)]
        if not len(rows):
            continue
        table = open_part(planned.resolved.config.table.path, part).read(columns=["_id", "_source"])
        for row in table.take(pa.array(rows)).to_pylist():
            try:
                shape.columns_of([row["_source"]])
            except BadDocumentError as error:
                yield f"[{row['_id']}]: {error}"


def check_embeddings(planned: PlannedRun, written: Sequence[PartFile]) -> None:
    """Compare the new embeddings with each other and with the table's, before a version names both.

    Raises:
        PipelineError: a field would hold embeddings of several lengths; a service has changed its model.
    """
    path = planned.resolved.config.table.path
    state = planned.state
    current = np.ones(len(state), bool)
    current[stale_rows(state, np.zeros(0, np.int64), planned.resolved.embedding_fingerprints)] = False
    # A part whose embeddings are said to be of the same model; those of an older model are about to go.
    same = [state.parts[number] for number in state.part[current][:1].tolist()]
    parts = [part.path for part in written] + same
    for column in planned.resolved.layout.semantic:
        if column.element == "sparse":
            continue
        lengths = sorted({length for part in parts for length in embedding_lengths(path, part, column.name)})
        if len(lengths) > 1:
            raise PipelineError(
                f"the embeddings of [{column.name}] would have {' and '.join(map(str, lengths))} numbers: the service "
                f"of [{column.inference_id}] changed its model. Nothing was published. Name [dimensions] and the model "
                "in the endpoint, then run once with source.sync=full over the whole source."
            )


def check_answers(planned: PlannedRun, report: RunReport) -> None:
    """Ask the services for the embedding of a chunk that the table holds, before they are asked for new ones.

    Raises:
        PipelineError: a service embeds it otherwise than before; it has changed its model, whatever it is called.
    """
    path, state = planned.resolved.config.table.path, planned.state
    if not len(planned.plan.work) or not len(state):
        return
    for field in planned.resolved.fields:
        if field.model.weight_bytes:
            continue  # weights that are here are known by their bytes
        known = known_chunk(path, state.parts[:3], field.field, field.embedding_fingerprint)
        now = None if known is None else _embedded_now(field, known.text)
        if known is None or now is None:
            continue
        cosine = likeness(known.embeddings, now, bits=field.endpoint.element_type == "bit")
        if cosine < SAME_MODEL:
            refuse(
                planned,
                report,
                f"the service of [{field.endpoint.inference_id}] embeds a text of the table's [{field.name}] otherwise "
                f"than it did (cosine {cosine:.3f}): it changed its model. Nothing was changed. Name the model that it "
                "has now in the endpoint, for example its version in [model_id], then run once with source.sync=full "
                "over the whole source.",
            )


def _embedded_now(field: ResolvedField, text: str) -> Embeddings | None:
    """The embedding that a service gives to a text; None where it gives none, which the run itself will tell of."""
    try:
        embedder = field.model.impatient().load()
    except InferenceError:
        return None
    try:
        return embedder.embed([text], "ingest")
    except InferenceError:
        return None
    finally:
        embedder.close()


def check_deletions(planned: PlannedRun, report: RunReport, *, allow_mass_delete: bool) -> None:
    """Refuse a full sync that would delete too much of the table.

    Raises:
        PipelineError: more than `source.max_delete_ratio` of the rows would go.
    """
    source = planned.resolved.config.source
    deleted, rows = len(planned.plan.deleted), len(planned.state)
    if source.sync == "incremental" or allow_mass_delete or deleted <= source.max_delete_ratio * rows:
        return
    refuse(
        planned,
        report,
        f"this run would delete {deleted:,} of the table's {rows:,} documents, more than source.max_delete_ratio "
        f"[{source.max_delete_ratio}] allows: the source has {planned.plan.documents:,} documents in "
        f"{len({piece.path for piece in planned.pieces}):,} files. Nothing was changed. If that is right, run again "
        "with --allow-mass-delete.",
    )


def check_models(planned: PlannedRun, report: RunReport) -> None:
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
        planned,
        report,
        f"the model of a semantic_text field has changed, and {len(stale):,} of the table's {len(planned.state):,} "
        "documents are not in what this run could read of the source. A table never mixes the embeddings of two "
        "models; nothing was changed. Run once with source.sync=full over the whole, readable source.",
    )


def check_lost(planned: PlannedRun, report: RunReport) -> None:
    """Refuse to replace damaged part files by less than they held.

    Raises:
        PipelineError: documents of theirs may not be in the source.
    """
    if not planned.lost:
        return
    config, plan = planned.resolved.config, planned.plan
    missing = _not_in_source(planned)
    if missing is None or missing:
        what = (
            "which documents they hold cannot be read"
            if missing is None
            else f"[{missing[0]}] is one of them"
        )
        count = "documents" if missing is None else f"{len(missing):,} documents"
        refuse(
            planned,
            report,
            f"{len(planned.lost)} part files of the table are damaged or gone, for example {planned.lost[0]}, and "
            f"{count} in them may not be in what this run reads of the source: {what}. Nothing was changed. Run once "
            "with source.sync=full over the whole, readable source, or `restore` a version without these files.",
        )
    log.warning(
        "%d part files of the table [%s] are damaged or gone, for example %s; their documents are made again from the"
        " source (%d documents in all)",
        len(planned.lost),
        config.table.path,
        planned.lost[0],
        len(plan.work),
    )


def _not_in_source(planned: PlannedRun) -> list[str] | None:
    """Documents of damaged parts that the source does not hold; None where nobody can tell.

    A full sync over a readable source holds every document that the table should have.
    """
    if planned.resolved.config.source.sync == "full" and not len(planned.plan.unreadable):
        return []
    known = set(planned.scan.ids.to_pylist())
    missing = []
    for name in planned.lost:
        try:
            ids = read_state(planned.resolved.config.table.path, [name]).ids.to_pylist()
        except OSError:
            return None
        missing += [one for one in ids if one not in known]
    return missing


def report_failures(planned: PlannedRun, failures: list[Failure], report: RunReport) -> None:
    """Write the failure report and stop the run when there are too many.

    Raises:
        TooManyFailures: their share of the source is above `failures.max_ratio`, or a service failed for every
            document that there was to embed.
    """
    config = planned.resolved.config
    path = keep_failures(planned, failures, report)
    documents = planned.plan.documents + len(planned.plan.unreadable)
    outages = sum(failure.error == "TransientError" for failure in failures)
    service_is_down = 0 < outages == len(planned.plan.work)
    share = lost_share(planned, failures)
    if service_is_down or share > config.failures.max_ratio:
        broken = len({one.path for one in failures if one.stands_for != "document"})
        more = (
            f", and the rest of {broken:,} files, of which nobody knows how many documents they hold"
            if broken
            else ""
        )
        reason = f"more than failures.max_ratio [{config.failures.max_ratio}] allows"
        go_on = f"; --set failures.max_ratio={math.ceil(share * 10) / 10} publishes the others"
        if service_is_down:
            reason = "and so did every one that there was to embed: the service is in trouble"
        if service_is_down or share > 0.5:
            go_on = ""
        raise TooManyFailures(
            f"{len(failures):,} of {documents:,} documents failed{more}, {reason}; nothing was published{go_on}."
            f"{first_reasons(failures, path)}"
        )
