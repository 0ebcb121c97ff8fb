"""The data model, in the order it flows: Split, Document, ChunkedDocument with its embeddings; Failure beside them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from models.chunking_settings import ChunkingSettings
from models.embeddings import Embeddings, Span

StandsFor = Literal["document", "rest of the file", "unknown"]
"""What a failure stands for. Of how many documents the last two stand for, nobody knows."""

DONE = "done"
"""Output of a stage: what goes on."""

FAILED = "failed"
"""Output of a stage in which documents can fail: a Failure for each of them."""


BYTES_HASH = ":bytes"
"""Ends a content hash that is one of a file's bytes, not of the row's ``_source``."""


VERSION_HASH = ":version"
"""Ends a content hash that is one of a row's key and time of change."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A source file, or a range of one.

    Attributes:
        path: the file.
        start: first byte (JSON lines), row group (Parquet), else 0.
        end: end of the range, exclusive; -1 for the whole file.
        name: the file's path below the configured folder: the id of a text document.
        size: bytes of the piece, roughly; the whole file's where it is not cut.
        first_line: line number of its first line; known once everything before it has been read.
        problem: why the file cannot be read, where that was found while listing.
    """

    path: str
    start: int
    end: int
    name: str
    size: int = 0
    first_line: int = 1
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """The unit of parallel reading: a piece of a large file, or many small files.

    Attributes:
        index: its place in source order.
        pieces: what it reads, in source order.
    """

    index: int
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """Bytes of its pieces, roughly."""
        return sum(piece.size for piece in self.pieces)


class Location(NamedTuple):
    """Where a document stands in the source.

    Attributes:
        path: the file.
        line: line or row number in that file, from 1; 0 for the whole file.
    """

    path: str
    line: int


class PreviousRow(NamedTuple):
    """Where the table holds the row that a changed document replaces.

    Attributes:
        part: path of the Parquet part file, relative to the table.
        row: row number in that file, from 0.
    """

    part: str
    row: int


@dataclass(slots=True)  # nobody changes it; to make a frozen one takes three times as long
class Document:
    """One document as it was read.

    Attributes:
        id: the document's ``_id``.
        source: the document itself, JSON values only.
        content_hash: 32 hexadecimal digits over the whole `source`; equal content has an equal hash. Where the
            document is extracted from a file, they are over the file's bytes, with ``:bytes`` behind
            them; where a database says when a row changed, they are over that, with ``:version`` behind them.
        location: where it came from, for failure reports.
        columns: full name of each plain mapped field -> its value, in the column's type.
        previous: its row in the table, if there is one; its embeddings are reused where a chunk's text is the same.
        brought: semantic field -> what inference has stored of it elsewhere, as ``_inference_fields`` has it.
    """

    id: str
    source: dict[str, Any]
    content_hash: str
    location: Location
    columns: dict[str, Any] = field(default_factory=dict)
    previous: PreviousRow | None = None
    brought: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sketch:
    """A document whose identity is known, and whose text has yet to be extracted.

    Attributes:
        id: the document's ``_id``.
        content_hash: of the bytes and of what extracts them.
        location: the file; for the member of an archive both paths.
        name: the file's path below the configured folder.
        content_type: name of its type.
        content: its bytes.
    """

    id: str
    content_hash: str
    location: Location
    name: str
    content_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file of the source that is no document.

    Attributes:
        content_type: name of its type.
        location: the file.
    """

    content_type: str
    location: Location


@dataclass(frozen=True, slots=True)
class SemanticField:
    """One ``semantic_text`` field of the mapping, resolved.

    Attributes:
        name: full dotted name of the field.
        sources: full dotted names of the fields whose values it embeds: itself and those that ``copy_to`` it.
        chunking: how its values are chunked.
        context: template of what stands before each chunk when it is embedded; None for nothing.
        late_chunking: whether chunks are embedded within their value, those together that fit into the model's window.
    """

    name: str
    sources: tuple[str, ...]
    chunking: ChunkingSettings
    context: str | None = None
    late_chunking: bool = False


class Chunk(NamedTuple):
    """A piece of one value of one source field.

    Attributes:
        source_field: full dotted name of the field that holds the text.
        value: which value, where the field holds an array of values (0 otherwise).
        start_offset: first UTF-16 code unit, in the field's values joined by one separator character.
        end_offset: UTF-16 code unit after the last one.
        text: the text, exactly that slice.
        context: what stands before the text when it is embedded.
    """

    source_field: str
    value: int
    start_offset: int
    end_offset: int
    text: str
    context: str = ""

    @property
    def place(self) -> tuple[str, int, int]:
        """Source field, start and end offset."""
        return self.source_field, self.start_offset, self.end_offset

    @property
    def model_input(self) -> str:
        """What the model gets to see."""
        return self.context + self.text if self.context else self.text


class Group(NamedTuple):
    """Neighbouring chunks of one value that are embedded together. Equal groups have equal embeddings.

    Attributes:
        text: what the model sees, from the first chunk's start to the last one's end.
        spans: where each chunk is in it, in characters.
    """

    text: str
    spans: tuple[Span, ...]


@dataclass(slots=True)  # nobody changes it; to make a frozen one takes three times as long
class EmbeddedField:
    """The chunks of one semantic field and their embeddings, row by row; both empty for a field without text.

    Attributes:
        chunks: the chunks.
        batch: embeddings of the chunks, and of others that were embedded together with them.
        reused: how many of the rows come from the document's previous row instead of the model.
        first: row of `batch` that belongs to the first chunk; those of the others follow.
    """

    chunks: tuple[Chunk, ...]
    batch: Embeddings | None
    reused: int = 0
    first: int = 0

    @property
    def embeddings(self) -> Embeddings | None:
        """One row for each chunk."""
        return None if self.batch is None else self.batch.slice(self.first, self.first + len(self.chunks))


def joined_embeddings(fields: Iterable[EmbeddedField]) -> list[Embeddings]:
    """The embeddings of some fields in order, those that lie one after the other in a batch as one."""
    joined: list[Embeddings] = []
    batch, start, end = None, 0, 0
    for one in fields:
        if one.batch is None or not one.chunks:
            continue
        if one.batch is not batch or one.first != end:
            if batch is not None:
                joined.append(batch.slice(start, end))
            batch, start, end = one.batch, one.first, one.first
        end += len(one.chunks)
    return joined if batch is None else [*joined, batch.slice(start, end)]


@dataclass(slots=True)  # nobody changes it; to make a frozen one takes three times as long
class ChunkedDocument:
    """A document, its chunks, and the embeddings it has collected on its way through the embed stages.

    Attributes:
        document: the document.
        chunks: name of each semantic field -> its chunks, by source field and value, in order.
        embedded: the semantic fields that have their embeddings.
        groups: name of each field with late chunking -> the groups of its chunks, in order.
    """

    document: Document
    chunks: dict[str, tuple[Chunk, ...]]
    embedded: dict[str, EmbeddedField] = field(default_factory=dict)
    groups: dict[str, tuple[Group, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PartFile:
    """A finished Parquet part file of the table.

    Attributes:
        path: path relative to the table.
        size: bytes.
        rows: documents in it.
        first_id: smallest ``_id``.
        last_id: largest ``_id``.
        counts: what the run did for these rows: ``chunks``, ``embedded``, ``reused``, ``tokens``, ``truncated``,
            ``merged``.
        token_lengths: semantic field -> histogram of tokens a chunk, as the model saw them.
        word_lengths: semantic field -> histogram of words a chunk, of one document in sixteen.
    """

    path: str
    size: int
    rows: int
    first_id: str
    last_id: str
    counts: dict[str, int] = field(default_factory=dict)
    token_lengths: dict[str, dict[str, int]] = field(default_factory=dict)
    word_lengths: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """A document, or a line that should have been one, that could not be ingested. Never holds its text.

    Attributes:
        stage: ``read``, ``chunk``, ``embed`` or ``write``.
        document_id: its id, where one is known.
        path: the source file.
        line: line or row number in that file, from 1; 0 for the whole file.
        error: name of the error's class.
        message: what went wrong, in one sentence.
        stands_for: what was lost: one document, the rest of its file, or an unknown number of documents.
    """

    stage: str
    document_id: str | None
    path: str
    line: int
    error: str
    message: str
    stands_for: StandsFor = "document"


@dataclass(frozen=True, slots=True)
class PartRewrite:
    """A part file some of whose rows are replaced or deleted.

    Attributes:
        path: the part, relative to the table.
        dropped: row numbers that go.
    """

    path: str
    dropped: tuple[int, ...]
