"""The reranking models in memory: loaded when they are first asked for, one call of each at a time."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from models.endpoints.endpoint import Endpoint
from models.errors import InferenceError
from models.open_model import usable_rerank_model
from models.reranker import Relevance, Reranker

KEPT_MODELS = 4
"""Reranking models in memory at the same time."""

MOST_WAITING = 64
"""Requests that may wait for one model; a request beyond them is sent away."""


@dataclass
class _Open:
    """A model that is loaded or will be.

    Attributes:
        inference_id: its endpoint.
        model: the loaded model, once it is.
        turn: held by the request that computes.
        waiting: requests that compute or wait.
    """

    inference_id: str
    model: Reranker | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class OpenRerankers:
    """The reranking models in memory, by definition. Belongs to one event loop."""

    def __init__(self, models: Mapping[str, Any]) -> None:
        """Open none yet.

        Args:
            models: the run config's ``models`` section.
        """
        self._models = models
        self._open: OrderedDict[bytes, _Open] = OrderedDict()
        self._executor = ThreadPoolExecutor(KEPT_MODELS, "serve-rerank")

    async def rerank(self, endpoint: Endpoint, query: str, texts: Sequence[str], timeout: float) -> Relevance:
        """Rank texts.

        Args:
            endpoint: the endpoint.
            query: what is looked for.
            texts: what to rank.
            timeout: seconds until the request is given up.

        Raises:
            InferenceError: the model cannot be used; too many wait; 408, it took too long.
        """
        key = endpoint.key
        opened = self._open.setdefault(key, _Open(endpoint.inference_id))
        self._open.move_to_end(key)
        if opened.waiting >= MOST_WAITING:
            raise InferenceError(f"Too many requests are waiting for [{endpoint.inference_id}]", status=429)
        opened.waiting += 1
        # A request that is given up goes on: what a thread computes cannot be stopped, and its turn must end with it.
        work = asyncio.ensure_future(self._rank(opened, endpoint, query, texts))
        try:
            return await asyncio.wait_for(asyncio.shield(work), timeout)
        except TimeoutError:
            work.add_done_callback(lambda done: done.cancelled() or done.exception())
            reason = f"Request timed out waiting to be executed after [{timeout:g}s]"
        finally:
            self._drop_old()
        raise InferenceError(reason, status=408)

    async def _rank(self, opened: _Open, endpoint: Endpoint, query: str, texts: Sequence[str]) -> Relevance:
        loop = asyncio.get_running_loop()
        try:
            async with opened.turn:
                if opened.model is None:
                    opened.model = await loop.run_in_executor(self._executor, self._load, endpoint)
                return await loop.run_in_executor(self._executor, opened.model.rerank, query, texts)
        finally:
            opened.waiting -= 1

    def _load(self, endpoint: Endpoint) -> Reranker:
        return usable_rerank_model(endpoint, self._models).load()

    def _drop_old(self) -> None:
        idle = [key for key, opened in list(self._open.items())[:-KEPT_MODELS] if not opened.waiting]
        for key in idle:
            self._close(self._open.pop(key))

    def forget(self, inference_id: str) -> None:
        """Let go of an endpoint's models: it was changed or deleted."""
        found = [key for key, opened in self._open.items() if opened.inference_id == inference_id]
        for key in found:
            opened = self._open.pop(key)
            if not opened.waiting:  # else it goes when its last request is answered and nothing holds it
                self._close(opened)

    def _close(self, opened: _Open) -> None:
        if opened.model is not None:
            self._executor.submit(opened.model.close)

    async def close(self) -> None:
        """Let go of all."""
        for opened in self._open.values():
            self._close(opened)
        self._open.clear()
        self._executor.shutdown(wait=False)
