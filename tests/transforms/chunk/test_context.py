"""Context headers: templates, headings above an offset, and chunks that keep their text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.chunking_settings import parse_chunking_settings
from models.text import Utf16Text, utf16_length
from transforms.chunk.context import ChunkContexts, ContextTemplate, find_headings, headings_above
from transforms.chunk.documents import chunk_document
from transforms.records import Document, Location, SemanticField

WORDS = {"strategy": "word", "max_chunk_size": 10, "overlap": 0}


@pytest.mark.parametrize(
    ("template", "values", "header"),
    [
        ("{title}\n", {"title": "A"}, "A\n"),
        ("{title} > {section}\n", {"title": "A", "section": "B > C"}, "A > B > C\n"),
        ("{title} > {section}\n", {"title": "A"}, "A\n"),
        ("{title} > {section}\n", {"section": "B"}, "B\n"),
        ("{title} > {section}\n", {}, ""),
        ("Title: {title}. ", {"title": "A"}, "Title: A. "),
        ("{{{title}}}: ", {"title": "A"}, "{A}: "),
        ("{a}, {b} ({c})", {"a": "1", "c": "3"}, "1 (3)"),
    ],
)
def test_a_template_is_filled(template, values, header):
    assert ContextTemplate.parse(template).fill(values) == header


@pytest.mark.parametrize("template", ["", "no name", "{", "}", "{title", "{}", "{a b}", "{title}}"])
def test_a_wrong_template_is_refused(template):
    with pytest.raises(ValueError, match=r"names no field|stands alone"):
        ContextTemplate.parse(template)


MARKDOWN = "# One\n\ntext\n\n## Two 😀\n\nmore\n\n```\n# no heading\n```\n\nThree\n=====\n\nend\n"


def test_headings_have_places_in_utf16():
    assert [(heading.level, heading.words) for heading in find_headings(Utf16Text(MARKDOWN))] == [
        (1, "One"),
        (2, "Two 😀"),
        (1, "Three"),
    ]
    text = Utf16Text("😀😀\n\n# Far\r\rLast\r----\r")
    assert [text.slice(heading.start, heading.start + 4) for heading in find_headings(text)] == [
        "# Fa",
        "Last",
    ]


@pytest.mark.parametrize(
    ("at", "above"),
    [
        ("# One", []),
        ("text", ["One"]),
        ("## Two", ["One"]),
        ("more", ["One", "Two 😀"]),
        ("# no heading", ["One", "Two 😀"]),
        ("Three", []),
        ("end", ["Three"]),
    ],
)
def test_the_headings_above_a_place(at, above):
    headings = find_headings(Utf16Text(MARKDOWN))
    assert headings_above(headings, utf16_length(MARKDOWN[: MARKDOWN.index(at)])) == above


@given(st.text(alphabet="#=- a😀\n\r`", max_size=60))
def test_any_text_has_headings_that_begin_a_line(text):
    whole = Utf16Text(text)
    for heading in find_headings(whole):
        before = whole.text[: whole.position(heading.start)]
        assert before == "" or before[-1] in "\r\n"


def chunks_of(source, context):
    """The chunks of the field `text` of one document."""
    field = SemanticField("text", ("text",), parse_chunking_settings(WORDS), context)
    return chunk_document(Document("1", source, "hash", Location("file", 1)), field)


def test_a_chunk_keeps_text_and_offsets():
    source = {"title": "On   foxes", "text": " ".join(f"word{number}" for number in range(25))}
    plain, headed = chunks_of(source, None), chunks_of(source, "{title}: ")
    assert [chunk[:5] for chunk in headed] == [chunk[:5] for chunk in plain]
    assert [chunk.model_input for chunk in headed] == [f"On foxes: {chunk.text}" for chunk in plain]
    assert [chunk.model_input for chunk in plain] == [chunk.text for chunk in plain]


def test_headings_belong_to_their_own_value():
    source = {"text": ["# First\n" + "a " * 15, "b " * 15]}
    assert {chunk.value: chunk.context for chunk in chunks_of(source, "{section}\n")} == {0: "First\n", 1: ""}
    contexts = ChunkContexts("{section}\n", source)
    first = utf16_length(source["text"][0])
    assert (contexts.of("text", first - 1), contexts.of("text", first + 1)) == ("First\n", "")


def test_long_values_are_cut_at_a_word():
    header = ChunkContexts("{title}", {"title": "word " * 100}).of("text", 0)
    assert len(header) <= 200
    assert header.endswith("word")
