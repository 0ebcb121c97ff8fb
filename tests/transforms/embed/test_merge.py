"""The fold of a value's chunks into 512, against loops."""

import numpy as np
import pytest

from models.embeddings import DenseEmbeddings, SparseEmbeddings
from transforms.embed.merge import MAX_CHUNKS, count_stored, merge_chunks
from transforms.records import Chunk


def value_chunks(count, source="f", value=0, overlap=0):
    """Chunks of ten characters, each repeating `overlap` of the one before."""
    text = "".join(chr(0x61 + index % 26) for index in range(count * 10 + 10))
    starts = [max(0, index * 10 - overlap) for index in range(count)]
    return [
        Chunk(source, value, start, index * 10 + 10, text[start : index * 10 + 10])
        for index, start in enumerate(starts)
    ]


def dense(values, truncated=(), dtype=np.float32):
    flags = np.zeros(len(values), np.bool_)
    flags[list(truncated)] = True
    return DenseEmbeddings(np.array(values, dtype), flags, np.arange(len(values), dtype=np.int32))


def sparse(rows):
    vocabulary = ["a", "b", "c", "d"]
    lengths = [len(row) for row in rows]
    entries = [entry for row in rows for entry in row.items()]
    return SparseEmbeddings(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.array([vocabulary.index(token) for token, _ in entries], np.int32),
        np.array([weight for _, weight in entries], np.float32),
        vocabulary,
        np.zeros(len(rows), np.bool_),
        np.ones(len(rows), np.int32),
    )


@pytest.mark.parametrize("count", [0, 1, 511, 512])
def test_up_to_512_nothing_changes(count):
    chunks, embeddings = value_chunks(count), dense(np.ones((count, 2)))
    merged, same = merge_chunks(chunks, embeddings)
    assert merged == tuple(chunks)
    assert same is embeddings
    assert count_stored(chunks) == count


@pytest.mark.parametrize(("count", "overlap"), [(513, 0), (700, 3), (1500, 10), (5000, 0)])
def test_dense_rows_are_the_mean_of_their_members(count, overlap):
    chunks = value_chunks(count, overlap=overlap)
    values = np.random.default_rng(count).normal(size=(count, 3)).astype(np.float32)
    merged, embeddings = merge_chunks(chunks, dense(values, truncated=[0, count - 1]))
    assert len(merged) == len(embeddings) == MAX_CHUNKS == count_stored(chunks)
    for row in range(MAX_CHUNKS):
        members = [index for index in range(count) if index * 512 // count == row]
        assert np.allclose(embeddings.values[row], values[members].mean(axis=0), atol=1e-6)
        assert merged[row].start_offset == chunks[members[0]].start_offset
        assert merged[row].end_offset == chunks[members[-1]].end_offset
        assert embeddings.is_truncated[row] == (row in (0, MAX_CHUNKS - 1))
        assert embeddings.tokens[row] == sum(members)
    assert embeddings.values.dtype == np.float32


def test_text_of_a_folded_chunk_is_its_slice():
    chunks = value_chunks(1300, overlap=4)
    whole = "".join(chr(0x61 + index % 26) for index in range(13_000))
    merged, _ = merge_chunks(chunks, dense(np.ones((1300, 1))))
    assert all(chunk.text == whole[chunk.start_offset : chunk.end_offset] for chunk in merged)


def test_offsets_count_utf16_in_folded_texts():
    chunks = [Chunk("f", 0, 2 * index, 2 * index + 4, "😀😀") for index in range(1024)]
    merged, _ = merge_chunks(chunks, dense(np.ones((1024, 1))))
    assert {chunk.text for chunk in merged} == {"😀😀😀"}


def test_only_values_that_are_too_large_are_folded():
    chunks = [*value_chunks(3, "a"), *value_chunks(600, "a", 1), *value_chunks(2, "b")]
    merged, embeddings = merge_chunks(chunks, dense(np.arange(605.0)[:, None]))
    assert len(merged) == len(embeddings) == 3 + 512 + 2 == count_stored(chunks)
    assert [(chunk.source_field, chunk.value) for chunk in merged[2:5]] == [("a", 0), ("a", 1), ("a", 1)]
    assert embeddings.values[-2:, 0].tolist() == [603.0, 604.0]


def test_bytes_are_rounded_half_up():
    rows = np.array([[1, -1, -128], [2, -2, -127]] * 512, np.int8)
    _, embeddings = merge_chunks(value_chunks(1024), dense(rows, dtype=np.int8))
    assert embeddings.values.dtype == np.int8
    assert embeddings.values.tolist() == [[2, -1, -127]] * 512


def test_sparse_rows_keep_the_largest_weight_of_each_token():
    rows = [{"b": 0.5, "a": 0.25}, {"a": 0.75, "c": 0.5}] * 512
    rows[2], rows[3] = {}, {"d": 1.0}
    merged, embeddings = merge_chunks(value_chunks(1024), sparse(rows))
    assert len(merged) == len(embeddings) == 512
    assert list(embeddings.row(0).items()) == [("a", 0.75), ("b", 0.5), ("c", 0.5)]
    assert embeddings.row(1) == {"d": 1.0}
    assert embeddings.row(511) == embeddings.row(0)


def test_sparse_rows_may_be_empty():
    _, embeddings = merge_chunks(value_chunks(1024), sparse([{}] * 1024))
    assert [embeddings.row(row) for row in range(512)] == [{}] * 512
