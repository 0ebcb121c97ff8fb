"""The embed stage: order, blame, reuse, and memory."""

from collections.abc import Sequence

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that
from apache_beam.utils.shared import Shared
from hypothesis import given
from hypothesis import strategies as st

from models.embeddings import DenseEmbeddings
from models.endpoints.registry import Registry
from models.errors import InferenceError, ModelLoadError, TransientError
from models.open_model import open_model
from transforms.batches import ChunkedBatch
from transforms.chunk.groups import with_firsts
from transforms.embed.documents import EmbedDocuments, EmbedField, Pending, embed_documents
from transforms.embed.reuse import ReusableChunks
from transforms.records import Chunk, ChunkedDocument, Document, Failure, Group, Location


def chunked(name: str, texts: Sequence[str]) -> ChunkedDocument:
    chunks = tuple(Chunk("text", 0, 0, len(text), text) for text in texts)
    return ChunkedDocument(Document(name, {}, "0" * 32, Location("f", 1)), {"s": chunks})


def pending(name: str, texts: Sequence[str], known: dict[int, float] | None = None) -> Pending:
    document = chunked(name, texts)
    reusable = None
    if known:
        values = np.array([[value] for value in known.values()], np.float32)
        count = len(values)
        embeddings = DenseEmbeddings(values, np.zeros(count, bool), np.zeros(count, np.int32))
        reusable = ReusableChunks({index: row for row, index in enumerate(known)}, embeddings)
    return Pending(document, document.chunks["s"], reusable)


class Lengths:
    """Embeds a text as its length; refuses texts with an exclamation mark."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def embed(self, texts, input_type, on_batch=None):
        self.calls.append(list(texts))
        if any("!" in text for text in texts):
            raise InferenceError("refused")
        values = np.array([[len(text)] for text in texts], np.float32)
        return DenseEmbeddings(values, np.zeros(len(texts), bool), np.ones(len(texts), np.int32))


class Within(Lengths):
    """Embeds a part of a text as the part's length, and a hundred times its place."""

    def embed_spans(self, texts, spans, on_batch=None):
        self.calls.append(list(texts))
        if any("!" in text for text in texts):
            raise InferenceError("refused")
        values = np.array([[end - start + 100 * start] for own in spans for start, end in own], np.float32)
        return DenseEmbeddings(values, np.zeros(len(values), bool), np.ones(len(values), np.int32))


def late_pending(name: str, sizes: Sequence[int], known: Sequence[int] = (), mark: str = "") -> Pending:
    """A document of groups with so many chunks of three characters each; of the known groups all is held."""
    groups = tuple(
        Group(f"{name}{number}{mark}".ljust(3 * size), tuple((3 * at, 3 * at + 3) for at in range(size)))
        for number, size in enumerate(sizes)
    )
    document = chunked(name, ["abc"] * sum(sizes))
    firsts = dict(enumerate(first for first, _ in with_firsts(groups)))
    held = [firsts[number] + at for number in known for at in range(sizes[number])]
    values = np.full((len(held), 1), -1, np.float32)
    embeddings = DenseEmbeddings(values, np.zeros(len(held), bool), np.zeros(len(held), np.int32))
    reusable = ReusableChunks({index: row for row, index in enumerate(held)}, embeddings) if held else None
    return Pending(document, document.chunks["s"], reusable, groups)


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(1, 3), max_size=4), st.sets(st.integers(0, 3)), st.sampled_from(["", "!"])
        ),
        min_size=1,
        max_size=6,
    )
)
def test_groups_are_embedded_or_reused_as_a_whole(documents):
    model, expected = Within(), []
    waiting = []
    for number, (sizes, known, mark) in enumerate(documents):
        held = sorted(one for one in known if one < len(sizes))
        waiting.append(late_pending(str(number), sizes, held, mark))
        new = [at for at in range(len(sizes)) if at not in held]
        expected.append(
            None
            if mark and new
            else [
                -1 if at in held else 3 + 300 * place
                for at, size in enumerate(sizes)
                for place in range(size)
            ]
        )
    for outcome, values in zip(embed_documents(model, "s", waiting), expected, strict=True):
        if values is None:
            assert isinstance(outcome, Failure)
        elif values:
            assert outcome.embedded["s"].embeddings.values[:, 0].tolist() == values
            assert outcome.embedded["s"].reused == values.count(-1)


TEXTS = st.lists(st.text("ab!", min_size=1, max_size=4), max_size=4)


@given(st.lists(TEXTS, min_size=1, max_size=8))
def test_each_document_gets_its_own_embeddings_or_is_the_one_to_blame(documents):
    outcomes = embed_documents(Lengths(), "s", [pending(str(n), texts) for n, texts in enumerate(documents)])
    assert len(outcomes) == len(documents)
    for texts, outcome in zip(documents, outcomes, strict=True):
        if any("!" in text for text in texts):
            assert isinstance(outcome, Failure)
            assert (outcome.stage, outcome.error, outcome.message) == ("embed", "InferenceError", "refused")
        elif texts:
            assert outcome.embedded["s"].embeddings.values[:, 0].tolist() == [len(text) for text in texts]
        else:
            assert outcome.embedded["s"].embeddings is None


@given(texts=st.lists(st.text("ab", min_size=1), min_size=1, max_size=6), known=st.sets(st.integers(0, 5)))
def test_reused_embeddings_stand_where_their_chunks_are(texts, known):
    model = Lengths()
    held = {index: 100.0 + index for index in sorted(known) if index < len(texts)}
    (outcome,) = embed_documents(model, "s", [pending("d", texts, held)])
    expected = [held.get(index, float(len(text))) for index, text in enumerate(texts)]
    assert outcome.embedded["s"].embeddings.values[:, 0].tolist() == expected
    assert outcome.embedded["s"].reused == len(held)
    assert [text for call in model.calls for text in call] == [
        text for index, text in enumerate(texts) if index not in held
    ]


def test_a_service_in_trouble_is_not_asked_again_for_every_half():
    class Down(Lengths):
        def embed(self, texts, input_type, on_batch=None):
            self.calls.append(list(texts))
            raise TransientError("down", status=503)

    model = Down()
    outcomes = embed_documents(model, "s", [pending(str(number), ["a"]) for number in range(8)])
    assert all(isinstance(outcome, Failure) and outcome.error == "TransientError" for outcome in outcomes)
    assert len(model.calls) == 1


def test_a_model_that_cannot_load_stops_the_run():
    class Broken(Lengths):
        def embed(self, texts, input_type, on_batch=None):
            raise ModelLoadError("gone")

    with pytest.raises(ModelLoadError):
        embed_documents(Broken(), "s", [pending("d", ["a"])])


def test_a_model_that_gives_too_few_embeddings_is_not_believed():
    class Short(Lengths):
        def embed(self, texts, input_type, on_batch=None):
            return super().embed(texts[:-1], input_type)

    (outcome,) = embed_documents(Short(), "s", [pending("d", ["a", "b"])])
    assert "1 embeddings for 2 texts" in outcome.message


def test_the_stage_equals_the_direct_computation():
    model = open_model(Registry().get(".hashing-dense"))
    documents = [
        chunked(f"d{number}", [f"text {number} {part}" for part in range(number % 4)])
        for number in range(300)
    ]
    expected = (
        model.load().embed([chunk.text for one in documents for chunk in one.chunks["s"]], "ingest").values
    )

    def check(batches):
        embedded = sorted(
            (one for batch in batches for one in batch), key=lambda one: int(one.document.id[1:])
        )
        assert [one.document.id for one in embedded] == [one.document.id for one in documents]
        values = [one.embedded["s"].embeddings.values for one in embedded if one.chunks["s"]]
        np.testing.assert_array_equal(np.concatenate(values), expected)

    with TestPipeline(runner="FnApiRunner") as pipeline:
        stage = EmbedDocuments("s", model, Shared(), "cpu", None)
        outputs = (
            pipeline
            | beam.Create(list(map(ChunkedBatch, (documents[:7], documents[7:200], documents[200:]))))
            | stage
        )
        assert_that(outputs["done"], check)


def test_the_buffer_is_bounded_within_a_bundle():
    stage = EmbedField("s", open_model(Registry().get(".hashing-dense")), Shared(), "cpu", None)
    stage.setup()
    stage.start_bundle()
    largest = emitted = 0
    for number in range(5000):
        emitted += sum(map(len, stage.process([chunked(str(number), ["word " * 100])])))
        largest = max(largest, number + 1 - emitted)
    rest = sum(len(batch.value) for batch in stage.finish_bundle())
    stage.teardown()
    assert emitted + rest == 5000
    assert largest < 2000
