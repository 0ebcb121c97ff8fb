import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.fresh_process import run_in_fresh_process

from models.errors import InferenceError
from models.local.architectures.packed import OnDevice, PackedBatch
from models.local.engine.batching import TokenBatch, TokenizedTexts, gather, plan_batches
from models.local.engine.run import Engine, slices
from models.local.engine.workers import Allocations, Workers, allocations


class WordTokens:
    """A tokenizer whose tokens are the words' lengths."""

    def encode(self, texts: list[str]) -> TokenizedTexts:
        ids = [[len(word) for word in text.split()] for text in texts]
        lengths = np.array([len(row) for row in ids], np.int32)
        flat = np.array([id for row in ids for id in row], np.int32)
        return TokenizedTexts(flat, lengths, np.zeros(len(texts), np.bool_))


def make_engine(budget: int = 8, threads: int = 2) -> Engine:
    return Engine(WordTokens().encode, Workers(Allocations(1, threads, threads)), "cpu", budget)


def sums(batch: TokenBatch) -> list[int]:
    return [int(batch.ids[tokens].sum()) for tokens in batch.slices()]


def run(engine: Engine, texts: list[str], compute=sums) -> list[int]:
    out = [-1] * len(texts)
    for rows, _, parts in engine.run(texts, compute):
        for batch_rows, values in parts:
            for row, value in zip(rows[batch_rows], values, strict=True):
                out[row] = value
    return out


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 100))
def test_batches_hold_each_text_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = plan_batches(np.array(lengths, np.int32), budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        sizes = [lengths[row] for row in batch]
        assert sum(sizes) <= budget or len(batch) == 1
        assert sizes == sorted(sizes, reverse=True)


@given(st.lists(st.integers(1, 6), min_size=2, max_size=300), st.integers(120, 400))
def test_batches_are_few_and_none_is_a_remnant(lengths: list[int], budget: int) -> None:
    sizes = [
        sum(lengths[row] for row in batch) for batch in plan_batches(np.array(lengths, np.int32), budget)
    ]
    assert len(sizes) <= -(-sum(lengths) // (budget - 6)) + 1
    assert all(size >= min(sum(lengths), budget) / 2 - 6 * len(sizes) for size in sizes)


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(30, 200))
def test_slices_hold_each_text_once_and_are_alike_in_size(sizes: list[int], characters: int) -> None:
    found = list(slices(["x" * size for size in sizes], characters))
    assert sorted(row for rows in found for row in rows) == list(range(len(sizes)))
    assert len(found) <= max(1, round(sum(sizes) / characters))
    assert all(sum(sizes[row] for row in rows) >= characters / 2 - 30 for rows in found[:-1])


def test_a_flush_that_is_a_little_over_one_slice_is_one_slice() -> None:
    texts = ["x" * 1000] * 270
    assert [len(rows) for rows in slices(texts, 1 << 18)] == [270]


def test_a_gpu_has_two_copies_at_most_whatever_the_endpoint_says() -> None:
    wanted = {"num_threads": 16, "num_allocations": 32}
    assert allocations(wanted, "cuda:1", cores=64) == Allocations(1, 1, 2)
    assert allocations({"adaptive_allocations": {"enabled": True}}, "cuda") == Allocations(1, 1, 2)


def test_gather_copies_rows_end_to_end() -> None:
    ids = np.arange(10, dtype=np.int32)
    starts, nothing = np.array([0, 3, 4]), np.zeros(0, np.int64)
    assert gather(ids, starts, np.array([6, 3]), np.array([2, 0])).tolist() == [4, 5, 6, 7, 8, 9, 0, 1, 2]
    assert gather(ids, starts, nothing, nothing).tolist() == []


def test_results_come_back_in_the_order_of_the_texts() -> None:
    texts = ["a bb ccc", "dddd", "ee ee ee ee", "f", "gg gg"] * 20
    assert run(make_engine(), texts) == [6, 4, 8, 1, 4] * 20


def test_a_batch_that_does_not_fit_is_halved_and_the_budget_with_it() -> None:
    seen: list[int] = []

    def on_device(batch: PackedBatch) -> list[int]:
        seen.append(len(batch.ids))
        if len(batch.ids) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [int(part.sum()) for part in batch.ids.split(batch.lengths.tolist())]

    compute = OnDevice(on_device, "cpu")
    engine = make_engine(budget=64, threads=1)
    assert run(engine, ["a bb ccc dddd"] * 48, compute) == [10] * 48
    assert max(seen) == 64
    assert engine.token_budget == 8
    seen.clear()
    assert run(engine, ["a bb ccc dddd"] * 48, compute) == [10] * 48
    assert max(seen) == 8  # what was learnt is kept: nothing is tried in vain again


def test_memory_for_one_text_alone_missing_is_an_error_that_says_so() -> None:
    def compute(batch: TokenBatch) -> list[int]:
        raise MemoryError

    with pytest.raises(InferenceError, match=r"Out of memory on \[cpu\] with one text of 3 tokens") as caught:
        run(make_engine(), ["a b c"], compute)
    assert caught.value.status == 507


def test_an_error_of_the_model_reaches_the_caller_and_the_engine_goes_on() -> None:
    def compute(batch: TokenBatch) -> list[int]:
        if 9 in batch.ids:
            raise RuntimeError("bad text")
        return sums(batch)

    engine = make_engine()
    with pytest.raises(RuntimeError, match="bad text"):
        run(engine, ["a b c", "aaaaaaaaa"] * 10, compute)
    assert run(engine, ["a b c"], compute) == [3]


def test_a_prefix_is_put_before_each_text() -> None:
    engine = make_engine()
    found = [
        value
        for _, _, parts in engine.run(["a", "bb"], sums, "xxx ")
        for _, values in parts
        for value in values
    ]
    assert sorted(found) == [4, 5]


def test_many_threads_share_one_engine() -> None:
    from concurrent.futures import ThreadPoolExecutor

    engine = make_engine(threads=3)
    texts = [f"{'a' * size} b" for size in range(1, 30)]
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda _: run(engine, texts), range(24)))
    assert all(result == [size + 1 for size in range(1, 30)] for result in results)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"num_threads": 2, "num_allocations": 3}, Allocations(2, 3, 3)),
        ({"num_threads": 2}, Allocations(2, 1, 4)),
        ({"num_threads": 16}, Allocations(16, 1, 1)),
        ({}, Allocations(1, 1, 8)),
        (
            {"num_threads": 1, "adaptive_allocations": {"enabled": True, "min_number_of_allocations": 2}},
            Allocations(1, 2, 8),
        ),
        (
            {"num_threads": 1, "adaptive_allocations": {"enabled": True, "max_number_of_allocations": 3}},
            Allocations(1, 0, 3),
        ),
        ({"num_allocations": 1, "adaptive_allocations": {"enabled": False}}, Allocations(1, 1, 1)),
    ],
)
def test_allocations_mean_copies_and_threads(settings: dict, expected: Allocations) -> None:
    assert allocations(settings, cores=8) == expected


ALONE = """
import threading
import numpy as np
import torch
from models.local.architectures.packed import OnDevice
from models.local.engine.batching import TokenBatch
from models.local.engine.workers import Allocations, Workers

torch.set_num_threads(3)
workers = Workers(Allocations(2, 1, 2))
together = threading.Barrier(2)  # both workers have begun when each of them has reached it
compute = OnDevice(lambda _: (together.wait(), torch.get_num_threads()), "cpu")
batch = TokenBatch(np.zeros(1, np.int32), np.ones(1, np.int64))
both = [workers.submit(compute, batch) for _ in range(2)]
assert [each.result()[1] for each in both] == [1, 1]
another = OnDevice(lambda _: torch.get_num_threads(), "cpu")  # as a model with several adapters has
assert [workers.submit(another, batch).result() for _ in range(4)] == [1] * 4
fresh = []
thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
thread.start()
thread.join()
assert [torch.get_num_threads(), *fresh] == [3, 3]
"""


def test_workers_compute_alone_and_leave_the_threads_of_others_as_they_were() -> None:
    """In a process of its own: what it looks at belongs to the process, and other tests' threads use torch, too."""
    run_in_fresh_process(ALONE)


def test_the_least_number_of_copies_is_ready_at_once():
    others = _copies()  # of models that earlier tests have left open
    workers = Workers(Allocations(1, 2, 4))
    try:
        deadline = time.monotonic() + 30
        while len(_copies() - others) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(_copies() - others) == 2
    finally:
        workers.close()


def _copies() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("model-copy")}


def test_copies_that_are_not_ready_yet_can_be_closed():
    for _ in range(20):
        Workers(Allocations(1, 4, 4)).close()
