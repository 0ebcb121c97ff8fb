"""Packed batches: where texts are, and what is computed within each of them, the ways of CPUs and of GPUs alike."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.local.architectures import attention, packed
from models.local.architectures.packed import Group, PackedBatch
from models.local.engine.batching import TokenBatch

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=8).map(lambda sizes: sorted(sizes, reverse=True))


def make(lengths: list[int]) -> PackedBatch:
    ids = np.arange(sum(lengths), dtype=np.int32)
    return PackedBatch.put(TokenBatch(ids, np.array(lengths, np.int64)), "cpu")


def test_a_batch_says_where_its_texts_are() -> None:
    batch = make([4, 2, 2, 3])
    assert list(batch.groups()) == [Group(0, 1, 4), Group(4, 2, 2), Group(8, 1, 3)]
    assert batch.ids.tolist() == list(range(11))
    assert batch.positions.tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 0, 1, 2]
    assert batch.ends.tolist() == [0, 4, 6, 8, 11]
    assert batch.longest == 4


def test_a_batch_is_put_on_a_device_by_one_copy() -> None:
    batch = make([5, 5, 1])
    assert len({part.untyped_storage().data_ptr() for part in (batch.ids, batch.positions, batch.ends)}) == 1


@given(LENGTHS, st.sampled_from(["mean", "max"]))
def test_one_kernel_for_all_texts_gives_what_each_alone_gives(lengths: list[int], reduce: str) -> None:
    batch, values = make(lengths), torch.randn(sum(lengths), 5)
    alone = torch.stack(
        [part.mean(0) if reduce == "mean" else part.amax(0) for part in values.split(lengths)]
    )
    torch.testing.assert_close(packed.by_segment(values, batch, reduce), alone)
    torch.testing.assert_close(packed.by_length(values, batch, reduce), alone)


def test_the_mean_of_spans_is_that_of_each_alone() -> None:
    values, spans = torch.randn(9, 5), [(0, 9), (0, 1), (3, 6), (5, 9)]
    alone = torch.stack([values[first:after].mean(0) for first, after in spans])
    torch.testing.assert_close(packed.mean_of_spans(values, np.array(spans, np.int64)), alone)


def test_a_text_without_tokens_has_no_largest_value() -> None:
    batch, values = make([2, 0, 0]), torch.randn(2, 3)
    for found in (packed.by_segment(values, batch, "max"), packed.by_length(values, batch, "max")):
        assert torch.isneginf(found[1:]).all()
        assert torch.isfinite(found[0]).all()


@pytest.mark.parametrize("window", [attention.ALL, attention.CAUSAL, (2, 2), (3, 0)])
@pytest.mark.parametrize("key_heads", [4, 2])
@settings(max_examples=15)
@given(lengths=LENGTHS)
def test_no_way_to_attend_looks_beyond_a_text(
    lengths: list[int], key_heads: int, window: attention.Window
) -> None:
    batch, tokens = make(lengths), sum(lengths)
    query = torch.randn(tokens, 4, 8)
    key, value = torch.randn(2, tokens, key_heads, 8)
    expected = by_hand(lengths, query, key, value, 0.3, window)
    for attend in (attention.attend, attention.by_length, attention.padded):
        torch.testing.assert_close(attend(batch, query, key, value, 0.3, window), expected)


def by_hand(
    lengths: list[int],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    window: attention.Window,
) -> torch.Tensor:
    """One text and one token at a time."""
    out, start = torch.empty_like(query), 0
    left, right = (1000 if reach < 0 else reach for reach in window)
    for length in lengths:
        for place in range(length):
            seen = slice(start + max(0, place - left), start + min(length, place + right + 1))
            for head in range(query.shape[1]):
                theirs = head * key.shape[1] // query.shape[1]
                scores = key[seen, theirs] @ query[start + place, head] * scale
                out[start + place, head] = scores.softmax(0) @ value[seen, theirs]
        start += length
    return out


@pytest.mark.gpu
@pytest.mark.parametrize("window", [attention.ALL, attention.CAUSAL, (2, 2)])
def test_on_a_gpu_all_ways_agree(window: attention.Window) -> None:
    lengths = np.array([70, 33, 33, 5, 1])
    batch = PackedBatch.put(TokenBatch(np.zeros(lengths.sum(), np.int32), lengths), "cuda")
    query = torch.randn(lengths.sum(), 4, 32, device="cuda", dtype=torch.bfloat16)
    key, value = torch.randn(2, lengths.sum(), 2, 32, device="cuda", dtype=torch.bfloat16)
    expected = attention.by_length(batch, query, key, value, None, window)
    for attend in (attention.attend, attention.padded):
        found = attend(batch, query, key, value, None, window)
        torch.testing.assert_close(found, expected, atol=2e-2, rtol=2e-2)
    values = torch.randn(lengths.sum(), 9, device="cuda")
    for reduce in ("mean", "max"):
        by_segment = packed.by_segment(values, batch, reduce)
        torch.testing.assert_close(by_segment, packed.by_length(values, batch, reduce))
    spans = np.array([(0, 70), (60, 80)], np.int64)
    on_cpu = packed.mean_of_spans(values.cpu(), spans)
    torch.testing.assert_close(packed.mean_of_spans(values, spans).cpu(), on_cpu)
