"""Reads data/chunking_cases.jsonl and checks one row; the test modules run the rows by how sure they are."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest
from support.paths import TEST_DATA

from models.chunking_settings import (
    SEPARATOR_GROUPS,
    ChunkingSettings,
    check_elser_chunk_size,
    parse_chunking_settings,
)
from models.embeddings import DenseEmbeddings
from models.errors import InferenceError
from models.text import Utf16Text, utf16_length
from transforms.chunk.boundaries import count_words, find_sentences, find_words
from transforms.chunk.documents import chunk_document
from transforms.chunk.strategies import STRATEGIES, chunk_text, word_pieces
from transforms.embed.merge import merge_chunks
from transforms.records import Chunk, Document, Location, SemanticField

ROWS = [json.loads(line) for line in (TEST_DATA / "chunking_cases.jsonl").read_text("utf-8").splitlines()]
TEST_TEXT = next(row["text"] for row in ROWS if row.get("text_expr") == "TEST_TEXT" and "text" in row)
T10 = "This is a test sentence that has ten total words. "
HEADERS = [*(f"{'#' * level} Header\n" for level in range(1, 7)), "Header\n-\n", "Header\n=\n"]


def numbers(count):
    return "".join(f"{number} " for number in range(count))


def word_sequence(prefix, count):
    return " ".join(f"{prefix}{number}" for number in range(count))


def sentences(lengths):
    return "".join(
        f"SStart{index}" + "".join(f" {word}" for word in range(1, length)) + ". "
        for index, length in enumerate(lengths)
    )


def join_sentences(separators):
    return T10 + "".join(separator + T10 for separator in separators)


BUILDERS = {
    "nums": numbers,
    "wseq": word_sequence,
    "ss": sentences,
    "joinT": join_sentences,
    "T10": T10,
    "HDRS": HEADERS,
    "TEST_TEXT": TEST_TEXT,
    "range": range,
    "str": str,
}


def text_of(row):
    if "text" in row:
        return row["text"]
    return eval(row["text_expr"], {**BUILDERS, "__builtins__": {}})


def built_settings(raw):
    """Settings as if built in code: sizes that a request could not have are allowed."""
    raw = dict(raw)
    group = raw.pop("separator_group", None)
    separators = SEPARATOR_GROUPS[group] if group else raw.pop("separators", None)
    return ChunkingSettings(**raw, separators=separators and tuple(separators))


def check_chunks(row):
    text, expected = text_of(row), row["expect"]
    assert utf16_length(text) == row["len16"]
    chunks = chunk_text(text, built_settings(row["settings"]))
    offsets = [[chunk.start_offset, chunk.end_offset] for chunk in chunks]
    assert len(chunks) == expected["n"]
    assert offsets == expected.get("offsets", offsets)
    assert offsets[0] == expected.get("offsets_first", offsets[0])
    assert offsets[-1] == expected.get("offsets_last", offsets[-1])
    texts = [chunk.text for chunk in chunks]
    assert texts == expected.get("texts", texts)


def check_refusal(error, expected):
    assert error.status == expected.get("status", 400)
    kinds = {"validation": "validation_exception", "illegal_argument": "illegal_argument_exception"}
    assert error.type == kinds.get(expected.get("error"), error.type)
    assert error.reason == expected.get("message", error.reason)
    parts = expected.get("asserts_message", [])
    for part in [expected.get("message_like", ""), *([parts] if isinstance(parts, str) else parts)]:
        assert part in error.reason


def check_chunker_refuses(row):
    with pytest.raises(InferenceError) as refusal:
        call_chunker(row)
    check_refusal(refusal.value, row["expect"])


def call_chunker(row):
    if "size" in row:
        return word_pieces(find_words(Utf16Text("one two")), 7, row["size"], row["overlap"])
    chunker, given = re.match(r"(\w+) chunker given (\w+)", row["op"]).groups()
    text = Utf16Text("one two")
    return STRATEGIES[chunker](text, find_words(text), ChunkingSettings(given, 20))


def check_property(row):
    """The properties of the rows Q; test_chunk_properties.py has them over random texts."""
    texts = [
        "",
        " ",
        "😀",
        TEST_TEXT,
        *(text_of(each) for each in ROWS if each["id"][0] in "SRW" and "len16" in each),
    ]
    settings = [
        parse_chunking_settings({"strategy": "sentence", "max_chunk_size": 20, "sentence_overlap": overlap})
        for overlap in (0, 1)
    ]
    if row["strategy"] == "all":
        settings += [parse_chunking_settings({"strategy": "word", "max_chunk_size": 20, "overlap": 3})]
        settings += [parse_chunking_settings({"strategy": "none"})]
        settings += [parse_chunking_settings({"strategy": "recursive", "max_chunk_size": 10})]
    for text in texts:
        for each in settings:
            check_property_of(row, text, chunk_text(text, each))


def check_property_of(row, text, chunks):
    assert len(chunks) >= 1
    if "no gap" in row["property"]:
        assert chunks[0].start_offset == 0
        assert chunks[-1].end_offset == utf16_length(text)
        assert all(after.start_offset <= before.end_offset for before, after in pairwise(chunks))
    if "natural ICU word count" in row["property"]:
        assert max(count_words(chunk.text) for chunk in chunks) <= 20


def check_words(row):
    assert count_words(row["text_literal"]) == row["words"]


def check_region(row):
    words = find_words(Utf16Text(row["text"]))
    assert int(words.count(row["start"], row["end"])) == row["es_count"]
    assert count_words(row["text"][row["start"] : row["end"]]) == row["natural"]


def check_sentences(row):
    assert find_sentences(Utf16Text(text_of(row))).tolist() == row["ends"]


def check_skip(row):
    start, words = map(int, re.search(r"start (\d+), skip (\d+)", row["call"]).groups())
    text = text_of(row)
    position = find_words(Utf16Text(text)).skip(start, words)
    assert position == row["position"]
    assert text[position:].startswith(row["text_at_position_starts_with"])


def check_settings(row):
    expected = row["expect"]
    if isinstance(expected, dict) and ("error" in expected or "status" in expected):
        with pytest.raises(InferenceError) as refusal:
            use_settings(row)
        return check_refusal(refusal.value, expected)
    settings = parse_chunking_settings(row["in"], return_defaults=row.get("return_defaults", "at" not in row))
    if expected is None or "not set" in expected:
        assert settings is None
    elif isinstance(expected, str):
        assert expected.startswith("ok")
        assert settings.to_json() == {"sentence_overlap": 1, **row["in"]}
    else:
        groups = {f"<{name} list>": list(separators) for name, separators in SEPARATOR_GROUPS.items()}
        separators = expected.get("separators")
        if isinstance(separators, str):
            expected = {**expected, "separators": groups[separators]}
        assert settings.to_json() == expected
    return None


def use_settings(row):
    """Do what the row does with its settings until something refuses them."""
    settings = parse_chunking_settings(row["in"])
    if "elser" in row.get("model", ""):
        check_elser_chunk_size(settings)
    return chunk_text(text_of(row), settings) if "text" in row else None


def check_merge(row):
    if row.get("merge") == "dense float":
        vectors = np.full((20, 2), 1 / 16384, np.float32) * np.arange(2, 22, dtype=np.float32)[:, None]
        chunks, merged = fold(np.concatenate([vectors] * 512), 20 * 512)
        assert len(chunks) == 512
        assert merged.values.tolist() == [[(2 + 21) / 2 / 16384] * 2] * 512
        return
    count = int(re.match(r"(\d+) chunks", row["in"]).group(1))
    chunks, merged = fold(np.ones((count, 2), np.float32), count)
    sizes = [chunk.end_offset - chunk.start_offset for chunk in chunks]
    assert len(chunks) == len(merged) == row["expect"]["stored"]
    assert sum(sizes) == count
    if row["id"] == "B10":
        assert set(sizes) == {1}
    elif row["id"] == "B12":
        assert set(sizes) == {2}
    else:
        assert set(sizes) == {19, 20}
        assert (sizes[0], sizes[511]) == (20, 19)


def fold(vectors, count):
    chunks = tuple(Chunk("f", 0, index, index + 1, "x") for index in range(count))
    flags, tokens = np.zeros(count, np.bool_), np.ones(count, np.int32)
    return merge_chunks(chunks, DenseEmbeddings(vectors, flags, tokens))


def check_field(row):
    expected = row["expect"]
    field = SemanticField("sparse_field", ("sparse_field",), parse_chunking_settings({}))
    document = Document("1", {"sparse_field": row["value"]}, "", Location("", 1))
    if isinstance(expected, dict) and "status" in expected:
        with pytest.raises(InferenceError) as refusal:
            chunk_document(document, field)
        return check_refusal(refusal.value, expected)
    chunks = chunk_document(document, field)
    offsets = [[chunk.start_offset, chunk.end_offset] for chunk in chunks]
    return assert_offsets(offsets, expected)


def assert_offsets(offsets, expected):
    if isinstance(expected, str):
        assert expected.startswith("no _inference_fields entry")
        assert offsets == []
    else:
        assert offsets == expected["sparse_field"]


CHECKS = {
    "W": check_chunks,
    "S": check_chunks,
    "R": check_chunks,
    "N": check_chunks,
    "WE": check_chunker_refuses,
    "SE": check_chunker_refuses,
    "Q": check_property,
    "CW": check_words,
    "CQ": check_region,
    "CS": check_sentences,
    "SK": check_skip,
    "P": check_settings,
    "B": check_merge,
    "F": check_field,
}


def is_ours(row):
    """Rows about chunks and their settings; batches, requests and mappings are tested elsewhere."""
    kind = row["id"].rstrip("0123456789")
    about_merge = kind != "B" or "merge" in row or "stored" in row["expect"]
    about_values = kind != "F" or "value" in row
    return kind in CHECKS and about_merge and about_values


def rows_by(certainty):
    rows = [row for row in ROWS if row["by"] == certainty and is_ours(row)]
    return pytest.mark.parametrize("row", rows, ids=[row["id"] for row in rows])


def check(row):
    CHECKS[row["id"].rstrip("0123456789")](row)
