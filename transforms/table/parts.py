"""Part files of the table: how they are named, written and opened."""

import os
import uuid
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms.records import PartFile

ROW_GROUP_ROWS = 500


def part_pattern(run_id: str | None = None) -> str:
    """Glob of the names of all part files, or of those of one run."""
    return "part-*.parquet" if run_id is None else f"part-{run_id}-*.parquet"


def is_made_by(name: str, run_ids: Iterable[str]) -> bool:
    """Whether a part file was made by one of some runs."""
    return name.startswith(tuple(f"part-{run_id}-" for run_id in run_ids))


def write_part(table: pa.Table, table_path: str, run_id: str) -> PartFile:
    """Write rows as one part file under a fresh name.

    The name is unique, so a retried bundle writes another file and the commit takes only the one it was told of.
    """
    from transforms import files  # imports Beam, which readers of local tables do without

    name = f"part-{run_id}-{uuid.uuid4().hex[:12]}.parquet"
    with files.create(files.join(table_path, name)) as handle:
        pq.write_table(
            table,
            handle,
            compression="zstd",
            row_group_size=ROW_GROUP_ROWS,
            write_page_index=True,
            use_dictionary=repeating_columns(table),
        )
        size = handle.tell()
    ids = table.column("_id").to_pylist()
    return PartFile(name, size, table.num_rows, min(ids), max(ids))


def repeating_columns(table: pa.Table) -> list[str]:
    """Paths of the Parquet columns whose values repeat, as the first rows tell.

    A dictionary makes these small. For texts and embeddings it costs a quarter of the writing, and is then given up.
    """
    found = []
    for name in table.column_names:
        column = table.column(name)
        if isinstance(
            column.type, pa.StructType
        ):  # a semantic column: whose chunks, and whether they were cut
            found += [f"{name}.inference_id"]
            found += [f"{name}.chunks.list.element.{leaf}" for leaf in ("source_field", "is_truncated")]
            continue
        path = name
        if isinstance(column.type, pa.ListType):
            column, path = pc.list_flatten(column), f"{name}.list.element"
        some = column.slice(0, ROW_GROUP_ROWS)
        if len(some) and 2 * pc.count_distinct(some).as_py() <= len(some):
            found.append(path)
    return found


def open_part(table_path: str, name: str) -> pq.ParquetFile:
    """Open one part file of a table, on a local disk or in an object store."""
    if "://" not in table_path:
        return pq.ParquetFile(os.path.join(table_path, name), memory_map=True)
    from transforms import files

    return pq.ParquetFile(files.open_read(files.join(table_path, name)))
