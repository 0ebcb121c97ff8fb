"""Load chunks into any engine: what a load does is the same everywhere, an engine only says how."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from pipeline.errors import PipelineError
from pipeline.exchange.chunks import ChunkSchema, Vocabulary, chunk_schemas, part_chunks
from pipeline.exchange.rows import TableRows, all_rows, changed_rows

GROUP = 200
"""Documents whose old chunks are deleted in one request."""


Item = TypeVar("Item")


def groups(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """Cut into groups of at most `size`."""
    left = iter(items)
    while group := tuple(islice(left, size)):
        yield group


@dataclass
class ChunkState:
    """What a collection remembers.

    Attributes:
        table_id: the table whose chunks it holds.
        fields: the semantic fields.
        version: the table's version that it shows; None while it was never complete.
        pending: versions of loads that were begun and did not end.
    """

    table_id: str
    fields: list[str]
    version: int | None = None
    pending: list[int] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As engines keep it."""
        return asdict(self)


class ChunkTarget(Protocol):
    """A collection of chunks in some engine. Every step is safe to repeat."""

    def state(self) -> ChunkState | None:
        """What it remembers; None where there is no collection."""

    def create(self, schemas: Sequence[ChunkSchema]) -> None:
        """Make the collection; what is left of one that was half made does not matter."""

    def remember(self, state: ChunkState) -> None:
        """Keep the state."""

    def tokens(self) -> list[str]:
        """The vocabulary, by number; empty where the engine takes tokens by name."""

    def add_tokens(self, first: int, tokens: Sequence[str]) -> None:
        """Append to the vocabulary."""

    def upsert(self, batch: pa.RecordBatch, schema: ChunkSchema, vocabulary: Vocabulary) -> None:
        """Write chunks, in place of those with the same ids."""

    def keep_only(self, documents: Sequence[str], chunks: Sequence[str]) -> None:
        """Delete the chunks of some documents, all but some."""

    def count(self) -> int:
        """Number of chunks."""


@dataclass(frozen=True)
class ChunkReport:
    """What a load did.

    Attributes:
        table_version: version of the table that the collection shows now.
        since: versions that it may have shown before; none for a first load.
        written: chunks that were written.
        deleted: documents whose chunks were deleted.
        chunks: chunks in the collection.
    """

    table_version: int
    since: list[int]
    written: int
    deleted: int
    chunks: int


def load_chunks(
    target: ChunkTarget,
    table_path: str,
    fields: Sequence[str] = (),
    columns: Sequence[str] = (),
    *,
    advance: Callable[[int], None] = lambda chunks: None,
) -> ChunkReport:
    """Bring a collection to the newest version of the table.

    Args:
        target: the collection.
        table_path: the table.
        fields: semantic fields; none for all.
        columns: plain columns that each chunk repeats.
        advance: is told of chunks that are written.

    Raises:
        PipelineError: the collection holds something else, or has another number of chunks afterwards.
    """
    everything = all_rows(table_path)
    schemas = chunk_schemas(everything, fields, columns)
    names = [schema.field for schema in schemas]
    state = target.state()
    if state is None:
        target.create(schemas)
        state = ChunkState(everything.snapshot.id, names)
    if (state.table_id, state.fields) != (everything.snapshot.id, names):
        raise PipelineError(
            "the collection holds the chunks of another table, or of other fields "
            f"({', '.join(state.fields)}); name a new one"
        )
    known = sorted({*state.pending, *([] if state.version is None else [state.version])})
    rows = _wanted(everything, table_path, state, known)
    state.pending = sorted({*state.pending, everything.snapshot.version})
    target.remember(state)
    written = _write(target, rows, schemas, fresh=not known, advance=advance)
    for group in groups(rows.deleted, GROUP):
        target.keep_only(group, ())
    chunks, wanted = target.count(), _count(everything, names)
    if chunks != wanted:
        raise PipelineError(
            f"the collection has {chunks:,} chunks and the table {wanted:,}; something else writes to it. Load into a "
            "new one."
        )
    target.remember(ChunkState(state.table_id, names, everything.snapshot.version))
    since = [] if state.version is None else known
    return ChunkReport(everything.snapshot.version, since, written, len(rows.deleted), chunks)


def _wanted(everything: TableRows, path: str, state: ChunkState, known: list[int]) -> TableRows:
    if not known:
        return everything
    changed = changed_rows(path, known, everything.snapshot.version)
    # A first load that was broken off may lack any document; what it has of other versions may have to go.
    return changed if state.version is not None else TableRows(everything.snapshot, None, changed.deleted)


def _write(
    target: ChunkTarget,
    rows: TableRows,
    schemas: Sequence[ChunkSchema],
    *,
    fresh: bool,
    advance: Callable[[int], None],
) -> int:
    vocabulary = Vocabulary(target.tokens())
    known = len(vocabulary)
    written = 0
    for part in rows.parts():
        kept: dict[str, list[str]] = {}
        if not fresh:
            kept = {id_: [] for table in rows.read(part, ["_id"]) for id_ in table["_id"].to_pylist()}
        for schema in schemas:
            for batch in part_chunks(rows, part, schema, vocabulary):
                # Numbers mean something only once the vocabulary says what.
                target.add_tokens(known, vocabulary.tokens[known:])
                known = len(vocabulary)
                target.upsert(batch, schema, vocabulary)
                written += batch.num_rows
                advance(batch.num_rows)
                if not fresh:
                    for id_, chunk in zip(
                        batch["_id"].to_pylist(), batch["chunk_id"].to_pylist(), strict=True
                    ):
                        kept[id_].append(chunk)
        for group in groups(kept, GROUP):
            target.keep_only(group, [chunk for id_ in group for chunk in kept[id_]])
    return written


def _count(rows: TableRows, fields: Sequence[str]) -> int:
    """Number of chunks in the table."""
    from transforms.table.columns import ChunkColumn
    from transforms.table.parts import open_part

    total = 0
    for part in rows.snapshot.parts:
        columns = [f"{name}.chunks.list.element.start_offset" for name in fields]
        table = open_part(rows.snapshot.path, part).read(columns=columns)
        total += sum(int(ChunkColumn.of(column).lengths.sum()) for column in table.columns)
    return total
