"""The Beam graphs of a run, whole, top to bottom.

A run has three: scan the source, embed what the plan asks for, and copy the rows that stay out of part files that
lose others. Between them the launcher holds ids, hashes and row numbers, never a text or an embedding.

Each starts with `Create`, which ends in a Reshuffle of its own: its elements go to whichever worker is free.
"""

from collections.abc import Sequence

import apache_beam as beam
from apache_beam.utils.shared import Shared

from pipeline.config.resolve import ResolvedConfig
from pipeline.table.open_runs import RunContext
from transforms import files
from transforms.chunk.documents import ChunkDocuments
from transforms.embed.documents import EmbedDocuments
from transforms.embed.measure import MeasureDocuments
from transforms.embed.reuse import PreviousRows
from transforms.handover.records import WriteRecords
from transforms.read.scan import ScanDocuments
from transforms.read.splits import SourceFormat, Split
from transforms.read.work import ReadWork
from transforms.records import Failure, PartFile
from transforms.table.rewrite import PartRewrite, RewriteParts
from transforms.table.write import WriteParts


def source_format(resolved: ResolvedConfig) -> SourceFormat:
    """How the configured source is read."""
    source = resolved.config.source
    return SourceFormat(source.format, source.id, source.max_document_bytes)


def scan_graph(
    pipeline: beam.Pipeline, resolved: ResolvedConfig, run: RunContext, splits: Sequence[Split]
) -> None:
    """Scan every split of the source; each leaves one file of ids, hashes and lines in the run's folder."""
    scan = ScanDocuments(source_format(resolved), resolved.config.source.deleted, run.folder)
    _ = pipeline | "Splits" >> beam.Create(splits) | "ScanDocuments" >> beam.ParDo(scan)


def embed_graph(
    pipeline: beam.Pipeline, resolved: ResolvedConfig, run: RunContext, splits: Sequence[Split]
) -> None:
    """Read the planned documents of the splits, chunk them, embed each semantic field, write part files.

    From reading to writing the documents stay in one fused stage: no text and no embedding is ever shuffled. What
    fails at any step leaves the path with its reason and reaches one file.
    """
    config = resolved.config
    failures: list[beam.PCollection[Failure]] = []

    def keep_failures(results: beam.pvalue.DoOutputsTuple) -> beam.PCollection:
        failures.append(results["failed"])
        return results["done"]

    # Splits, not documents, are spread over the workers.
    read = ReadWork(source_format(resolved), resolved.layout.plain, run.folder)
    splits_of_work = pipeline | "Splits" >> beam.Create(splits)
    reading = beam.ParDo(read).with_outputs("failed", main="done")
    documents = keep_failures(splits_of_work | "ReadWork" >> reading)

    # Every field is cut by its own settings; the text stays with the document.
    counters = {field.field.name: field.model for field in resolved.fields}
    chunk = ChunkDocuments(tuple(field.field for field in resolved.fields), counters)
    documents = keep_failures(documents | "ChunkDocuments" >> chunk)

    # One stage an endpoint. Fields of the same model share it within a process.
    previous = PreviousRows(config.table.path, resolved.embedding_fingerprints)
    shared = {field.embedding_fingerprint: Shared() for field in resolved.fields}
    for field in resolved.fields:
        handle = shared[field.embedding_fingerprint]
        embed = EmbedDocuments(
            field.field.name, field.model, handle, config.runner.device, previous, run.folder
        )
        stage = beam.ParDo(embed)
        if config.runner.accelerator:
            stage = stage.with_resource_hints(accelerator=config.runner.accelerator)
        embedding = stage.with_outputs("failed", main="done")
        documents = keep_failures(documents | f"Embed[{field.field.name}]" >> embedding)

    # Part files appear under names that no reader looks at until the commit.
    write = WriteParts(
        resolved.layout,
        config.table.path,
        run.run_id,
        run.started,
        config.table.part_rows,
        config.table.part_bytes,
        run.progress_folder,
    )
    parts: beam.PCollection[PartFile] = documents | "WriteParts" >> beam.ParDo(write)

    # The launcher learns from two small files what was written and what failed.
    _ = parts | "ListParts" >> WriteRecords(parts_path(run))
    _ = failures | beam.Flatten() | "Failures" >> WriteRecords(failures_path(run))


def measure_graph(
    pipeline: beam.Pipeline, resolved: ResolvedConfig, run: RunContext, splits: Sequence[Split]
) -> None:
    """Read and chunk the planned documents as the embed graph does, and measure the chunks instead."""
    read = ReadWork(source_format(resolved), resolved.layout.plain, run.folder)
    models = {field.field.name: field.model for field in resolved.fields}
    previous = PreviousRows(
        resolved.config.table.path,
        {field.field.name: field.embedding_fingerprint for field in resolved.fields},
    )
    documents = (
        pipeline
        | "Splits" >> beam.Create(splits)
        | "ReadWork" >> beam.ParDo(read).with_outputs("failed", main="done")
    )
    chunked = documents["done"] | "ChunkDocuments" >> ChunkDocuments(
        tuple(f.field for f in resolved.fields), models
    )
    measures = chunked["done"] | "MeasureDocuments" >> beam.ParDo(MeasureDocuments(models, previous))
    _ = measures | "ListMeasures" >> WriteRecords(measures_path(run))
    _ = (
        (documents["failed"], chunked["failed"])
        | beam.Flatten()
        | "Failures" >> WriteRecords(failures_path(run))
    )


def rewrite_graph(
    pipeline: beam.Pipeline, resolved: ResolvedConfig, run: RunContext, rewrites: Sequence[PartRewrite]
) -> None:
    """Copy the rows that stay of part files that lose others."""
    rewrite = RewriteParts(
        resolved.layout, resolved.embedding_fingerprints, resolved.config.table.path, run.run_id
    )
    _ = (
        pipeline
        | "Parts" >> beam.Create(rewrites)
        | "RewriteParts" >> beam.ParDo(rewrite)
        | "ListParts" >> WriteRecords(rewritten_path(run))
    )


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
