"""How long chunks are, in words and in tokens, and how many the model's window cuts."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from models.model import Model
from transforms.batches import ChunkedBatch
from transforms.chunk.boundaries import count_words_of
from transforms.chunk.groups import with_firsts
from transforms.embed.merge import count_stored
from transforms.embed.reuse import PreviousRows
from transforms.lengths import Histogram, histogram
from transforms.records import ChunkedDocument


@dataclass(frozen=True, slots=True)
class FieldMeasures:
    """What embedding one semantic field of some documents would take.

    Attributes:
        field: name of the field.
        documents: documents with at least one chunk.
        chunks: chunks before folding.
        stored: chunks after folding those of values with more than 512.
        reused: chunks whose embedding the table holds already.
        tokens: tokens that the model would see, of the chunks that are not reused.
        truncated: chunks that the model's window would cut.
        characters: characters of all chunks.
        words: histogram of words a chunk.
        token_lengths: histogram of tokens a chunk, before truncation.
    """

    field: str
    documents: int = 0
    chunks: int = 0
    stored: int = 0
    reused: int = 0
    tokens: int = 0
    truncated: int = 0
    characters: int = 0
    words: Histogram = dataclasses.field(default_factory=dict)
    token_lengths: Histogram = dataclasses.field(default_factory=dict)


def measure(
    name: str, model: Model, documents: Sequence[ChunkedDocument], reused: Sequence[set[int]]
) -> FieldMeasures:
    """Measure one field's chunks of some documents.

    Args:
        name: the field.
        model: its model; only the tokenizer is used.
        documents: the documents.
        reused: for each document the positions of the chunks whose embedding is at hand.
    """
    chunks = [document.chunks[name] for document in documents]
    texts = [chunk.text for document in chunks for chunk in document]
    inputs = [chunk.model_input for document in chunks for chunk in document]
    is_reused = [
        index in known
        for document, known in zip(chunks, reused, strict=True)
        for index in range(len(document))
    ]
    tokens = model.count_tokens(inputs).tolist() if inputs else []
    window = model.max_tokens or max(tokens, default=0)
    seen = [count for count, known in zip(tokens, is_reused, strict=True) if not known]
    groups = [
        group.text
        for document, known in zip(documents, reused, strict=True)
        for first, group in with_firsts(document.groups.get(name, ()))
        if first not in known
    ]
    if groups:  # the model sees them, not chunk by chunk
        seen = model.count_tokens(groups).tolist()
    return FieldMeasures(
        field=name,
        documents=sum(map(bool, chunks)),
        chunks=len(texts),
        stored=sum(map(count_stored, chunks)),
        reused=sum(is_reused),
        tokens=sum(min(count, window) for count in seen),
        truncated=sum(count > window for count in tokens),
        characters=sum(map(len, texts)),
        words=histogram(count_words_of(texts)),
        token_lengths=histogram(tokens),
    )


@dataclass
class MeasureDocuments(beam.PTransform):
    """Measure chunked documents in place of embedding them; gives FieldMeasures.

    Attributes:
        models: semantic field -> its model, of which only the tokenizer is used.
        previous: the rows of the table whose embeddings would be used again.
    """

    models: dict[str, Model]
    previous: PreviousRows

    def __post_init__(self) -> None:
        super().__init__()

    def expand(
        self, documents: beam.pvalue.PCollection[ChunkedBatch]
    ) -> beam.pvalue.PCollection[FieldMeasures]:
        """Wire the stage."""
        return documents | beam.ParDo(_MeasureFields(self.models, self.previous))


class _MeasureFields(beam.DoFn):
    """Collects documents within a bundle and measures them together."""

    DOCUMENTS = 256

    def __init__(self, models: dict[str, Model], previous: PreviousRows) -> None:
        self.models = models
        self.previous = previous

    def start_bundle(self) -> None:
        """Start with an empty buffer."""
        self._buffer: list[ChunkedDocument] = []

    def process(self, documents: ChunkedBatch) -> Iterator[FieldMeasures]:
        """Take some documents; yields when enough are there for the tokenizer to use all cores."""
        self._buffer += documents
        if len(self._buffer) >= self.DOCUMENTS:
            yield from self._measure()

    def finish_bundle(self) -> Iterator[Any]:
        """Measure what is left."""
        for measures in self._measure():
            yield WindowedValue(measures, GlobalWindow().max_timestamp(), (GlobalWindow(),))

    def _measure(self) -> Iterator[FieldMeasures]:
        buffer, self._buffer = self._buffer, []
        for name, model in self.models.items():
            if buffer:
                reused = [self._reused(document, name) for document in buffer]
                yield measure(name, model, buffer, reused)

    def _reused(self, document: ChunkedDocument, name: str) -> set[int]:
        groups = document.groups.get(name)
        found = self.previous.reusable(document.document, name, document.chunks[name], groups)
        return set(found.rows) if found is not None else set()
