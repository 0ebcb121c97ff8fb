"""Embed the chunks of documents with the model of one endpoint.

Documents are collected until their chunks hold enough text for well-filled batches; the model sorts and batches them
by tokens. While one batch is computed, the next documents are read and chunked. A batch that fails is halved until
one document is to blame, and only that document becomes a Failure.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.shared import Shared
from apache_beam.utils.windowed_value import WindowedValue

from models.embeddings import DenseEmbeddings, Embedder, Embeddings, OnBatch, Span, SparseEmbeddings
from models.errors import ModelLoadError, TransientError
from models.model import Model
from transforms import collector
from transforms.batches import ChunkedBatch
from transforms.chunk.groups import with_firsts
from transforms.embed.merge import MAX_CHUNKS, merge_chunks
from transforms.embed.reuse import PreviousRows, ReusableChunks
from transforms.handover.progress import CallProgress, ProgressFile, RunStopped
from transforms.handover.retries import write_retries
from transforms.records import (
    DONE,
    FAILED,
    Chunk,
    ChunkedDocument,
    EmbeddedField,
    Failure,
    Group,
    joined_embeddings,
)

FLUSH_CHARACTERS = 256 * 1024
"""Text to collect before the model is called: some 60,000 tokens, enough to fill and sort batches, seconds of work
on a CPU. A GPU gets sixteen times as much."""

FIRST_CHARACTERS = 64 * 1024
"""Text of the first call, before it is known how fast the model is, and the least of any other: enough for several
batches, or for several requests to a service at once."""

CALL_SECONDS = 5.0
"""A call of the model takes about as long at most, so that finished documents are soon on their way to a part file."""

FLUSH_DOCUMENTS = 4_096
"""Documents to collect at most, so that a run that reuses most vectors keeps its memory flat."""


@dataclass(slots=True)
class Pending:
    """A document that waits for its embeddings.

    Attributes:
        document: the document.
        chunks: its chunks in the field.
        reusable: embeddings of its previous row, and which chunk each belongs to.
        groups: the chunks as they are embedded together, where the field has late chunking.
        texts: of the chunks, or groups, that only the model can embed.
        spans: the chunks in each of these groups; None without late chunking.
        missing: chunks that only the model can embed.
    """

    document: ChunkedDocument
    chunks: tuple[Chunk, ...]
    reusable: ReusableChunks | None
    groups: tuple[Group, ...] | None = None
    texts: list[str] = dataclasses.field(init=False)
    spans: list[tuple[Span, ...]] | None = dataclasses.field(init=False, default=None)
    missing: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        known = self.reusable.rows if self.reusable is not None else {}
        if self.groups is None:
            self.texts = [chunk.model_input for index, chunk in enumerate(self.chunks) if index not in known]
            self.missing = len(self.texts)
            return
        # A group is reused as a whole, so its first chunk tells of all.
        new = [group for first, group in with_firsts(self.groups) if first not in known]
        self.texts, self.spans = [group.text for group in new], [group.spans for group in new]
        self.missing = sum(map(len, self.spans))


def embed_documents(
    embedder: Embedder, field: str, pending: Sequence[Pending], on_batch: OnBatch | None = None
) -> list[ChunkedDocument | Failure]:
    """Embed the chunks of several documents in one call of the model.

    Args:
        embedder: the loaded model.
        field: name of the semantic field.
        pending: the documents.
        on_batch: told of every batch that is embedded.

    Returns:
        For each document, in order, the document with its embeddings or the Failure that it became.

    Raises:
        ModelLoadError: the model cannot be used at all.
    """
    try:
        embeddings = _embedded(embedder, pending, on_batch)
    except ModelLoadError:
        raise
    except Exception as error:
        if len(pending) == 1 or isinstance(error, TransientError):
            # The service itself is in trouble: asking again for every half would only add to it.
            return [_failure(one.document, error) for one in pending]
        middle = len(pending) // 2
        halves = (pending[:middle], pending[middle:])
        return [one for half in halves for one in embed_documents(embedder, field, half, on_batch)]
    return list(_put_back(field, pending, embeddings))


def _embedded(embedder: Embedder, pending: Sequence[Pending], on_batch: OnBatch | None) -> Embeddings | None:
    """The embeddings of all that only the model can embed; None where there is nothing."""
    texts = [text for one in pending for text in one.texts]
    if not texts:
        return None
    if pending[0].groups is None:
        embeddings = embedder.embed(texts, "ingest", on_batch)
    else:
        spans = [span for one in pending for span in one.spans or ()]
        embeddings = embedder.embed_spans(texts, spans, on_batch)
    missing = sum(one.missing for one in pending)
    if len(embeddings) != missing:
        raise ValueError(f"the model gave {len(embeddings)} embeddings for {missing} texts")
    return embeddings


def _put_back(
    field: str, pending: Sequence[Pending], embeddings: Embeddings | None
) -> Iterator[ChunkedDocument | Failure]:
    first = 0
    for one in pending:
        document = one.document
        embedded = {**document.embedded, field: _embedded_field(one, embeddings, first)}
        first += one.missing
        yield ChunkedDocument(document.document, document.chunks, embedded, document.groups)


def _embedded_field(one: Pending, batch: Embeddings | None, first: int) -> EmbeddedField:
    """Join new and reused embeddings in the order of the chunks, and fold what is over Elastic's limit.

    Args:
        one: the document.
        batch: the new embeddings of all documents.
        first: row of them that belongs to the document's first new chunk.
    """
    if not one.chunks:
        return EmbeddedField((), None)
    rows = one.reusable.rows if one.reusable is not None else {}
    if not rows and len(one.chunks) <= MAX_CHUNKS:
        # Nearly always: its rows stay where they are.
        return EmbeddedField(one.chunks, batch, first=first)
    new = batch.slice(first, first + one.missing) if batch is not None and one.missing else None
    if not rows:
        assert new is not None
        return EmbeddedField(*merge_chunks(one.chunks, new))
    assert one.reusable is not None
    joined = _concat(new, one.reusable.embeddings)
    count_new = len(joined) - len(one.reusable.embeddings)
    # New rows stand before the reused ones; a chunk takes the next new one or the one that is known to be its own.
    fresh = iter(range(count_new))
    order = [count_new + rows[index] if index in rows else next(fresh) for index in range(len(one.chunks))]
    chunks, embeddings = merge_chunks(one.chunks, joined.take(order))
    return EmbeddedField(chunks, embeddings, reused=len(rows))


def _concat(new: Embeddings | None, old: Embeddings) -> Embeddings:
    if new is None:
        return old
    if isinstance(new, DenseEmbeddings) and isinstance(old, DenseEmbeddings):
        return DenseEmbeddings.concat([new, old])
    assert isinstance(new, SparseEmbeddings)
    assert isinstance(old, SparseEmbeddings)
    return SparseEmbeddings.concat([new, old])


def _failure(document: ChunkedDocument, error: Exception) -> Failure:
    location = document.document.location
    # A reader knows the public errors, not a module's private refinements of them.
    name = next(kind.__name__ for kind in type(error).__mro__ if not kind.__name__.startswith("_"))
    return Failure("embed", document.document.id, *location, name, str(error)[:1000])


@dataclass
class EmbedDocuments(beam.PTransform):
    """Embed one semantic field of batches of documents.

    Two outputs: ``done`` holds batches of ChunkedDocuments with the field's embeddings, ``failed`` a Failure for each
    document that could not be embedded.

    Attributes:
        field: name of the field.
        model: what embeds it; loaded on the worker, once a process.
        shared: handle by which the stages and threads of one process share the loaded model.
        device: ``cpu``, ``cuda``, ``cuda:N``, or None for a CUDA device where there is one.
        previous: the rows of the table whose embeddings may be used again; None for none.
        folder: the run's folder, where progress and the retries of a service are left; None leaves none.
        share: the part of a document's work that this field is.
        accelerator: the machines' accelerator that this stage asks a runner for; None asks for none.
    """

    field: str
    model: Model
    shared: Shared
    device: str | None
    previous: PreviousRows | None
    folder: str | None = None
    share: float = 1.0
    accelerator: str | None = None

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, documents: beam.pvalue.PCollection[ChunkedBatch]) -> Any:
        """Wire the stage."""
        embed = beam.ParDo(
            EmbedField(
                self.field, self.model, self.shared, self.device, self.previous, self.folder, self.share
            )
        )
        if self.accelerator:
            embed = embed.with_resource_hints(accelerator=self.accelerator)
        return documents | embed.with_outputs(FAILED, main=DONE)


class EmbedField(beam.DoFn):
    """Collects documents within a bundle and embeds them together; its arguments are those of `EmbedDocuments`."""

    documents_embedded = Metrics.counter("embed", "documents_embedded")
    chunks_embedded = Metrics.counter("embed", "chunks_embedded")
    tokens_embedded = Metrics.counter("embed", "tokens_embedded")
    failures = Metrics.counter("embed", "failures")
    retries = Metrics.counter("embed", "retries")

    def __init__(
        self,
        field: str,
        model: Model,
        shared: Shared,
        device: str | None,
        previous: PreviousRows | None,
        folder: str | None = None,
        share: float = 1.0,
    ) -> None:
        self.field = field
        self.model = model
        self.shared = shared
        self.device = device
        self.previous = previous
        self.folder = folder
        self.share = share

    def setup(self) -> None:
        """Load the model."""
        self._embedder: Embedder = self.shared.acquire(self._load)
        collector.hold_back()
        on_gpu = self._embedder.device.startswith("cuda")
        self._most_characters = FLUSH_CHARACTERS * (16 if on_gpu else 1)
        self._flush_characters: float = FIRST_CHARACTERS
        self._progress = ProgressFile(self.folder)
        # Two, so that one call is tokenised while the last batches of the call before are computed.
        self._executor = ThreadPoolExecutor(2, thread_name_prefix=f"embed-{self.field}")

    def _load(self) -> Embedder:
        return self.model.load(self.device)

    def start_bundle(self) -> None:
        """Start with an empty buffer."""
        self._pending: list[Pending] = []
        self._characters = 0
        self._running: Future[list[ChunkedDocument | Failure]] | None = None

    def process(self, documents: ChunkedBatch) -> Iterator[ChunkedBatch]:
        """Take some documents; yields those of the call before when there is enough for another.

        Raises:
            RunStopped: the launcher has asked to stop.
        """
        if self._progress.is_stopped:
            raise RunStopped
        for document in documents:
            chunks, groups = document.chunks[self.field], document.groups.get(self.field)
            reusable = (
                self.previous.reusable(document.document, self.field, chunks, groups)
                if self.previous
                else None
            )
            one = Pending(document, chunks, reusable, groups)
            self._pending.append(one)
            self._characters += sum(map(len, one.texts))
            if self._characters >= self._flush_characters or len(self._pending) >= FLUSH_DOCUMENTS:
                yield from self._submit()

    def finish_bundle(self) -> Iterator[Any]:
        """Embed what is left."""
        for output in [*self._submit(), *self._submit()]:
            window = GlobalWindow()
            if isinstance(output, pvalue.TaggedOutput):
                value = WindowedValue(output.value, window.max_timestamp(), (window,))
                yield pvalue.TaggedOutput(output.tag, value)
            else:
                yield WindowedValue(output, window.max_timestamp(), (window,))
        self._progress.flush()
        self._leave_retries()

    def teardown(self) -> None:
        """Let go of the model; the last stage of the process that does so frees it."""
        self._executor.shutdown()
        del self._embedder
        collector.let_go()

    def _leave_retries(self) -> None:
        """Say how often a service had to be asked again; stages that share a model share its count."""
        inference_id, retries = self._embedder.take_retries()
        self.retries.inc(retries)
        if retries and self.folder is not None:
            write_retries(self.folder, inference_id, retries)

    def _submit(self) -> Iterator[Any]:
        """Start on the collected documents and yield those of the call before, together."""
        before, self._running = self._running, None
        if self._pending:
            self._running = self._executor.submit(self._embed, self._pending, self._characters)
        self._pending, self._characters = [], 0
        done = ChunkedBatch()
        for outcome in before.result() if before is not None else []:
            if isinstance(outcome, Failure):
                self.failures.inc()
                yield pvalue.TaggedOutput(FAILED, outcome)
            else:
                done.append(outcome)
        if done:
            self._count([document.embedded[self.field] for document in done])
            yield done

    def _embed(self, pending: list[Pending], characters: int) -> list[ChunkedDocument | Failure]:
        """Call the model, count its batches, and learn how much text it takes in the time that a call may last."""
        missing = sum(one.missing for one in pending)
        reused = sum(len(one.chunks) for one in pending) - missing
        call = CallProgress(self._progress, len(pending) * self.share, missing, reused)
        begun = time.monotonic()
        outcomes = embed_documents(self._embedder, self.field, pending, call.on_batch)
        call.finish()
        if characters:
            fitting = characters * CALL_SECONDS / max(time.monotonic() - begun, 0.001)
            self._flush_characters = min(max(fitting, FIRST_CHARACTERS), self._most_characters)
        return outcomes

    def _count(self, fields: Sequence[EmbeddedField]) -> None:
        """Count documents; runners that do not share the run's folder show progress by these."""
        self.documents_embedded.inc(len(fields))
        self.chunks_embedded.inc(sum(len(field.chunks) for field in fields))
        self.tokens_embedded.inc(sum(int(part.tokens.sum()) for part in joined_embeddings(fields)))
