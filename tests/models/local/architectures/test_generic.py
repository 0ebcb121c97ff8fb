"""Encoders of transformers: packed batches give what padded ones give, and what cannot be packed is padded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from support.checkpoints import SMALL, VOCABULARY, make_encoder, save

from models.local.architectures.generic import GenericEncoder
from models.local.architectures.packed import PackedBatch
from models.local.engine.batching import TokenBatch

LENGTHS = np.array([70, 33, 33, 5, 1], np.int64)
WINDOWS = {"layer_types": ["sliding_attention", "full_attention"]}


def batch() -> PackedBatch:
    ids = np.random.default_rng(1).integers(1, len(VOCABULARY), LENGTHS.sum()).astype(np.int32)
    return PackedBatch.put(TokenBatch(ids, LENGTHS), "cpu")


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("qwen3", {}),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 6, **WINDOWS}),
        ("eurobert", {}),
        ("jina_embeddings_v3", {}),
        ("modernbert", {}),
        ("modernbert", {"local_attention": 8, **WINDOWS}),
    ],
)
def test_packed_texts_give_what_padded_ones_give(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    encoder = GenericEncoder(make_encoder(kind, tmp_path, **changes), "cpu", "float32")
    assert encoder.is_packed
    with torch.inference_mode():
        packed, padded = encoder.forward(batch()), encoder._padded(batch())
    assert torch.nn.functional.cosine_similarity(packed, padded).min() >= 0.9999
    torch.testing.assert_close(packed, padded, atol=1e-4, rtol=1e-4)


def test_a_window_changes_what_is_computed(tmp_path: Path) -> None:
    """Or the test above would not tell whether ours is kept to."""
    found = []
    for window in (8, 128):
        folder = make_encoder("modernbert", tmp_path / str(window), local_attention=window, **WINDOWS)
        with torch.inference_mode():
            found.append(GenericEncoder(folder, "cpu", "float32").forward(batch()))
    assert not torch.allclose(*found, atol=1e-2)


def test_texts_of_an_encoder_that_would_mix_them_are_padded(tmp_path: Path) -> None:
    config = transformers.MPNetConfig(vocab_size=len(VOCABULARY), max_position_embeddings=80, **SMALL)
    folder = save(transformers.MPNetModel(config), tmp_path)
    encoder = GenericEncoder(folder, "cpu", "float32")
    assert not encoder.is_packed
    model = transformers.MPNetModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        found = encoder.forward(batch()).split(LENGTHS.tolist())
        for ids, hidden in zip(batch().ids.split(LENGTHS.tolist()), found, strict=True):
            alone = model(input_ids=ids.long()[None]).last_hidden_state[0]
            torch.testing.assert_close(hidden, alone, atol=1e-4, rtol=1e-4)
