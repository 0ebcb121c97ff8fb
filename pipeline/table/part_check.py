"""Check part files: their bytes against the hash in their names, and where that does not hold, row by row.

Row by row, content hashes and the values of columns are derived again, offsets are held against the text that they cut,
and embeddings against the model settings that the table states.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.errors import InferenceError
from models.text import Utf16Text
from pipeline.config.mapping import Mappings
from pipeline.table.embedding_check import expected_numbers, is_uneven
from pipeline.table.log import LoggedPart
from transforms import exact_json, files
from transforms.field_values import joined_values
from transforms.plain_values import PlainField
from transforms.read.columns import DocumentShape
from transforms.read.documents import content_hash
from transforms.read.rows.readers import BadDocumentError
from transforms.records import BYTES_HASH, VERSION_HASH
from transforms.table.columns import ChunkColumn, dense_values
from transforms.table.fingerprint import is_fingerprint
from transforms.table.parts import (
    REQUIRED,
    DamagedPartError,
    has_checksums,
    in_table_types,
    is_whole,
    open_part,
)

BATCH_ROWS = 500

PART_DAMAGE = frozenset(
    {
        *("missing", "size", "checksum", "unreadable", "rows"),
        *("hash", "fingerprint", "column", "offsets", "embedding"),
    }
)
"""Kinds of problems that making a part's documents again mends."""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong.

    Attributes:
        kind: one of `log`, `missing`, `size`, `checksum`, `unreadable`, `rows`, `duplicate`, `hash`, `fingerprint`,
            `column`, `offsets`, `embedding`, `models`, `index`.
        where: the part file, or the index.
        detail: what was found, and what should be.
    """

    kind: str
    where: str
    detail: str


@dataclass
class PartCheck:
    """Checks part files and adds up what is in them.

    Attributes:
        path: the table.
        description: what the table says of its fields.
        problems: what is wrong; it grows.
        all_rows: whether to derive the rows of all parts again.
        parts: part files that could be read.
        chunks: chunks in them.
        fingerprints: fingerprint -> number of rows.
    """

    path: str
    description: dict[str, Any]
    problems: list[Problem]
    all_rows: bool = False
    parts: int = 0
    chunks: int = 0
    fingerprints: Counter[str] = field(default_factory=Counter)

    def part(self, name: str, logged: LoggedPart) -> pa.Array:
        """Check one part file; returns its ids."""
        none = pa.array([], pa.string())
        place = files.join(self.path, name)
        if not files.exists(place):
            self._report("missing", name, "the log names this part file, and it is not there")
            return none
        size = files.size_of(place)
        if size != logged.size:
            self._report("size", name, f"{size} bytes; the log says {logged.size}")
        whole = is_whole(self.path, name)
        if not whole:
            self._report(
                "checksum", name, f"its bytes are not those that were written: {_damage(self.path, name)}"
            )
        derive = self.all_rows or not whole or not has_checksums(name)
        try:
            with files.open_read(place) as handle:
                ids = self._rows(pq.ParquetFile(handle, page_checksum_verification=True), name, derive=derive)
        except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
            self._report("unreadable", name, f"{type(error).__name__}: {error}"[:300])
            return none
        if logged.rows is not None and len(ids) != logged.rows:
            self._report("rows", name, f"{len(ids)} rows; the log says {logged.rows}")
        elif logged.ids is not None and len(ids) and tuple(pc.min_max(ids).as_py().values()) != logged.ids:
            self._report("rows", name, f"its first and last _id are not {logged.ids}, as the log says")
        return ids

    def _rows(self, part: pq.ParquetFile, name: str, *, derive: bool) -> pa.Array:
        """Count the rows of a part, and derive them again if asked for; returns their ids."""
        fields = [
            field_name for field_name in self.description["fields"] if field_name in part.schema_arrow.names
        ]
        for field_name in fields if not derive else ():
            numbers = expected_numbers(self.description["fields"][field_name]["model_settings"])
            if numbers is not None and is_uneven(part.metadata, field_name, numbers):
                self._report(
                    "embedding", name, f"not all embeddings of [{field_name}] have {numbers} numbers"
                )
        # Of chunks that are only counted, one of their numbers is read.
        counted = [
            "_id",
            "fingerprint",
            *(f"{field_name}.chunks.list.element.end_offset" for field_name in fields),
        ]
        ids = [pa.array([], pa.string())]
        for batch in part.iter_batches(batch_size=BATCH_ROWS, columns=None if derive else counted):
            rows = pa.Table.from_batches([in_table_types(batch)])
            if derive:
                rows = self._complete(rows, name)
                for kind, detail in _check_batch(rows, self.description, self._columns):
                    self._report(kind, name, detail)
            self.chunks += sum(len(ChunkColumn.of(rows.column(field_name)).chunks) for field_name in fields)
            self.fingerprints.update(rows.column("fingerprint").to_pylist())
            ids.append(rows.column("_id").combine_chunks())
        self.parts += 1
        return pa.concat_arrays(ids)

    def _complete(self, rows: pa.Table, name: str) -> pa.Table:
        """The rows that have all that a row must have; says how many have not."""
        whole = np.ones(rows.num_rows, bool)
        for column in REQUIRED:
            whole &= rows.column(column).is_valid().to_numpy()
        if not whole.all():
            self._report(
                "rows",
                name,
                f"{int((~whole).sum())} rows without {' or '.join(REQUIRED)}, of another program",
            )
        return rows.filter(pa.array(whole))

    @cached_property
    def _columns(self) -> tuple[PlainField, ...]:
        """The plain columns that the table's mapping asks for."""
        mappings = self.description.get("mappings")
        return Mappings.model_validate(mappings).columns() if mappings else ()

    def _report(self, kind: str, where: str, detail: str) -> None:
        self.problems.append(Problem(kind, where, detail))


def _damage(path: str, name: str) -> str:
    """Name the columns of a part whose pages are damaged, or what else is."""
    try:
        part = open_part(path, name)
    except DamagedPartError:
        return "the footer is damaged"
    damaged = []
    for column in part.schema_arrow.names:
        try:
            part.read(columns=[column])
        except DamagedPartError:
            damaged.append(column)
    return f"column {', '.join(damaged)}" if damaged else "between the columns"


def _check_batch(
    rows: pa.Table, description: dict[str, Any], plain: Sequence[PlainField]
) -> Iterator[tuple[str, str]]:
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
    for field_ in plain:
        if field_.name in rows.column_names:
            yield from _check_column(rows, field_, sources)
    for name, described in description["fields"].items():
        if name in rows.column_names:
            yield from _check_field(rows, name, described, sources)


def _check_column(
    rows: pa.Table, field_: PlainField, sources: Sequence[dict[str, Any]]
) -> Iterator[tuple[str, str]]:
    """Hold a plain column against the documents, the source of its values."""
    column = rows.column(field_.name)
    shape = DocumentShape((field_,), lists=frozenset([field_.name] if pa.types.is_list(column.type) else []))
    for row, source in enumerate(sources):
        try:
            expected = shape.column_values(source)[field_.name]
        except BadDocumentError:
            continue  # the row is of an older mapping, by which the value was left out
        if not column[row].equals(pa.scalar(expected, column.type)):
            document_id = rows.column("_id")[row]
            yield "column", f"[{document_id}] {field_.name} is not the value that its _source holds"


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
        expected = expected_numbers(settings) or sizes[:1].max()
        for row in np.flatnonzero(sizes != expected).tolist():
            yield row, f"an embedding has {sizes[row]} numbers; the model's have {expected}"
        parents = np.asarray(pc.list_parent_indices(column))
        bad = ~np.isfinite(dense_values(column).astype(np.float32))
    for row in np.unique(parents[bad]).tolist():
        yield row, "an embedding holds a number that is not finite, or a weight that is not positive"
