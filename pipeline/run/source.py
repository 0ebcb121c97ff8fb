"""What a run reads of its source before it plans: splits, deletions, ids and hashes."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.config.run_config import RunConfig
from pipeline.errors import PipelineError
from pipeline.run.compare import Scan
from transforms import files
from transforms.read.scan import SCAN_SCHEMA, scan_path
from transforms.read.splits import list_splits
from transforms.records import Split

SMALL_SOURCE = 256 * 1024 * 1024
"""A source of fewer bytes is scanned in some ten seconds; worker processes take as long to start."""


def find_splits(config: RunConfig) -> list[Split]:
    """List the source's files and cut them into pieces, enough for all workers.

    Raises:
        PipelineError: a path matches nothing or cannot be read.
    """
    source = config.source
    workers = max(config.runner.workers, config.runner.parallelism or 1)
    try:
        splits = list_splits(source.paths, source.format, source.split_bytes)
        if workers > 1 and len(splits) < 4 * workers:
            total = sum(split.end - split.start for split in splits)
            enough = min(source.split_bytes, max(total // (4 * workers), 64 * 1024))
            splits = list_splits(source.paths, source.format, enough)
    except OSError as error:
        raise PipelineError(f"the source cannot be read: {error}") from None
    return splits


def read_deletions(config: RunConfig) -> list[str]:
    """Read the ids of `source.deletions`."""
    if config.source.deletions is None:
        return []
    try:
        with files.open_read(config.source.deletions) as handle:
            lines = handle.read().decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(f"source.deletions [{config.source.deletions}] cannot be read: {error}") from None
    return [line for line in lines if line]


def read_scans(splits: Sequence[Split], folder: str) -> tuple[list[Split], Scan]:
    """Put the scans of all splits together, in source order, and number the lines of each file through."""
    numbered, tables = [], []
    types: dict[str, Counter[str]] = {"types": Counter(), "skipped": Counter()}
    first_line: dict[str, int] = {}
    for split in splits:
        with files.open_read(scan_path(folder, split.index)) as handle:
            table = pq.read_table(handle)
        split = replace(split, first_line=first_line.get(split.path, 1))
        first_line[split.path] = split.first_line + int(table.schema.metadata[b"lines"])
        for name, counts in types.items():
            counts.update(json.loads(table.schema.metadata[name.encode()]))
        lines = pc.add(table.column("line"), split.first_line)
        numbered.append(split)
        tables.append(table.set_column(2, "line", lines).replace_schema_metadata(None))
    joined = pa.concat_tables([SCAN_SCHEMA.empty_table(), *tables])
    lengths = [table.num_rows for table in tables]
    column = {name: joined.column(name).combine_chunks() for name in joined.column_names}
    scan = Scan(
        ids=column["id"],
        content_hashes=column["content_hash"],
        lines=column["line"].to_numpy(),
        splits=np.repeat(np.arange(len(tables), dtype=np.int32), lengths),
        deleted=column["deleted"].to_numpy(zero_copy_only=False),
        errors=column["error"],
        messages=column["message"],
        paths=column["path"],
        types=dict(types["types"].most_common()),
        skipped=dict(types["skipped"].most_common()),
    )
    return numbered, scan
