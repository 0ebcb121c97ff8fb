"""Part files: what is built is what is read back, whatever the documents, and rows that stay survive a rewrite."""

import json
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.embeddings import DenseEmbeddings, SparseEmbeddings
from transforms.plain_values import PlainField
from transforms.read.columns import DocumentShape
from transforms.records import (
    Chunk,
    ChunkedDocument,
    Document,
    EmbeddedField,
    Location,
    PartRewrite,
    joined_embeddings,
)
from transforms.table.parts import write_part
from transforms.table.rewrite import RewritePart, align, drop_stale_embeddings
from transforms.table.schema import SemanticColumn, TableLayout, semantic_type
from transforms.table.write import build_table

NOW = datetime(2026, 1, 2, tzinfo=UTC)
COLUMNS = (SemanticColumn("dense", "d", "float"), SemanticColumn("sparse", "s", "sparse"))
FINGERPRINT = '{"_row":"r","dense":"aa.c","sparse":"bb.c"}'
LAYOUT = TableLayout({"n": "int32"}, COLUMNS, FINGERPRINT, '{"format":1}')
VOCABULARY = ["a", "b", "c"]


def embedded_document(name: str, chunks: int, seed: int) -> ChunkedDocument:
    """A document with random embeddings in both fields."""
    generator = np.random.default_rng(seed)
    pieces = tuple(Chunk("text", 0, place, place + 1, "x") for place in range(chunks))
    truncated, tokens = generator.random(chunks) < 0.5, np.ones(chunks, np.int32)
    if not chunks:
        fields = {column.name: EmbeddedField((), None) for column in COLUMNS}
    else:
        dense = DenseEmbeddings(generator.random((chunks, 4)).astype(np.float32), truncated, tokens)
        counts = generator.integers(0, 4, chunks)
        ids = np.concatenate([generator.permutation(3)[:count] for count in counts]).astype(np.int32)
        weights = generator.random(len(ids)).astype(np.float32) + 0.1
        indptr = np.concatenate([[0], np.cumsum(counts)])
        sparse = SparseEmbeddings(indptr, ids, weights, VOCABULARY, truncated, tokens)
        fields = {"dense": EmbeddedField(pieces, dense), "sparse": EmbeddedField(pieces, sparse)}
    document = Document(name, {"text": "x" * chunks}, "0" * 32, Location("f", 1), {"n": seed})
    return ChunkedDocument(document, {"dense": pieces, "sparse": pieces}, fields)


@given(st.lists(st.integers(0, 5), max_size=6))
def test_rows_hold_what_the_documents_hold(sizes):
    documents = [embedded_document(f"d{number}", size, number) for number, size in enumerate(sizes)]
    rows = build_table(documents, LAYOUT, "run", NOW).to_pylist()
    assert [row["_id"] for row in rows] == [f"d{number}" for number in range(len(sizes))]
    for row, document, size in zip(rows, documents, sizes, strict=True):
        assert (row["n"], json.loads(row["_source"])) == (
            document.document.columns["n"],
            document.document.source,
        )
        if not size:
            assert row["dense"] is None
            assert row["sparse"] is None
            continue
        dense, sparse = document.embedded["dense"].embeddings, document.embedded["sparse"].embeddings
        chunks = row["dense"]["chunks"]
        assert [chunk["start_offset"] for chunk in chunks] == list(range(size))
        assert [chunk["is_truncated"] for chunk in chunks] == dense.is_truncated.tolist()
        np.testing.assert_array_equal(
            np.array([chunk["embeddings"] for chunk in chunks], np.float32), dense.values
        )
        for place, chunk in enumerate(row["sparse"]["chunks"]):
            assert dict(chunk["embeddings"]) == pytest.approx(sparse.row(place))


def test_embeddings_with_different_vocabularies_keep_their_tokens():
    first, second = embedded_document("d0", 2, 1), embedded_document("d1", 3, 2)
    other = first.embedded["sparse"].embeddings
    renamed = SparseEmbeddings(
        other.indptr, other.token_ids, other.weights, ["c", "x", "y"], other.is_truncated, other.tokens
    )
    first.embedded["sparse"] = EmbeddedField(first.chunks["sparse"], renamed)
    rows = build_table([first, second], LAYOUT, "run", NOW).to_pylist()
    for row, embeddings in zip(rows, (renamed, second.embedded["sparse"].embeddings), strict=True):
        for place, chunk in enumerate(row["sparse"]["chunks"]):
            assert dict(chunk["embeddings"]) == pytest.approx(embeddings.row(place))


def test_a_part_is_compressed_described_and_alone_in_its_folder(tmp_path):
    documents = [embedded_document(f"d{number}", 3, number) for number in range(20)]
    part = write_part(build_table(documents, LAYOUT, "run", NOW), str(tmp_path), "run")
    assert [path.name for path in tmp_path.iterdir()] == [part.path]
    assert (part.rows, part.first_id, part.last_id) == (20, "d0", "d9")
    assert part.size == (tmp_path / part.path).stat().st_size
    metadata = pq.read_metadata(tmp_path / part.path)
    assert metadata.row_group(0).column(0).compression == "ZSTD"
    assert b"semantic_ingest" not in (pq.read_schema(tmp_path / part.path).metadata or {})


def test_a_rewrite_keeps_the_other_rows_as_they_are(tmp_path):
    table = build_table(
        [embedded_document(f"d{number}", number % 3, number) for number in range(9)], LAYOUT, "run", NOW
    )
    part = write_part(table, str(tmp_path), "run")
    rewrite = RewritePart(LAYOUT, {"dense": "aa", "sparse": "bb"}, str(tmp_path), "next", DocumentShape(()))
    (new,) = rewrite.process(PartRewrite(part.path, (0, 4, 8)))
    kept = pq.read_table(tmp_path / new.path)
    assert kept.to_pylist() == [row for place, row in enumerate(table.to_pylist()) if place not in (0, 4, 8)]
    assert list(rewrite.process(PartRewrite(part.path, tuple(range(9))))) == []


def test_a_row_with_the_embedding_of_another_model_loses_it_and_remembers():
    table = build_table([embedded_document("d0", 2, 1)], LAYOUT, "run", NOW)
    (row,) = drop_stale_embeddings(table, {"dense": "zz", "sparse": "bb"}).to_pylist()
    assert row["dense"] is None
    assert row["sparse"] is not None
    assert json.loads(row["fingerprint"]) == {"_row": "r", "dense": "", "sparse": "bb.c"}
    assert drop_stale_embeddings(table, {"dense": "aa", "sparse": "bb"}) is table


def test_rows_of_an_older_mapping_get_new_columns_from_their_documents():
    table = build_table([embedded_document("d0", 2, 1)], LAYOUT, "run", NOW)
    table = table.set_column(1, "_source", pa.array(['{"new": ["5", 6], "year": 1}']))
    fields = [
        pa.field("_id", pa.string()),
        pa.field("new", pa.list_(pa.int8())),
        pa.field("dense", semantic_type("sparse")),
    ]
    shape = DocumentShape(
        (PlainField("new", "byte"), PlainField("other", "keyword")), lists=frozenset({"new"})
    )
    assert align(table, pa.schema(fields), shape).to_pylist() == [{"_id": "d0", "new": [5, 6], "dense": None}]


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=12))
def test_neighbours_in_a_batch_are_joined_in_order(documents):
    """Each document has some rows of the batch; some batches end behind it, and rows may be left out."""
    batches, fields, wanted = [], [], []
    start = 0
    values = np.arange(64, dtype=np.float32)[:, None]
    for number, (count, is_last) in enumerate(documents):
        if not batches or is_last:
            batches.append(DenseEmbeddings(values + 100 * number, np.zeros(64, bool), np.ones(64, np.int32)))
            start = number % 2
        pieces = tuple(Chunk("text", 0, place, place + 1, "x") for place in range(count))
        fields.append(EmbeddedField(pieces, batches[-1] if count else None, first=start))
        if count:
            wanted += fields[-1].embeddings.values[:, 0].tolist()
        start += count
    joined = joined_embeddings(fields)
    assert [value for part in joined for value in part.values[:, 0].tolist()] == wanted
    assert len(joined) <= len(batches)
