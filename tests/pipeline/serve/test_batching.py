"""Requests that come together share a batch, none waits for ever, and a bad one harms only itself."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from models.embeddings import DenseEmbeddings
from models.errors import InferenceError, TransientError
from pipeline.serve import batching
from pipeline.serve.batching import Batcher, Busy


class Recorder:
    """Embeds a text as its length; computes only while its gate is open, and remembers what it was asked."""

    device = "cpu"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.slow = threading.Event()
        self.slow.set()
        self.calls: list[tuple[list[str], str]] = []

    def embed(self, texts: list[str], input_type: str) -> DenseEmbeddings:
        self.calls.append((list(texts), input_type))
        assert self.gate.wait(60)
        assert "slow" not in texts or self.slow.wait(60)
        if "down" in texts:
            raise TransientError("the service is down", status=503)
        if "bad" in texts:
            raise InferenceError("this text is bad", status=400)
        values = np.array([[len(text)] for text in texts], np.float32)
        return DenseEmbeddings(values, np.zeros(len(texts), np.bool_), np.ones(len(texts), np.int32))


def run(
    scenario: Callable[[Recorder, Batcher], Any], lanes: int = 1, least: int = batching.JOINED_CHARACTERS
) -> Recorder:
    recorder = Recorder()

    async def play() -> None:
        with ThreadPoolExecutor(4) as executor:
            batcher = Batcher("mine", recorder, executor, lanes, lambda *_: None, least)
            try:
                await scenario(recorder, batcher)
            finally:
                recorder.gate.set()
                recorder.slow.set()

    asyncio.run(play())
    return recorder


async def ask(batcher: Batcher, *texts: str, input_type: Any = "ingest", timeout: float = 60) -> list[float]:
    return (await batcher.embed(texts, input_type, timeout)).values[:, 0].tolist()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_a_request_that_is_alone_does_not_wait():
    async def scenario(recorder, batcher):
        recorder.gate.clear()
        asked = asyncio.create_task(ask(batcher, "abc"))
        await asyncio.sleep(0)
        assert not batcher.waiting
        recorder.gate.set()
        assert await asked == [3.0]
        assert batcher.is_idle

    run(scenario)


def test_requests_that_come_while_the_model_computes_share_the_next_batch():
    async def scenario(recorder, batcher):
        recorder.gate.clear()
        asked = [asyncio.create_task(ask(batcher, "x" * n, "y")) for n in range(1, 41)]
        await until(lambda: len(recorder.calls) == 1 and batcher.waiting == 39)
        recorder.gate.set()
        assert await asyncio.gather(*asked) == [[float(n), 1.0] for n in range(1, 41)]

    assert [len(texts) for texts, _ in run(scenario).calls] == [2, 78]


def test_another_lane_waits_a_moment_for_company():
    async def scenario(recorder, batcher):
        recorder.gate.clear()
        first = asyncio.create_task(ask(batcher, "first"))
        await until(lambda: len(recorder.calls) == 1)
        others = [asyncio.create_task(ask(batcher, "other")) for _ in range(5)]
        await until(lambda: len(recorder.calls) == 2)
        recorder.gate.set()
        await asyncio.gather(first, *others)

    assert [len(texts) for texts, _ in run(scenario, lanes=2).calls] == [1, 5]


def test_lanes_share_what_waits_evenly(monkeypatch):
    """Else one lane would have a single text again and again, which costs as much as four, the other one the rest."""
    monkeypatch.setattr(batching, "GATHER_SECONDS", 60)

    async def scenario(recorder, batcher):
        recorder.gate.clear()
        first = asyncio.create_task(ask(batcher, "x"))
        await until(lambda: len(recorder.calls) == 1)
        others = [asyncio.create_task(ask(batcher, "x")) for _ in range(63)]
        await until(lambda: len(recorder.calls) == 2)
        recorder.gate.set()
        await asyncio.gather(first, *others)

    # Ten are worth a call; then each lane gets half of the 64 that wait, are computed or were just answered.
    assert [len(texts) for texts, _ in run(scenario, lanes=2, least=10).calls][:3] == [1, 10, 32]


def test_a_free_lane_waits_for_those_who_were_just_answered(monkeypatch):
    monkeypatch.setattr(batching, "GATHER_SECONDS", 60)

    async def scenario(recorder, batcher):
        async def ask_twice() -> None:
            await ask(batcher, "xx")
            await ask(batcher, "yy")

        recorder.slow.clear()
        slow = asyncio.create_task(ask(batcher, "slow"))
        await until(lambda: len(recorder.calls) == 1)
        asked = [asyncio.create_task(ask_twice()) for _ in range(5)]
        await until(lambda: len(recorder.calls) >= 3)
        recorder.slow.set()
        await asyncio.gather(slow, *asked)

    # Two fill the free lane; the three behind them wait for one of the two to ask again.
    assert [len(texts) for texts, _ in run(scenario, lanes=2, least=4).calls][:3] == [1, 2, 4]


def test_input_types_are_not_mixed():
    async def scenario(recorder, batcher):
        recorder.gate.clear()
        asked = [
            asyncio.create_task(ask(batcher, "t", input_type=kind))
            for kind in ("ingest", "search", "ingest", "search")
        ]
        await until(lambda: batcher.waiting == 3)
        recorder.gate.set()
        await asyncio.gather(*asked)

    calls = run(scenario).calls
    assert [(len(texts), kind) for texts, kind in calls] == [(1, "ingest"), (2, "search"), (1, "ingest")]


def test_a_bad_text_fails_only_its_own_request():
    async def scenario(recorder, batcher):
        recorder.gate.clear()
        asked = [asyncio.create_task(ask(batcher, text)) for text in ("one", "two", "bad", "three")]
        await until(lambda: batcher.waiting == 3)
        recorder.gate.set()
        *_, third, fourth = outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(third, InferenceError)
        assert third.reason == "this text is bad"
        assert [outcomes[0], outcomes[1], fourth] == [[3.0], [3.0], [5.0]]

    run(scenario)


def test_a_service_that_is_down_is_not_asked_again_for_every_request():
    async def scenario(recorder, batcher):
        recorder.gate.clear()
        asked = [asyncio.create_task(ask(batcher, text)) for text in ("one", "two", "down", "three")]
        await until(lambda: batcher.waiting == 3)
        recorder.gate.set()
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes[1:]] == [TransientError] * 3

    assert len(run(scenario).calls) == 2


def test_a_long_request_goes_in_pieces_and_comes_back_whole(monkeypatch):
    monkeypatch.setattr(batching, "JOINED_CHARACTERS", 10)

    async def scenario(recorder, batcher):
        texts = ["x" * (1 + n % 4) for n in range(50)]
        assert await ask(batcher, *texts) == [float(len(text)) for text in texts]

    assert max(sum(map(len, texts)) for texts, _ in run(scenario).calls) <= 13


def test_too_much_is_sent_away_with_a_time_to_come_back(monkeypatch):
    monkeypatch.setattr(batching, "QUEUE_CHARACTERS", 100)

    async def scenario(recorder, batcher):
        recorder.gate.clear()
        asked = [asyncio.create_task(ask(batcher, "x" * 30)) for _ in range(4)]
        await until(lambda: batcher.waiting == 3)
        with pytest.raises(Busy) as refused:
            await ask(batcher, "x" * 30)
        assert refused.value.status == 429
        assert 1 <= refused.value.retry_after <= 60
        recorder.gate.set()
        assert await asyncio.gather(*asked) == [[30.0]] * 4
        assert await ask(batcher, "x" * 30) == [30.0]

    run(scenario)


def test_a_long_request_that_is_given_up_leaves_nothing(monkeypatch):
    monkeypatch.setattr(batching, "JOINED_CHARACTERS", 10)

    async def scenario(recorder, batcher):
        recorder.gate.clear()
        first = asyncio.create_task(ask(batcher, "first"))
        await until(lambda: len(recorder.calls) == 1)
        with pytest.raises(InferenceError, match="timed out"):
            await ask(batcher, *("x" * 10 for _ in range(5)), timeout=0.01)
        recorder.gate.set()
        assert await first == [5.0]
        assert await ask(batcher, "last") == [4.0]
        assert batcher.is_idle

    assert [texts for texts, _ in run(scenario).calls] == [["first"], ["last"]]


def test_a_request_that_is_given_up_leaves_the_queue():
    async def scenario(recorder, batcher):
        recorder.gate.clear()
        first = asyncio.create_task(ask(batcher, "first"))
        await until(lambda: len(recorder.calls) == 1)
        with pytest.raises(InferenceError, match="timed out") as refused:
            await ask(batcher, "late", timeout=0.01)
        assert refused.value.status == 408
        last = asyncio.create_task(ask(batcher, "last"))
        recorder.gate.set()
        assert await asyncio.gather(first, last) == [[5.0], [4.0]]

    assert [texts for texts, _ in run(scenario).calls] == [["first"], ["last"]]
