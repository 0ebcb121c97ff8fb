"""What a run would do: the plan, the chunks and tokens, and a guess at time and size. Changes nothing."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pyarrow.parquet as pq

from models.endpoints.prices import price_of
from pipeline.config.resolve import ResolvedConfig, ResolvedField
from pipeline.config.run_config import RunConfig
from pipeline.report.run_json import ExtractionSummary
from pipeline.report.run_report import RunReport
from pipeline.run import graph
from pipeline.run.changes import failed_work
from pipeline.run.extraction import extraction_summary
from pipeline.run.guards import check_fields, check_source
from pipeline.run.plan import PlannedRun, plan_run, unreadable_failures, write_work
from pipeline.run.source import source_format
from pipeline.runners.execute import execute
from pipeline.table.migrations import resolve_for_table
from transforms import files
from transforms.handover.records import read_records
from transforms.lengths import add_histograms, percentile
from transforms.read.extract.pool import Extractor
from transforms.read.formats import FORMATS
from transforms.read.work import Extraction, read_work, work_path
from transforms.records import Document, Failure, Split

CALIBRATION_CHARACTERS = 40_000
"""Text that a calibration embeds: a few seconds of work for a small model on a CPU."""


def forecast(config: RunConfig, *, calibrate: bool = True) -> dict[str, Any]:
    """Plan a run and measure it.

    Args:
        config: the run config.
        calibrate: load each model and embed a few chunks, to estimate time and size; without it no model is loaded.

    Returns:
        JSON values: documents by what would happen to them; for each semantic field chunks, tokens, truncations,
        percentiles of words and tokens a chunk, the cost where the config names a price, and the estimates.
    """
    resolved = resolve_for_table(config)
    planned = plan_run(resolved, RunReport(resolved, quiet=True))
    check_source(planned)
    check_fields(planned)
    try:
        splits = write_work(planned)
        if splits:
            execute(
                config,
                lambda pipeline: graph.measure_graph(pipeline, resolved, planned.run, splits),
                small=len(splits) == 1,
            )
        failures = [Failure(**record) for record in read_records(graph.failures_path(planned.run))]
        extraction = extraction_summary(planned)
        measures = read_records(graph.measures_path(planned.run))
        sample = _sample(planned, splits) if calibrate else []
        fields = {}
        for field in resolved.fields:
            own = [one for one in measures if one["field"] == field.name]
            price = price_of(field.endpoint, config.models)
            fields[field.name] = _field_forecast(field, own, sample, price)
    finally:
        files.delete_folder(planned.run.folder)
    return _summary(planned, failures, fields, extraction)


def _summary(
    planned: PlannedRun,
    failures: list[Failure],
    fields: dict[str, dict[str, Any]],
    extraction: ExtractionSummary | None,
) -> dict[str, Any]:
    plan, succeeds = planned.plan, ~failed_work(planned, failures)
    counts = {
        **plan.counts(),
        "added": int((plan.previous[succeeds] < 0).sum() + (plan.taken_over_previous < 0).sum()),
        "changed": int((plan.previous[succeeds] >= 0).sum() + (plan.taken_over_previous >= 0).sum()),
        "failed": len(unreadable_failures(planned)) + len(failures),
    }
    costs = [field["cost"] for field in fields.values() if field["cost"] is not None]
    estimates = [field["estimate"] for field in fields.values() if field["estimate"]]
    return {
        "documents": counts,
        "extraction": None if extraction is None else asdict(extraction),
        "skipped_files": dict(planned.skipped),
        "would_fail_mass_delete_guard": _over_delete_ratio(planned),
        **{
            name: sum(field[name] for field in fields.values())
            for name in ("chunks", "reused", "tokens", "truncated")
        },
        "estimated_seconds": round(sum(one["seconds"] for one in estimates), 1) if estimates else None,
        "estimated_bytes": sum(one["bytes"] for one in estimates) if estimates else None,
        "estimated_cost": sum(costs) if costs else None,
        "fields": fields,
    }


def _over_delete_ratio(planned: PlannedRun) -> bool:
    source = planned.resolved.config.source
    return source.sync == "full" and len(planned.plan.deleted) > source.max_delete_ratio * len(planned.state)


def _field_forecast(
    field: ResolvedField, measures: list[dict[str, Any]], sample: Sequence[str], price: float | None
) -> dict[str, Any]:
    names = ("documents", "chunks", "stored", "reused", "tokens", "truncated", "characters")
    totals = {name: sum(one[name] for one in measures) for name in names}
    lengths = {unit: add_histograms(one[unit] for one in measures) for unit in ("words", "token_lengths")}
    return {
        "inference_id": field.endpoint.inference_id,
        **{name: totals[name] for name in ("chunks", "reused", "tokens", "truncated")},
        "merged": totals["chunks"] - totals["stored"],
        "words_per_chunk": _percentiles(lengths["words"]),
        "tokens_per_chunk": _percentiles(lengths["token_lengths"]),
        "window": field.model.max_tokens,
        "cost": None if price is None else totals["tokens"] * price / 1e6,
        "estimate": _calibrated(field, totals, sample) if sample and totals["chunks"] else None,
    }


def _percentiles(lengths: dict[str, int]) -> dict[str, int]:
    return {name: percentile(lengths, share) for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))}


def _calibrated(field: ResolvedField, totals: dict[str, int], sample: Sequence[str]) -> dict[str, Any]:
    """Time and size by embedding a sample: tokens a second, and bytes a chunk."""
    embedder = field.model.load(None)
    try:
        embedder.embed(sample[:1], "ingest")
        begun = time.perf_counter()
        embeddings = embedder.embed(sample, "ingest")
        seconds = time.perf_counter() - begun
    finally:
        embedder.close()
    rate = float(embeddings.tokens.sum()) / max(seconds, 1e-9)
    if hasattr(embeddings, "values"):
        stored = embeddings.values.nbytes / len(embeddings)
    else:
        stored = 8 * len(embeddings.weights) / len(embeddings)
    return {
        "tokens_per_second": round(rate, 1),
        "seconds": totals["tokens"] / max(rate, 1e-9),
        "bytes": int(totals["stored"] * stored + totals["characters"] // 2),
    }


def _sample(planned: PlannedRun, splits: Sequence[Split]) -> list[str]:
    """Chunks of the first documents to embed."""
    texts: list[str] = []
    characters = 0
    for document in _first_documents(planned, splits):
        for chunk in _chunks(planned.resolved, document):
            texts.append(chunk)
            characters += len(chunk)
            if characters >= CALIBRATION_CHARACTERS:
                return texts
    return texts


def _first_documents(planned: PlannedRun, splits: Sequence[Split]) -> Any:
    source = source_format(planned.resolved.config)
    extraction = Extraction(Extractor(source.extract)) if FORMATS[source.format].is_folder else None
    for split in splits:
        with files.open_read(work_path(planned.run.folder, split.index)) as handle:
            work = pq.read_table(handle)
        for found in read_work(split, source, work, planned.resolved.shape, extraction):
            if isinstance(found, Document):
                yield found


def _chunks(resolved: ResolvedConfig, document: Document) -> list[str]:
    from transforms.chunk.documents import chunk_document

    field = resolved.fields[0]
    return [chunk.text for chunk in chunk_document(document, field.field, field.model.count_tokens)]
