"""Chunking settings: defaults, every problem at once in Elasticsearch's words, extensions, JSON."""

import pickle

import pytest

from models.chunking_settings import (
    DEFAULT,
    OLD_DEFAULT,
    PUNKT_LANGUAGES,
    SEPARATOR_GROUPS,
    parse_chunking_settings,
)
from models.errors import InferenceError, ValidationError

SCOPE = "[chunking_settings]"
NO_INTEGER = (
    "field [max_chunk_size] is not of the expected type. The value [{}] cannot be converted to a [Integer]"
)
NO_STRING = "field [separators] is not of the expected type. The value [{}] cannot be converted to a [String]"


def problems(**raw):
    with pytest.raises(ValidationError) as refusal:
        parse_chunking_settings(raw)
    assert refusal.value.status == 400
    return refusal.value.problems


def test_defaults():
    assert parse_chunking_settings({}) is DEFAULT
    assert parse_chunking_settings(None) is OLD_DEFAULT
    assert parse_chunking_settings(None, return_defaults=False) is None
    assert DEFAULT.to_json() == {"strategy": "sentence", "max_chunk_size": 250, "sentence_overlap": 1}
    assert OLD_DEFAULT.to_json() == {"strategy": "word", "max_chunk_size": 250, "overlap": 100}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (
            {"strategy": "word"},
            [f"{SCOPE} does not contain the required setting [max_chunk_size]"],
        ),
        (
            {"strategy": "word", "max_chunk_size": 20},
            [f"{SCOPE} does not contain the required setting [overlap]"],
        ),
        (
            {"strategy": "word", "max_chunk_size": 5, "overlap": 1, "a": 1, "b": 2},
            [
                "Word based chunking settings can not have the following settings: [a, b]",
                f"{SCOPE} Invalid value [5.0]. [max_chunk_size] must be greater than or equal to [10.0]",
            ],
        ),
        (
            {"strategy": "word", "max_chunk_size": 0, "overlap": 1},
            [f"{SCOPE} Invalid value [0]. [max_chunk_size] must be a positive integer"],
        ),
        (
            {"strategy": "word", "max_chunk_size": 21, "overlap": 11},
            [f"{SCOPE} Invalid value [11.0]. [overlap] must be less than or equal to [10.0]"],
        ),
        (
            {"strategy": "word", "max_chunk_size": 20, "overlap": -1},
            [f"{SCOPE} Invalid value [-1]. [overlap] must be a positive integer"],
        ),
        (
            {"strategy": "sentence", "max_chunk_size": "x", "sentence_overlap": 2, "overlap": 1},
            [
                "Sentence based chunking settings can not have the following settings: [overlap]",
                NO_INTEGER.format("x"),
                "sentence_overlap[2] must be either 0 or 1",
            ],
        ),
        (
            {"strategy": "sentence", "max_chunk_size": 20.5},
            [NO_INTEGER.format("20.5")],
        ),
        (
            {"strategy": "sentence", "max_chunk_size": True},
            [NO_INTEGER.format("true")],
        ),
        (
            {"strategy": "sentence", "max_chunk_size": 2**31},
            [NO_INTEGER.format("2147483648")],
        ),
        (
            {"strategy": "recursive", "max_chunk_size": 9, "separators": []},
            [
                f"{SCOPE} Invalid value [9.0]. [max_chunk_size] must be greater than or equal to [10.0]",
                "Recursive chunking settings can not have an empty list of separators",
            ],
        ),
        (
            {"strategy": "recursive", "max_chunk_size": 10, "separators": ["a", 1, {"b": [2.0, None]}]},
            [
                NO_STRING.format("1"),
                NO_STRING.format("{b=[2.0, null]}"),
            ],
        ),
        (
            {"strategy": "recursive", "max_chunk_size": 10, "separators": ["a"] * 51},
            ["separators list size [51] must not exceed [50]"],
        ),
        (
            {"strategy": "recursive", "max_chunk_size": 10, "separator_group": "x", "separators": ["a"]},
            [f"{SCOPE} Invalid value [x] received. [separator_group] must be one of [markdown, plaintext]"],
        ),
        (
            {"strategy": "recursive", "max_chunk_size": 10, "separator_group": ""},
            [f"{SCOPE} Invalid value empty string. [separator_group] must be a non-empty string"],
        ),
        (
            {
                "strategy": "recursive",
                "max_chunk_size": 10,
                "separator_group": "markdown",
                "separators": ["a"],
            },
            ["Recursive chunking settings can not have both separators and separator_set"],
        ),
        (
            {"strategy": "none", "max_chunk_size": 10},
            ["When chunking is disabled (none), settings can not have the following: [max_chunk_size]"],
        ),
        (
            {
                "strategy": "sentence",
                "max_chunk_size": 20,
                "segmenter": "spacy",
                "size_unit": "bytes",
                "contiguous": 1,
            },
            [
                f"{SCOPE} Invalid value [spacy] received. [segmenter] must be one of [icu, punkt]",
                f"{SCOPE} Invalid value [bytes] received. [size_unit] must be one of [tokens, words]",
                "field [contiguous] is not of the expected type. The value [1] cannot be converted to a [Boolean]",
            ],
        ),
        (
            {"strategy": "sentence", "max_chunk_size": 20, "language": "german"},
            [f"{SCOPE} [language] can only be set together with [segmenter] [punkt]"],
        ),
        (
            {"strategy": "sentence", "max_chunk_size": 20, "segmenter": "punkt", "language": "klingon"},
            [
                f"{SCOPE} Invalid value [klingon] received. [language] must be one of [{', '.join(PUNKT_LANGUAGES)}]"
            ],
        ),
    ],
)
def test_every_problem_at_once(raw, expected):
    assert problems(**raw) == expected


def test_message_numbers_the_problems():
    with pytest.raises(ValidationError) as refusal:
        parse_chunking_settings({"strategy": "sentence", "max_chunk_size": 5, "sentence_overlap": 2})
    assert str(refusal.value) == (
        "Validation Failed: "
        "1: [chunking_settings] Invalid value [5.0]. [max_chunk_size] must be greater than or equal to [20.0];"
        "2: sentence_overlap[2] must be either 0 or 1;"
    )


@pytest.mark.parametrize(
    "raw", [{"strategy": "Sentence", "max_chunk_size": 20}, {"strategy": 1}, {"strategy": None}]
)
def test_unknown_strategy_is_an_illegal_argument(raw):
    with pytest.raises(InferenceError) as refusal:
        parse_chunking_settings(raw)
    assert refusal.value.type == "illegal_argument_exception"


@pytest.mark.parametrize("raw", [[], "x", 1, [1]])
def test_settings_must_be_an_object(raw):
    with pytest.raises(ValidationError, match=r"field \[chunking_settings\] is not of the expected type"):
        parse_chunking_settings(raw)


def test_separator_group_is_trimmed_and_any_case():
    settings = parse_chunking_settings(
        {"strategy": "recursive", "max_chunk_size": 10, "separator_group": " MarkDown "}
    )
    assert settings.separators == SEPARATOR_GROUPS["markdown"]


@pytest.mark.parametrize(
    "raw",
    [
        {"strategy": "word", "max_chunk_size": 10, "overlap": 0},
        {"strategy": "word", "max_chunk_size": 10, "overlap": 5, "size_unit": "tokens"},
        {"strategy": "sentence", "max_chunk_size": 20, "sentence_overlap": 0, "contiguous": True},
        {
            "strategy": "sentence",
            "max_chunk_size": 20,
            "sentence_overlap": 1,
            "segmenter": "punkt",
            "language": "greek",
        },
        {"strategy": "recursive", "max_chunk_size": 10, "separators": ["#"]},
        {"strategy": "none"},
    ],
)
def test_json_reads_back(raw):
    settings = parse_chunking_settings(raw)
    assert settings.to_json() == raw
    assert parse_chunking_settings(settings.to_json()) == settings
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_extensions_at_their_defaults_are_not_printed():
    raw = {
        "strategy": "sentence",
        "max_chunk_size": 20,
        "segmenter": "icu",
        "size_unit": "words",
        "contiguous": False,
    }
    assert parse_chunking_settings(raw).to_json() == {
        "strategy": "sentence",
        "max_chunk_size": 20,
        "sentence_overlap": 1,
    }
