"""Check a published table against itself, its log and its index; nothing is taken on trust from the run that wrote it.

Ids, hashes and counts are derived again from the part files, offsets are held against the text that they cut, and
embeddings against the model settings that the part states.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from models.errors import InferenceError
from models.text import Utf16Text
from pipeline.config.run_config import RunConfig
from pipeline.errors import PipelineError
from pipeline.table.delta import describe_table, require_table
from pipeline.table.log import LoggedPart, TableLog, read_log
from pipeline.table.open_runs import open_runs
from pipeline.table.parts import list_parts
from transforms import exact_json, files
from transforms.field_values import joined_values
from transforms.read.documents import content_hash
from transforms.records import BYTES_HASH, VERSION_HASH
from transforms.table.columns import ChunkColumn, dense_values
from transforms.table.description import DESCRIPTION
from transforms.table.fingerprint import is_fingerprint
from transforms.table.parts import is_made_by

BATCH_ROWS = 500


@dataclass(frozen=True)
class Problem:
    """Something that is wrong.

    Attributes:
        kind: one of `size`, `missing`, `unreadable`, `rows`, `duplicate`, `hash`, `fingerprint`, `offsets`,
            `embedding`, `index`.
        where: the part file, or the index.
        detail: what was found, and what should be.
    """

    kind: str
    where: str
    detail: str


@dataclass
class Verification:
    """What a check found.

    Attributes:
        table_version: the version that was checked.
        parts: part files read.
        rows: documents in them.
        chunks: chunks in them.
        other_fingerprints: rows of an older mapping or model; the next run writes them again.
        orphans: part files that no version names and no open run owns; `vacuum` removes them.
        open_runs: runs that are going on or were killed.
        index_version: the version that the index shows; None without an index.
        problems: what is wrong.
    """

    table_version: int
    parts: int = 0
    rows: int = 0
    chunks: int = 0
    other_fingerprints: int = 0
    orphans: int = 0
    open_runs: int = 0
    index_version: int | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """All of it, with `ok`."""
        return {"ok": self.ok, **asdict(self)}


def verify(config: RunConfig) -> Verification:
    """Check the newest version of a table, and its index where there is one."""
    path = config.table.path
    table = require_table(config)
    log = read_log(path)
    found = Verification(table.version())
    description = _description(path, table)
    ids = [_verify_part(path, name, log.parts[name], description, found) for name in sorted(log.active)]
    _find_duplicates(pa.chunked_array(ids, pa.string()), found)
    _count_leftovers(path, log, found)
    newest = _newest_fingerprint(config)
    found.other_fingerprints = found.rows - _count_fingerprint(path, log, newest, found)
    # The index is held against the rows, so it has to wait until they can all be read.
    if config.index is not None and not {"missing", "unreadable"} & {
        problem.kind for problem in found.problems
    }:
        _verify_index(config, found)
    return found


def _description(path: str, table: DeltaTable) -> dict[str, Any]:
    """What the table says about its rows; the newest word where the rows that would tell cannot be read."""
    try:
        return describe_table(path, table)
    except PipelineError:
        return dict(json.loads(table.metadata().configuration.get(DESCRIPTION, '{"fields": {}}')))


def _verify_part(
    path: str, name: str, logged: LoggedPart, description: dict[str, Any], found: Verification
) -> pa.Array:
    """Check one part file; returns its ids."""
    none = pa.array([], pa.string())
    if not files.exists(files.join(path, name)):
        found.problems.append(Problem("missing", name, "the log names this part file, and it is not there"))
        return none
    size = files.size_of(files.join(path, name))
    if size != logged.size:
        found.problems.append(Problem("size", name, f"{size} bytes; the log says {logged.size}"))
    try:
        with files.open_read(files.join(path, name)) as handle:
            return _verify_rows(pq.ParquetFile(handle), name, logged, description, found)
    except (pa.ArrowException, OSError, orjson.JSONDecodeError, KeyError) as error:
        found.problems.append(Problem("unreadable", name, f"{type(error).__name__}: {error}"))
        return none


def _verify_rows(
    part: pq.ParquetFile, name: str, logged: LoggedPart, description: dict[str, Any], found: Verification
) -> pa.Array:
    ids = [pa.array([], pa.string())]
    for batch in part.iter_batches(batch_size=BATCH_ROWS):
        rows = pa.Table.from_batches([batch])
        found.problems += [Problem(kind, name, detail) for kind, detail in _check_batch(rows, description)]
        columns = [ChunkColumn.of(rows.column(field_name)) for field_name in description["fields"]]
        found.chunks += sum(len(column.chunks) for column in columns)
        ids.append(batch.column("_id"))
    joined = pa.concat_arrays(ids)
    found.parts += 1
    found.rows += len(joined)
    if logged.rows is not None and len(joined) != logged.rows:
        found.problems.append(Problem("rows", name, f"{len(joined)} rows; the log says {logged.rows}"))
    return joined


def _check_batch(rows: pa.Table, description: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Check some rows; yields kind and detail of each problem."""
    sources: list[dict[str, Any]] = []
    columns = (rows.column(name).to_pylist() for name in ("_id", "_source", "content_hash", "fingerprint"))
    for document_id, source, stated, fingerprint in zip(*columns, strict=True):
        fields = exact_json.loads(source)
        sources.append(fields)
        # The hash of a file's bytes, or of a row's time of change, cannot be derived from the text.
        derived = stated if stated.endswith((BYTES_HASH, VERSION_HASH)) else content_hash(fields)
        if derived != stated:
            yield "hash", f"[{document_id}] has content_hash {stated}; its _source hashes to {derived}"
        if not is_fingerprint(fingerprint):
            yield (
                "fingerprint",
                f"[{document_id}] has the fingerprint {fingerprint!r:.100}, which is none of ours",
            )
    for name, described in description["fields"].items():
        yield from _check_field(rows, name, described, sources)


def _check_field(
    rows: pa.Table, name: str, described: dict[str, Any], sources: list[dict[str, Any]]
) -> Iterator[tuple[str, str]]:
    """Check offsets and embeddings of one semantic field."""
    column = ChunkColumn.of(rows.column(name))
    row_of_chunk = column.rows
    ids = rows.column("_id")
    lengths: dict[tuple[int, str], int] = {}
    for row, (source_field, start, end) in zip(row_of_chunk.tolist(), column.places(), strict=True):
        key = (row, source_field)
        if key not in lengths:
            lengths[key] = _text_length(sources[row], source_field)
        if not 0 <= start <= end <= lengths[key]:
            yield (
                "offsets",
                f"[{ids[row]}] {name}: chunk {start}..{end} of {source_field}, {lengths[key]} long",
            )
    for row, detail in _check_embeddings(column.field("embeddings"), described["model_settings"]):
        yield "embedding", f"[{ids[int(row_of_chunk[row])]}] {name}: {detail}"


def _text_length(source: dict[str, Any], name: str) -> int:
    try:
        return Utf16Text(joined_values(source, name)).length
    except InferenceError:
        return -1


def _check_embeddings(column: pa.Array, settings: dict[str, Any]) -> Iterator[tuple[int, str]]:
    """Yields the position and the problem of each embedding that is wrong."""
    for row in np.flatnonzero(~np.asarray(column.is_valid())).tolist():
        yield row, "a chunk has no embedding"
    if pa.types.is_map(column.type):
        values = column.items
        parents = np.repeat(np.arange(len(column)), np.diff(np.asarray(column.offsets)))
        values = values.slice(int(column.offsets[0].as_py()), len(parents)) if len(column) else values
        bad = ~(
            np.isfinite(values.to_numpy(zero_copy_only=False)) & (values.to_numpy(zero_copy_only=False) > 0)
        )
    else:
        sizes = np.asarray(pc.fill_null(pc.list_value_length(column), 0))
        # A remote service may be the only one to know its dimensions; then all must be alike.
        dimensions = settings.get("dimensions")
        expected = (
            int(dimensions) // (8 if settings.get("element_type") == "bit" else 1)
            if dimensions
            else sizes[:1].max()
        )
        for row in np.flatnonzero(sizes != expected).tolist():
            yield row, f"an embedding has {sizes[row]} numbers; the model's have {expected}"
        parents = np.asarray(pc.list_parent_indices(column))
        bad = ~np.isfinite(dense_values(column).astype(np.float32))
    for row in np.unique(parents[bad]).tolist():
        yield row, "an embedding holds a number that is not finite, or a weight that is not positive"


def _find_duplicates(ids: pa.ChunkedArray, found: Verification) -> None:
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    for entry in twice[:100].to_pylist():
        found.problems.append(
            Problem("duplicate", "table", f"{entry['counts']} rows have the _id [{entry['values']}]")
        )


def _count_leftovers(path: str, log: TableLog, found: Verification) -> None:
    runs = open_runs(path)
    owners = [run.run_id for run in runs]
    found.open_runs = len(runs)
    found.orphans = sum(name not in log.parts and not is_made_by(name, owners) for name in list_parts(path))


def _newest_fingerprint(config: RunConfig) -> str | None:
    """The fingerprint that a run of this config would write; None where its models cannot be described here."""
    from pipeline.config.resolve import resolve
    from pipeline.errors import ConfigError

    try:
        return resolve(config).layout.fingerprint
    except ConfigError:
        return None


def _count_fingerprint(path: str, log: TableLog, fingerprint: str | None, found: Verification) -> int:
    """Number of rows that have a fingerprint; all of them where it is not known."""
    if fingerprint is None:
        return found.rows
    count = 0
    for name in log.active:
        try:
            with files.open_read(files.join(path, name)) as handle:
                column = pq.read_table(handle, columns=["fingerprint"]).column("fingerprint")
        except (pa.ArrowException, OSError):
            continue
        count += int(pc.sum(pc.equal(column.cast(pa.string()), fingerprint)).as_py() or 0)
    return count


def _verify_index(config: RunConfig, found: Verification) -> None:
    """Hold the index against the table, document by document."""
    from transforms.index.state import IndexState, IndexUnusable
    from transforms.index.verify import verify_index

    assert config.index is not None
    where = config.index.path
    found.problems += [
        Problem("index", where, sentence) for sentence in verify_index(config.table.path, where)
    ]
    try:
        state = IndexState.load(Path(where))
    except IndexUnusable:
        return
    found.index_version = None if state is None else int(state.table["version"])
