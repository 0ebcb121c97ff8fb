"""Cut the values of semantic_text fields into chunks, and the stage that does it for documents."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import apache_beam as beam
import numpy as np
import numpy.typing as npt
from apache_beam.metrics.metric import Metrics

from models.errors import illegal_argument
from models.late_chunking import LateChunking
from models.text import Utf16Text, is_blank
from transforms.batches import ChunkedBatch, DocumentBatch
from transforms.chunk.boundaries import find_sentences
from transforms.chunk.context import ChunkContexts
from transforms.chunk.groups import group_chunks
from transforms.chunk.separators import compile_separator
from transforms.chunk.strategies import spans_of
from transforms.chunk.token_strategies import CountTokens
from transforms.field_values import field_values
from transforms.records import (
    DONE,
    FAILED,
    Chunk,
    ChunkedDocument,
    Document,
    Failure,
    Group,
    SemanticField,
)


class TokenCounter(Protocol):
    """Whatever counts tokens for the setting ``size_unit: tokens``; a model does. It is pickled."""

    def count_tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """Count the tokens of each text before truncation, special tokens included."""
        ...


def chunk_document(
    document: Document, field: SemanticField, count_tokens: CountTokens | None = None
) -> tuple[Chunk, ...]:
    """Cut the values of one document; see `chunk_documents`."""
    return chunk_documents([document], field, count_tokens)[0]


class _Value(NamedTuple):
    """A value that a semantic_text field embeds: whose it is, and where it begins in its source field."""

    document: int
    source_field: str
    number: int
    base: int
    text: Utf16Text


def chunk_documents(
    documents: Sequence[Document], field: SemanticField, count_tokens: CountTokens | None = None
) -> list[tuple[Chunk, ...]]:
    """Cut every value that a semantic_text field embeds, those of all documents together.

    Offsets count from the start of each source field, whose values stand one character apart. Blank values
    have no chunk, but their length counts.

    Raises:
        InferenceError: a value is an object, or a separator cannot be used (status 400).
    """
    values = list(_values(documents, field))
    chunks: list[list[Chunk]] = [[] for _ in documents]
    spans = spans_of([value.text for value in values], field.chunking, count_tokens)
    for (document, name, number, base, text), found in zip(values, spans, strict=True):
        into, cut = chunks[document], text.slice
        for start, end in found:
            into.append(Chunk(name, number, base + start, base + end, cut(start, end)))
    if field.context is not None:
        chunks = [
            _with_context(document, field.context, found)
            for document, found in zip(documents, chunks, strict=True)
        ]
    return list(map(tuple, chunks))


def _with_context(document: Document, template: str, chunks: Sequence[Chunk]) -> list[Chunk]:
    contexts = ChunkContexts(template, document.source)
    return [chunk._replace(context=contexts.of(chunk.source_field, chunk.start_offset)) for chunk in chunks]


def _values(documents: Sequence[Document], field: SemanticField) -> Iterator[_Value]:
    for place, document in enumerate(documents):
        for name in field.sources:
            base = 0
            for number, value in enumerate(field_values(document.source, name)):
                text = Utf16Text(value)
                if not is_blank(value):
                    yield _Value(place, name, number, base, text)
                base += text.length + 1


@dataclass
class ChunkDocuments(beam.PTransform):
    """Cut the semantic_text fields of batches of documents into chunks.

    Two outputs: ``done`` holds batches of ChunkedDocuments, ``failed`` a Failure for each document that could not be
    cut.

    Attributes:
        fields: the fields to cut.
        token_counters: name of a field -> what counts its tokens; needed where its size is in tokens.
        late: name of each field with late chunking -> what groups its chunks.
    """

    fields: tuple[SemanticField, ...]
    token_counters: Mapping[str, TokenCounter] = field(default_factory=dict)
    late: Mapping[str, LateChunking] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        # What is wrong for all documents should stop the launch, not fail each of them.
        for semantic_field in self.fields:
            settings = semantic_field.chunking
            if settings.size_unit == "tokens" and semantic_field.name not in self.token_counters:
                raise illegal_argument(
                    f"field [{semantic_field.name}] has [size_unit] [tokens] and no tokenizer to count with"
                )
            if settings.language is not None:
                find_sentences(Utf16Text("One."), settings.language)
            for separator in settings.separators or ():
                compile_separator(separator)

    def expand(self, documents: beam.pvalue.PCollection[DocumentBatch]) -> Any:
        """Wire the stage."""
        # A PTransform with two outputs has no annotation that Beam would understand.
        chunk = _ChunkBatch(self.fields, dict(self.token_counters), dict(self.late))
        return documents | beam.ParDo(chunk).with_outputs(FAILED, main=DONE)


class _ChunkBatch(beam.DoFn):
    """Cuts a batch of documents at a time; one that cannot be cut becomes a Failure."""

    documents_chunked = Metrics.counter("chunk", "documents_chunked")
    chunks_made = Metrics.counter("chunk", "chunks_made")
    failures = Metrics.counter("chunk", "failures")

    def __init__(
        self,
        fields: tuple[SemanticField, ...],
        token_counters: dict[str, TokenCounter],
        late: dict[str, LateChunking],
    ) -> None:
        self.fields = fields
        self.token_counters = token_counters
        self.late = late

    def process(self, documents: DocumentBatch) -> Iterator[ChunkedBatch]:
        """Cut all fields of some documents."""
        done = ChunkedBatch()
        for outcome in self._cut(documents):
            if isinstance(outcome, Failure):
                self.failures.inc()
                yield beam.pvalue.TaggedOutput(FAILED, outcome)
            else:
                done.append(outcome)
        self.documents_chunked.inc(len(done))
        self.chunks_made.inc(sum(len(chunks) for one in done for chunks in one.chunks.values()))
        if done:
            yield done

    def _cut(self, documents: Sequence[Document]) -> list[ChunkedDocument | Failure]:
        try:
            by_field = [self._chunk(documents, target) for target in self.fields]
            groups = self._group(documents, by_field) if self.late else [{} for _ in documents]
        except Exception as error:
            # Whatever is wrong with one document, the others go on. The text itself stays out of the message.
            if len(documents) == 1:
                return [_failure(documents[0], error)]
            return [outcome for document in documents for outcome in self._cut([document])]
        names = [target.name for target in self.fields]
        return [
            ChunkedDocument(document, dict(zip(names, chunks, strict=True)), groups=own)
            for document, own, *chunks in zip(documents, groups, *by_field, strict=True)
        ]

    def _chunk(self, documents: Sequence[Document], target: SemanticField) -> list[tuple[Chunk, ...]]:
        counter = self.token_counters.get(target.name)
        return chunk_documents(documents, target, counter.count_tokens if counter else None)

    def _group(
        self, documents: Sequence[Document], by_field: Sequence[list[tuple[Chunk, ...]]]
    ) -> list[dict[str, tuple[Group, ...]]]:
        """Name of each field with late chunking -> the groups of its chunks, for each document."""
        found: list[dict[str, tuple[Group, ...]]] = [{} for _ in documents]
        for target, chunks in zip(self.fields, by_field, strict=True):
            if target.name not in self.late:
                continue
            places = [[chunk.place for chunk in own] for own in chunks]
            sources = [document.source for document in documents]
            grouped = group_chunks(self.late[target.name], list(zip(sources, places, strict=True)))
            for own, groups in zip(found, grouped, strict=True):
                own[target.name] = groups
        return found


def _failure(document: Document, error: Exception) -> Failure:
    """Describe a document that could not be cut."""
    return Failure("chunk", document.id, *document.location, type(error).__name__, str(error))
