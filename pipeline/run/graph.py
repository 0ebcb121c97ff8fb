"""The Beam graphs of a run, whole, top to bottom.

A run has three: scan the source, embed what the plan asks for, and copy the rows that stay out of part files that
lose others. Between them the launcher holds ids, hashes and row numbers, never a text or an embedding.

Each starts with `Create`, which ends in a Reshuffle of its own: its elements go to whichever worker is free.
"""

from collections.abc import Sequence

import apache_beam as beam
from apache_beam.utils.shared import Shared

from pipeline.config.resolve import ResolvedConfig
from pipeline.run.source import source_format
from pipeline.table.open_runs import RunContext
from transforms import files
from transforms.batches import ChunkedBatch
from transforms.chunk.documents import ChunkDocuments
from transforms.embed.brought import Accepted
from transforms.embed.documents import EmbedDocuments
from transforms.embed.measure import MeasureDocuments
from transforms.embed.reuse import PreviousRows
from transforms.handover.write_records import WriteRecords
from transforms.read.scan_documents import ScanDocuments
from transforms.read.work import ReadWork
from transforms.records import DONE, FAILED, Failure, PartRewrite, Split
from transforms.table.rewrite import RewriteParts
from transforms.table.write import WriteParts


def scan_graph(
    pipeline: beam.Pipeline, resolved: ResolvedConfig, run: RunContext, splits: Sequence[Split]
) -> None:
    """Scan every split of the source; each leaves one file of ids, hashes and lines in the run's folder."""
    scan = ScanDocuments(
        source_format(resolved.config), resolved.config.source.deleted, run.folder, resolved.shape
    )
    _ = pipeline | "Splits" >> beam.Create(splits) | scan


def chunked_documents(
    pipeline: beam.Pipeline, resolved: ResolvedConfig, run: RunContext, splits: Sequence[Split]
) -> tuple[beam.PCollection[ChunkedBatch], list[beam.PCollection[Failure]]]:
    """Read the planned documents of the splits and chunk them.

    Returns:
        The chunked documents in batches, and the failures of each step.
    """
    # Splits, not documents, are spread over the workers.
    read = ReadWork(source_format(resolved.config), resolved.shape, run.folder)
    documents = pipeline | "Splits" >> beam.Create(splits) | read

    # Every field is cut by its own settings; the text stays with the document.
    counters = {field.field.name: field.model for field in resolved.fields}
    chunk = ChunkDocuments(tuple(field.field for field in resolved.fields), counters, resolved.late)
    chunked = documents[DONE] | chunk
    return chunked[DONE], [documents[FAILED], chunked[FAILED]]


def previous_rows(resolved: ResolvedConfig) -> PreviousRows:
    """Where embeddings come from that need not be made: the table's rows, and what documents bring along.

    A document's own are those of its endpoint; where another model stands in for that, or a chunk is not embedded
    alone, they are of no use.
    """
    contexts = {field.name: field.field.context for field in resolved.fields if field.field.context}
    accepted = {
        field.name: Accepted(field.endpoint.inference_id, {"task_type": field.endpoint.task_type, **settings})
        for field in resolved.fields
        if not (resolved.substitutions or field.name in contexts or field.late)
        and (settings := field.model.model_settings)
    }
    fingerprints = resolved.embedding_fingerprints
    return PreviousRows(resolved.config.table.path, fingerprints, accepted, contexts, resolved.late)


def embed_graph(
    pipeline: beam.Pipeline, resolved: ResolvedConfig, run: RunContext, splits: Sequence[Split]
) -> None:
    """Read and chunk the planned documents of the splits, embed each semantic field, write part files.

    From reading to writing the documents stay in one fused stage: no text and no embedding is ever shuffled. What
    fails at any step leaves the path with its reason and reaches one file.
    """
    config = resolved.config
    documents, failures = chunked_documents(pipeline, resolved, run, splits)

    # One stage an endpoint. Fields of the same model share it within a process.
    previous = previous_rows(resolved)
    shared = {field.model.fingerprint: Shared() for field in resolved.fields}
    for field in resolved.fields:
        embed = EmbedDocuments(
            field.field.name,
            field.model,
            shared[field.model.fingerprint],
            config.runner.device,
            previous,
            run.folder,
            1 / len(resolved.fields),
            config.runner.accelerator,
        )
        embedded = documents | f"Embed[{field.field.name}]" >> embed
        documents = embedded[DONE]
        failures.append(embedded[FAILED])

    # Part files appear under names that no reader looks at until the commit.
    parts = documents | WriteParts(
        resolved.layout,
        config.table.path,
        run.run_id,
        run.started,
        config.table.part_rows,
        config.table.part_bytes,
        config.table.part_seconds,
    )

    # The launcher learns from two small files what was written and what failed.
    _ = parts | "ListParts" >> WriteRecords(parts_path(run))
    _ = failures | beam.Flatten() | "Failures" >> WriteRecords(failures_path(run))


def measure_graph(
    pipeline: beam.Pipeline, resolved: ResolvedConfig, run: RunContext, splits: Sequence[Split]
) -> None:
    """Read and chunk the planned documents as the embed graph does, and measure the chunks instead."""
    documents, failures = chunked_documents(pipeline, resolved, run, splits)

    # Only the tokenizers are used, and the table's fingerprints and texts; no model is loaded.
    models = {field.field.name: field.model for field in resolved.fields}
    previous = previous_rows(resolved)
    measures = documents | MeasureDocuments(models, previous)

    # The launcher adds up what the workers measured.
    _ = measures | "ListMeasures" >> WriteRecords(measures_path(run))
    _ = failures | beam.Flatten() | "Failures" >> WriteRecords(failures_path(run))


def rewrite_graph(
    pipeline: beam.Pipeline, resolved: ResolvedConfig, run: RunContext, rewrites: Sequence[PartRewrite]
) -> None:
    """Copy the rows that stay of part files that lose others."""
    rewrite = RewriteParts(
        resolved.layout,
        resolved.embedding_fingerprints,
        resolved.config.table.path,
        run.run_id,
        resolved.shape,
    )
    parts = pipeline | "Parts" >> beam.Create(rewrites) | rewrite
    _ = parts | "ListParts" >> WriteRecords(rewritten_path(run))


def parts_path(run: RunContext) -> str:
    """List of the part files that the embed graph wrote."""
    return files.join(run.folder, "parts.jsonl")


def failures_path(run: RunContext) -> str:
    """Failures of the embed graph."""
    return files.join(run.folder, "failures.jsonl")


def measures_path(run: RunContext) -> str:
    """What the measure graph found."""
    return files.join(run.folder, "measures.jsonl")


def rewritten_path(run: RunContext) -> str:
    """List of the part files that the rewrite graph wrote."""
    return files.join(run.folder, "rewritten.jsonl")
