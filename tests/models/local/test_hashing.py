import re
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.checkpoints import local_endpoint

from models.endpoints.endpoint import Endpoint
from models.local.hashing import _CJK, HashingEmbedder, _find_words, _hashes, bucket_names
from models.local.model import local_model

TEXTS = ["The cat sat on the mat.", "Quantum field theory", "", "cat cat cat", "東京は日本の首都"]


def hashing(task_type: str, **settings: object) -> Endpoint:
    return local_endpoint(task_type, settings, "hashing")


def test_dense_embeddings_have_unit_length_and_find_the_text_that_shares_words() -> None:
    embedder = HashingEmbedder(64)
    found = embedder.embed(TEXTS, "ingest").values
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    scores = found @ embedder.embed(["a cat on a mat"], "search").values[0]
    assert int(scores.argmax()) in (0, 3)


def test_the_same_text_has_the_same_embedding_in_another_process() -> None:
    code = (
        "from models.local.hashing import HashingEmbedder as H; import hashlib;"
        "e = H(64).embed(['The cat sat on the mat.'], 'ingest'); print(hashlib.md5(e.values.tobytes()).hexdigest());"
        "s = H(None).embed(['The cat sat on the mat.'], 'ingest'); print(s.row(0))"
    )
    outputs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    here = HashingEmbedder(None).embed(["The cat sat on the mat."], "ingest").row(0)
    assert len(outputs) == 1
    assert str(here) in outputs.pop()


def test_sparse_rows_are_sorted_positive_and_free_of_repeats() -> None:
    found = HashingEmbedder(None).embed([*TEXTS, "word " * 10 + "other words here again again"], "ingest")
    assert len(found) == 6
    for row in range(len(found)):
        weights = list(found.row(row).values())
        assert weights == sorted(weights, reverse=True)
        assert all(weight > 0 for weight in weights)
        entries = slice(found.indptr[row], found.indptr[row + 1])
        assert len(set(found.token_ids[entries].tolist())) == entries.stop - entries.start
    assert found.row(2) == {}
    assert found.vocabulary is bucket_names()


def test_function_words_weigh_next_to_nothing_and_repeats_saturate() -> None:
    def weight(text: str) -> float:
        return max(HashingEmbedder(None).embed([text], "ingest").row(0).values())

    assert weight("the") < weight("cat") / 10
    assert weight("cat") < weight("cat cat") < 2 * weight("cat")


def test_tokens_are_words_and_nothing_is_truncated() -> None:
    embedder = HashingEmbedder(None)
    found = embedder.embed(TEXTS, "ingest")
    assert found.tokens.tolist() == [6, 3, 0, 3, 8]
    assert embedder.count_tokens(TEXTS).tolist() == [6, 3, 0, 3, 8]
    assert not found.is_truncated.any()


def test_no_texts_give_no_embeddings() -> None:
    assert HashingEmbedder(64).embed([], "ingest").values.shape == (0, 64)
    assert len(HashingEmbedder(None).embed([], "ingest")) == 0


def test_the_service_takes_dimensions_and_element_types() -> None:
    model = local_model(hashing("text_embedding", dimensions=128, element_type="bit"))
    assert model.model_settings == {
        "task_type": "text_embedding",
        "service": "hashing",
        "dimensions": 128,
        "similarity": "l2_norm",
        "element_type": "bit",
    }
    found = model.load().embed(["a cat"], "ingest")
    assert (found.values.shape, found.values.dtype) == ((1, 16), np.int8)
    assert local_model(hashing("text_embedding")).load().embed(["a cat"], "ingest").values.shape == (1, 64)


def test_bits_need_whole_bytes() -> None:
    model = local_model(hashing("text_embedding", dimensions=12, element_type="bit"))
    assert model.problems() == ["[dimensions] is [12]; with [element_type] [bit] it must be a multiple of 8"]


@pytest.mark.parametrize("change", [{"dimensions": 32}, {"element_type": "byte"}])
def test_what_changes_embeddings_changes_the_fingerprint(change: dict[str, object]) -> None:
    plain = local_model(hashing("text_embedding"))
    assert plain.fingerprint == local_model(hashing("text_embedding")).fingerprint
    assert plain.fingerprint != local_model(hashing("text_embedding", **change)).fingerprint
    assert plain.fingerprint != local_model(hashing("sparse_embedding")).fingerprint


@given(st.lists(st.text(st.characters(categories=["L", "N"]) | st.sampled_from("ab_É漢 \n.😀"), max_size=60)))
def test_the_hash_of_a_word_is_made_of_its_checksum(texts):
    expected = [
        (zlib.crc32(word.encode()) * 0x9E3779B1) & 0xFFFFFFFF
        for is_ascii in (True, False)
        for text in texts
        if text.isascii() is is_ascii
        for word in re.findall(f"[{_CJK}]|[^\\W{_CJK}]+", text.lower())
    ]
    assert [one for _, words in _find_words(texts) for one in _hashes(words).tolist()] == expected
