"""Embeddings that documents bring along count only where they are what this run would make."""

import copy

import numpy as np
import pytest

from transforms.embed.brought import Accepted, brought_embeddings
from transforms.records import Chunk

DENSE = Accepted(
    "e5", {"task_type": "text_embedding", "dimensions": 2, "similarity": "cosine", "element_type": "float"}
)
SPARSE = Accepted("elser", {"task_type": "sparse_embedding"})
CHUNKS = (Chunk("text", 0, 0, 5, "hello"), Chunk("text", 0, 5, 9, "four"), Chunk("title", 0, 0, 3, "abc"))


def stored(accepted: Accepted, *embeddings: object) -> dict:
    chunks = {
        "text": [
            {"start_offset": 5, "end_offset": 9, "embeddings": embeddings[0]},
            {"start_offset": 0, "end_offset": 5, "embeddings": embeddings[1]},
        ]
    }
    settings = dict(accepted.model_settings)
    return {
        "inference": {"inference_id": accepted.inference_id, "model_settings": settings, "chunks": chunks}
    }


def test_dense_embeddings_are_found_by_their_place():
    rows, embeddings = brought_embeddings(stored(DENSE, [1.0, 2.0], [3.0, 4.0]), CHUNKS, DENSE)
    assert rows == {0: 0, 1: 1}
    np.testing.assert_array_equal(embeddings.values, np.array([[3, 4], [1, 2]], np.float32))


def test_sparse_embeddings_are_found_by_their_place():
    rows, embeddings = brought_embeddings(stored(SPARSE, {"a": 0.5, "b": 2.0}, {"c": 1.0}), CHUNKS, SPARSE)
    assert [embeddings.row(rows[position]) for position in (0, 1)] == [{"c": 1.0}, {"b": 2.0, "a": 0.5}]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("inference_id",), "other"),
        (("model_settings", "dimensions"), 3),
        (("model_settings", "similarity"), "dot_product"),
        (("model_settings", "element_type"), "byte"),
        (("model_settings", "task_type"), "sparse_embedding"),
        (("chunks",), []),
        (("chunks", "text", 0, "embeddings"), None),
        (("chunks", "text", 0, "embeddings"), [1.0]),
        (("chunks", "text", 0, "embeddings"), [1.0, float("nan")]),
    ],
)
def test_what_does_not_agree_is_embedded_again(path, value):
    brought = copy.deepcopy(stored(DENSE, [1.0, 2.0], [3.0, 4.0]))
    place = brought["inference"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert brought_embeddings(brought, CHUNKS, DENSE) is None


@pytest.mark.parametrize("brought", [None, 3, {}, {"inference": None}, {"inference": {"inference_id": "e5"}}])
def test_anything_else_is_nothing(brought):
    assert brought_embeddings(brought, CHUNKS, DENSE) is None


def test_chunks_of_other_settings_are_not_taken():
    others = (Chunk("text", 0, 0, 9, "hellofour"),)
    assert brought_embeddings(stored(DENSE, [1.0, 2.0], [3.0, 4.0]), others, DENSE) is None
