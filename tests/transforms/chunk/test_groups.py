"""Groups of chunks: every chunk is in one, at its own place, and values are apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.chunking_settings import parse_chunking_settings
from models.endpoints.preconfigured import preconfigured
from models.late_chunking import LateChunking, late_chunking
from models.open_model import open_model
from transforms.chunk.documents import ChunkDocuments, _ChunkBatch, chunk_document
from transforms.chunk.groups import group_chunks
from transforms.records import Document, Location, SemanticField

SETTINGS = [
    {"strategy": "word", "max_chunk_size": 10, "overlap": 0},
    {"strategy": "word", "max_chunk_size": 12, "overlap": 5},
    {"strategy": "sentence", "max_chunk_size": 20, "sentence_overlap": 1},
    {"strategy": "recursive", "max_chunk_size": 10},
    {"strategy": "none"},
]


@pytest.fixture(scope="module")
def late() -> LateChunking:
    return late_chunking(open_model(preconfigured(".minilm-l6-v2")))


def chunks_of(source, settings, sources=("text", "other")):
    field = SemanticField("text", sources, parse_chunking_settings(settings), late_chunking=True)
    return chunk_document(Document("1", source, "hash", Location("file", 1)), field)


VALUES = st.lists(
    st.text(alphabet="ab😀é .\n", max_size=300) | st.just("word and 😀 more. " * 60), max_size=3
)


@given(VALUES, VALUES, st.sampled_from(SETTINGS))
def test_every_chunk_stands_in_its_group(late, values, others, settings):
    source = {"text": values, "other": others}
    chunks = chunks_of(source, settings)
    (groups,) = group_chunks(late, [(source, [chunk.place for chunk in chunks])])
    found = [group.text[start:end] for group in groups for start, end in group.spans]
    assert found == [chunk.text for chunk in chunks]
    rest = iter(chunks)
    for group in groups:
        members = [next(rest) for _ in group.spans]
        assert len({(chunk.source_field, chunk.value) for chunk in members}) == 1
        assert (group.spans[0][0], group.spans[-1][1]) == (0, len(group.text))


def test_groups_hold_what_the_window_takes(late):
    source = {"text": ["The river is wide and slow here. " * 90, "Short."]}
    chunks = chunks_of(source, SETTINGS[0], ("text",))
    (groups,) = group_chunks(late, [(source, [chunk.place for chunk in chunks])])
    tokens = late.model.count_tokens([group.text for group in groups]).tolist()
    assert max(tokens) <= 256
    # All but the last group of a value are so full that the next chunk, 10 words and a full stop, has no room.
    assert min(tokens[:-2]) > 256 - 13
    assert groups[-1].text == "Short."


def test_the_stage_gives_groups_to_the_fields_that_have_them(late):
    source = {"text": "The river is wide. " * 40}
    plain = SemanticField("plain", ("text",), parse_chunking_settings(SETTINGS[0]))
    within = SemanticField("within", ("text",), parse_chunking_settings(SETTINGS[0]), late_chunking=True)
    stage = _ChunkBatch((plain, within), {}, {"within": late})
    documents = [Document(str(number), source, "hash", Location("f", number)) for number in range(3)]
    (done,) = stage.process(documents)
    assert [list(one.groups) for one in done] == [["within"]] * 3
    assert sum(len(group.spans) for group in done[1].groups["within"]) == len(done[1].chunks["within"])
    assert ChunkDocuments((plain,)).late == {}


def test_chunks_that_are_not_of_the_document_are_refused(late):
    with pytest.raises(ValueError, match=r"chunks of \[text\] lie beyond its values"):
        group_chunks(late, [({"text": "short"}, [("text", 0, 5), ("text", 90, 99)])])
