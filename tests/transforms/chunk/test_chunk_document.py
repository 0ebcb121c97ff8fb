"""Values of fields, their offsets, and the stage."""

from contextlib import contextmanager

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline as Pipeline
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.typehints.decorators import TypeCheckError

from models.chunking_settings import DEFAULT, parse_chunking_settings
from models.errors import InferenceError
from transforms.batches import ChunkedBatch, DocumentBatch
from transforms.chunk.documents import ChunkDocuments, chunk_document
from transforms.field_values import field_values
from transforms.records import Chunk, ChunkedDocument, Document, Failure, Location, SemanticField

FIELD = SemanticField("body", ("body",), DEFAULT)


def document(source, id="1"):
    return Document(id, source, "", Location("docs.jsonl", 1))


def chunks_of(source, *sources, chunking=DEFAULT):
    field = SemanticField("body", sources or ("body",), chunking)
    return [tuple(chunk[:5]) for chunk in chunk_document(document(source), field)]


def test_array_values_stand_one_character_apart():
    assert chunks_of({"body": ["😀a", "bc"]}) == [("body", 0, 0, 3, "😀a"), ("body", 1, 4, 6, "bc")]


def test_blank_values_have_no_chunk_but_a_length():
    assert chunks_of({"body": ["a", "", " \t\u3000", "b"]}) == [
        ("body", 0, 0, 1, "a"),
        ("body", 3, 7, 8, "b"),
    ]


def test_nulls_are_left_out():
    assert chunks_of({"body": ["a", None, "b"]}) == [("body", 0, 0, 1, "a"), ("body", 1, 2, 3, "b")]


@pytest.mark.parametrize(
    "source", [{}, {"body": None}, {"body": []}, {"body": [None]}, {"body": ""}, {"other": "a"}]
)
def test_no_text_no_chunks(source):
    assert chunks_of(source) == []


def test_scalars_are_printed_the_java_way():
    found = chunks_of({"body": [False, 75, 13.49, 1e7]})
    assert [chunk[4] for chunk in found] == ["false", "75", "13.49", "1.0E7"]


def test_each_source_field_counts_from_zero():
    found = chunks_of({"title": "One", "body": "Two"}, "body", "title")
    assert found == [("body", 0, 0, 3, "Two"), ("title", 0, 0, 3, "One")]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"a": {"b": {"c": "x"}}}, ["x"]),
        ({"a.b.c": "x"}, ["x"]),
        ({"a.b": {"c": "x"}}, ["x"]),
        ({"a": {"b.c": ["x", "y"]}}, ["x", "y"]),
        ({"a": [{"b": {"c": "x"}}, {"b": {}}, {"b": {"c": "y"}}]}, ["x", "y"]),
        ({"a": {"b": "not an object"}}, []),
        ({"a": {"b": {"c": None}}}, []),
    ],
)
def test_dotted_names(source, expected):
    assert field_values(source, "a.b.c") == expected


@pytest.mark.parametrize("value", [{"a": 1}, ["x", {"a": 1}], {}])
def test_object_values_are_refused(value):
    with pytest.raises(InferenceError) as refusal:
        chunks_of({"body": value})
    assert refusal.value.reason == "[semantic_text] field [body] does not support object values"
    assert refusal.value.status == 400


def test_arrays_of_arrays_are_refused():
    with pytest.raises(InferenceError, match=r"Invalid format for field \[body\]"):
        chunks_of({"body": [["x"]]})


def test_chunk_texts_are_slices_of_the_values():
    text = "One. " * 300
    chunking = parse_chunking_settings({"strategy": "sentence", "max_chunk_size": 20})
    found = chunks_of({"body": ["😀", text]}, chunking=chunking)
    assert len(found) > 10
    assert all(chunk[4] == text[chunk[2] - 3 : chunk[3] - 3] for chunk in found[1:])


@contextmanager
def run_stage(documents, *fields, counters=None):
    with Pipeline(runner="FnApiRunner") as pipeline:
        results = (
            pipeline
            | beam.Create([DocumentBatch(documents)])
            | ChunkDocuments(fields or (FIELD,), counters or {})
        )
        yield results


def test_stage_cuts_every_field_and_keeps_failures_apart():
    title = SemanticField("vector", ("body", "title"), DEFAULT)
    good, bad = document({"body": "Hi.", "title": "T"}), document({"body": {"a": 1}}, "2")
    expected = ChunkedDocument(
        good,
        {
            "body": (Chunk("body", 0, 0, 3, "Hi."),),
            "vector": (Chunk("body", 0, 0, 3, "Hi."), Chunk("title", 0, 0, 1, "T")),
        },
    )
    failure = Failure(
        "chunk",
        "2",
        "docs.jsonl",
        1,
        "InferenceError",
        "[semantic_text] field [body] does not support object values",
    )
    with run_stage([good, bad], FIELD, title) as results:
        assert_that(results["done"], equal_to([ChunkedBatch([expected])]), label="done")
        assert_that(results["failed"], equal_to([failure]), label="failed")


def test_stage_counts():
    pipeline = Pipeline(runner="FnApiRunner")
    documents = [document({"body": "Hi."}), document({"body": ["a", "b"]}), document({"body": {}})]
    _ = pipeline | beam.Create([DocumentBatch(documents)]) | ChunkDocuments((FIELD,))
    result = pipeline.run()
    result.wait_until_finish()
    counters = {each.key.metric.name: each.committed for each in result.metrics().query()["counters"]}
    assert counters["documents_chunked"] == 2
    assert counters["chunks_made"] == 3
    assert counters["failures"] == 1


def test_runaway_separator_fails_its_document_only():
    raw = {"strategy": "recursive", "max_chunk_size": 10, "separators": ["(a+)+$"]}
    field = SemanticField("body", ("body",), parse_chunking_settings(raw))
    bad = document({"body": "word " * 20 + "a" * 2000 + "!"}, "2")
    with run_stage([document({"body": "fine"}), bad], field) as results:
        assert_that(results["done"] | beam.FlatMap(document_ids), equal_to(["1"]), label="done")
        assert_that(results["failed"] | beam.Map(message), equal_to([LIMIT]), label="failed")


LIMIT = "Chunk separator regex [(a+)+$] has exceeded the character read limit"


def document_ids(batch):
    return [chunked.document.id for chunked in batch]


def message(failure):
    return failure.message


def test_wrong_composition_fails_at_construction():
    pipeline = Pipeline(runner="FnApiRunner")
    with pytest.raises(TypeCheckError, match=r"expected .*Document.*, got .*int"):
        pipeline | beam.Create([1]) | ChunkDocuments((FIELD,))
    chunked = (
        pipeline
        | "documents" >> beam.Create([DocumentBatch([document({})])])
        | "again" >> ChunkDocuments((FIELD,))
    )
    with pytest.raises(TypeCheckError):
        chunked["done"] | beam.Map(document_ids).with_input_types(Failure)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (
            {"strategy": "recursive", "max_chunk_size": 10, "separators": ["("]},
            "not a valid Java regular expression",
        ),
        ({"strategy": "sentence", "max_chunk_size": 20, "size_unit": "tokens"}, "no tokenizer to count with"),
    ],
)
def test_what_is_wrong_for_all_documents_stops_the_launch(raw, problem):
    with pytest.raises(InferenceError, match=problem):
        ChunkDocuments((SemanticField("body", ("body",), parse_chunking_settings(raw)),))


class Characters:
    """Counts every character as a token."""

    def count_tokens(self, texts):
        import numpy as np

        return np.array([len(text) for text in texts], np.int32)


def test_stage_counts_tokens_with_the_fields_counter():
    raw = {"strategy": "word", "max_chunk_size": 10, "overlap": 0, "size_unit": "tokens"}
    field = SemanticField("body", ("body",), parse_chunking_settings(raw))
    with run_stage([document({"body": "one two three"})], field, counters={"body": Characters()}) as results:
        texts = results["done"] | beam.FlatMap(chunk_texts)
        assert_that(texts, equal_to(["one two", " three"]))


def chunk_texts(batch):
    return [chunk.text for chunked in batch for chunk in chunked.chunks["body"]]
