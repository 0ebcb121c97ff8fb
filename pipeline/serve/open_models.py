"""The models in memory: loaded when they are first asked for, the one that was used longest ago let go of."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from models.embeddings import Embedder, Embeddings, InputType
from models.endpoints.endpoint import Endpoint
from models.errors import InferenceError
from models.model import Model
from models.open_model import usable_model
from pipeline.serve.batching import JOINED_CHARACTERS, LANE_CHARACTERS, Batcher
from pipeline.serve.metrics import Metrics

KEPT_MODELS = 8
"""Models in memory at the same time."""

LOCAL_LANES, REMOTE_LANES = 2, 8
"""Calls of one model at the same time: one is tokenised while another computes; a remote one mostly waits."""


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A loaded model with its queue.

    Attributes:
        model: its description.
        embedder: the loaded model.
        batcher: the queue before it.
        load_seconds: how long it took to load.
    """

    model: Model
    embedder: Embedder
    batcher: Batcher
    load_seconds: float

    async def embed(self, texts: tuple[str, ...], input_type: InputType, timeout: float) -> Embeddings:
        """Embed texts in a batch with those of other requests; see `Batcher.embed`."""
        return await self.batcher.embed(texts, input_type, timeout)


class OpenModels:
    """The models in memory, by definition: an endpoint that changes is another one. Belongs to one event loop."""

    def __init__(self, models: Mapping[str, Any], metrics: Metrics) -> None:
        """Open none yet.

        Args:
            models: the run config's ``models`` section.
            metrics: the server's counters.
        """
        self._models = models
        self._metrics = metrics
        self._open: OrderedDict[bytes, asyncio.Task[OpenModel]] = OrderedDict()
        self._executor = ThreadPoolExecutor(KEPT_MODELS * LOCAL_LANES, "serve-model")
        self._closing: set[asyncio.Task[None]] = set()
        metrics.open_models.set_function(lambda: len(self._open))
        metrics.waiting.set_function(self._waiting)

    def _waiting(self) -> int:
        return sum(task.result().batcher.waiting for task in self._open.values() if _is_ready(task))

    async def get(self, endpoint: Endpoint) -> OpenModel:
        """The loaded model of an endpoint; those who ask while it loads wait together.

        Raises:
            InferenceError: it cannot be used, and why.
        """
        # Chunking and task settings of one request do not change the loaded model of a local endpoint; but a remote
        # one sends them along, so that all of the definition counts.
        key = endpoint.key
        task = self._open.get(key)
        if task is None:
            task = self._open[key] = asyncio.get_running_loop().create_task(self._load(endpoint))
        self._open.move_to_end(key)
        try:
            opened = task.result() if task.done() else await asyncio.shield(task)
        except Exception:
            self._open.pop(key, None)  # asked again it may be there: weights that were put in place meanwhile
            raise
        self._drop_old()
        return opened

    async def _load(self, endpoint: Endpoint) -> OpenModel:
        loop, started = asyncio.get_running_loop(), time.monotonic()
        model, embedder = await loop.run_in_executor(self._executor, _load_model, endpoint, self._models)
        lanes, least = (
            (LOCAL_LANES, LANE_CHARACTERS) if _is_local(model) else (REMOTE_LANES, JOINED_CHARACTERS)
        )
        observe = self._metrics.observe_batches(endpoint.inference_id)
        batcher = Batcher(endpoint.inference_id, embedder, self._executor, lanes, observe, least)
        return OpenModel(model, embedder, batcher, time.monotonic() - started)

    def _drop_old(self) -> None:
        for key in list(self._open)[:-KEPT_MODELS]:
            if _is_ready(self._open[key]):
                self._drop(key)

    def forget(self, inference_id: str) -> None:
        """Let go of an endpoint's models: it was changed or deleted."""
        for key, task in list(self._open.items()):
            if _is_ready(task) and task.result().model.endpoint.inference_id == inference_id:
                self._drop(key)

    def _drop(self, key: bytes) -> None:
        opened = self._open.pop(key).result()
        task = asyncio.get_running_loop().create_task(_close(opened, self._executor))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def loaded(self) -> dict[str, OpenModel]:
        """The models in memory by inference id."""
        ready = [task.result() for task in self._open.values() if _is_ready(task)]
        return {opened.model.endpoint.inference_id: opened for opened in ready}

    async def close(self) -> None:
        """Let go of all."""
        for key, task in list(self._open.items()):
            if _is_ready(task):
                self._drop(key)
        await asyncio.gather(*self._closing)
        self._executor.shutdown(wait=False, cancel_futures=True)


def _is_ready(task: "asyncio.Task[OpenModel]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _load_model(endpoint: Endpoint, models: Mapping[str, Any]) -> tuple[Model, Embedder]:
    model = usable_model(endpoint, models)
    try:
        return model, model.load()
    except OSError as error:
        problem = f"the model of [{endpoint.inference_id}] could not be loaded: {error.strerror or error}"
    raise InferenceError(problem)


def _is_local(model: Model) -> bool:
    from models.remote.model import RemoteModel

    return not isinstance(model, RemoteModel)


async def _close(opened: OpenModel, executor: ThreadPoolExecutor) -> None:
    """Close a model when nobody waits for it any more; who holds it still may ask it once more."""
    while not opened.batcher.is_idle:
        await asyncio.sleep(0.05)
    await asyncio.get_running_loop().run_in_executor(executor, opened.embedder.close)
