"""What a run reads of its source before it plans: splits, deletions, ids and hashes."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.run_config import RunConfig, SourceConfig
from pipeline.errors import PipelineError
from pipeline.run.compare import Scan
from pipeline.runners.local import choose_workers
from pipeline.table.parts import list_parts
from transforms import files
from transforms.index.snapshot import Snapshot
from transforms.index.state import IndexUnusable
from transforms.read.extract.options import ExtractOptions
from transforms.read.rows.readers import SourceFormat
from transforms.read.scan import SCAN_SCHEMA, scan_path
from transforms.read.splits import Listing, connection_splits, gather, list_source
from transforms.records import Piece, Split
from transforms.table.parts import open_part

SMALL_SOURCE = 256 * 1024 * 1024
"""A source of fewer bytes is scanned in some ten seconds; worker processes take as long to start."""


def source_format(config: RunConfig) -> SourceFormat:
    """How the configured source is read."""
    source = config.source
    extract = source.extract
    options = ExtractOptions(
        extract.processes or 0, extract.seconds, extract.memory_bytes, source.max_document_bytes, extract.ocr
    )
    columns = None if source.columns is None else tuple(source.columns)
    return SourceFormat(
        source.format,
        source.id,
        source.max_document_bytes,
        options,
        source.connection,
        source.delimiter,
        source.encoding,
        columns,
    )


def find_source(config: RunConfig) -> Listing:
    """List the source's files and cut or gather them to splits, enough for all workers.

    Raises:
        PipelineError: a path matches nothing or cannot be read.
    """
    source = config.source
    workers = max(choose_workers(config.runner, 0), config.runner.parallelism or 1)
    if source.connection is not None:
        return connection_splits(source.format, source.connection.name, workers)
    try:
        found = _list(source, source.split_bytes)
        if workers > 1 and len(found.splits) < 4 * workers:
            total = sum(split.size for split in found.splits)
            found = _list(source, min(source.split_bytes, max(total // (4 * workers), 64 * 1024)))
    except (OSError, IndexUnusable) as error:
        raise PipelineError(f"the source cannot be read: {error}") from None
    return found


def _list(source: SourceConfig, split_bytes: int) -> Listing:
    if source.format == "table":
        return Listing(gather(_part_files(source), split_bytes))
    return list_source(source.paths, source.format, split_bytes)


def _part_files(source: SourceConfig) -> Iterator[Piece]:
    """The part files of a version of a table; one with a damaged footer is refused here."""
    (table,) = source.paths
    sizes = {name: entry.size for name, entry in list_parts(table).items()}
    for name in Snapshot.of_table(table, source.version).parts:
        open_part(table, name)
        yield Piece(files.join(table, name), 0, -1, name, sizes.get(name, 0))


def read_deletions(config: RunConfig) -> list[str]:
    """Read the ids of `source.deletions`."""
    if config.source.deletions is None:
        return []
    try:
        with files.open_read(config.source.deletions) as handle:
            lines = handle.read().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(f"source.deletions [{config.source.deletions}] cannot be read: {error}") from None
    return [line for line in (line.removesuffix("\r") for line in lines) if line]


def read_scans(splits: Sequence[Split], folder: str) -> tuple[list[Split], Scan]:
    """Put the scans of all splits together, in source order, and number the lines of each file through."""
    numbered, tables = [], []
    types: dict[str, Counter[str]] = {"types": Counter(), "skipped": Counter()}
    look: dict[str, dict[str, None]] = {"several": {}, "filled": {}, "fields": {}}
    first_line: dict[str, int] = {}
    first_piece = 0
    for split in splits:
        with files.open_read(scan_path(folder, split.index)) as handle:
            table = pq.read_table(handle)
        for name, counts in types.items():
            counts.update(json.loads(table.schema.metadata[name.encode()]))
        for name, found in json.loads(table.schema.metadata[b"look"]).items():
            look[name].update(dict.fromkeys(found))
        numbered.append(_numbered(split, first_line, json.loads(table.schema.metadata[b"lines"])))
        pieces = table.column("piece").to_numpy()
        begins = np.array([piece.first_line for piece in numbered[-1].pieces], np.int64)
        # From line numbers within a piece to those of its file, and from pieces of a split to those of the source.
        table = _with_column(table, "line", table.column("line").to_numpy() + begins[pieces])
        tables.append(_with_column(table, "piece", (pieces + first_piece).astype(np.int32)))
        first_piece += len(split.pieces)
    joined = pa.concat_tables(
        [SCAN_SCHEMA.empty_table(), *(table.replace_schema_metadata(None) for table in tables)]
    ).unify_dictionaries()
    column = {name: joined.column(name).combine_chunks() for name in joined.column_names}
    scan = Scan(
        ids=column["id"],
        content_hashes=column["content_hash"],
        lines=column["line"].to_numpy(),
        pieces=column["piece"].to_numpy(),
        deleted=column["deleted"].to_numpy(zero_copy_only=False),
        errors=column["error"],
        messages=column["message"],
        paths=column["path"],
        types=dict(types["types"].most_common()),
        skipped=dict(types["skipped"].most_common()),
        several=tuple(look["several"]),
        filled=tuple(look["filled"]),
        fields=tuple(look["fields"]),
        stands_for=column["stands_for"].cast(pa.string()),
    )
    return numbered, scan


def _numbered(split: Split, first_line: dict[str, int], lines: Sequence[int]) -> Split:
    """A split whose pieces know their first lines; `first_line` has that of the next piece of each file."""
    pieces: list[Piece] = []
    for piece, count in zip(split.pieces, lines, strict=True):
        pieces.append(replace(piece, first_line=first_line.get(piece.path, 1)))
        first_line[piece.path] = pieces[-1].first_line + count
    return replace(split, pieces=tuple(pieces))


def _with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), pa.array(values))
