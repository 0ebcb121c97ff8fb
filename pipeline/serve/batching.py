"""Requests that come at the same time share a batch: each loaded model has one queue.

A request that finds its model idle is computed at once. One that comes while the model computes waits for the next
batch, a few milliseconds at least, so that others can join; a model of this machine computes two at a time, about
equal in size. The joined texts go through `Embedder.embed`, as those of `infer` do, where the engine cuts them into
batches by tokens.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from models.embeddings import DenseEmbeddings, Embedder, Embeddings, InputType, SparseEmbeddings
from models.errors import InferenceError, ModelLoadError, TransientError

GATHER_SECONDS = 0.01
"""How long a request waits for company while the model is busy."""

JOINED_CHARACTERS = 16 * 1024
"""Text of one call of the model: some 4,000 tokens, a few of the engine's batches for each core."""

LANE_CHARACTERS = 1024
"""Text that one call of a model on this machine should have: from some 16 short texts on, a text costs the same."""

QUEUE_CHARACTERS = 4 * 1024 * 1024
"""Text that may wait for one model; a request beyond it is sent away."""

QUEUE_REQUESTS = 2048
"""Requests that may wait for one model, at most."""


class Busy(InferenceError):
    """Too much is waiting already.

    Attributes:
        retry_after: seconds after which it is worth asking again.
    """

    def __init__(self, inference_id: str, retry_after: int) -> None:
        super().__init__(
            f"Too many requests are waiting for [{inference_id}]; try again in {retry_after} s", status=429
        )
        self.retry_after = retry_after


@dataclass(eq=False, slots=True)
class Piece:
    """Texts of one request that stay together; a long request is several.

    Attributes:
        texts: the texts.
        input_type: what they are for.
        characters: their length.
        answer: gets their embeddings.
        since: when it began to wait, on the monotonic clock.
    """

    texts: Sequence[str]
    input_type: InputType
    characters: int
    answer: "asyncio.Future[Embeddings]"
    since: float = field(default_factory=time.monotonic)


Observe = Callable[[int, int, float], None]
"""Is told of each batch: requests, texts, seconds."""


class Batcher:
    """The queue before one loaded model. Belongs to one event loop."""

    def __init__(
        self,
        inference_id: str,
        embedder: Embedder,
        executor: ThreadPoolExecutor,
        lanes: int,
        observe: Observe,
        least: int = JOINED_CHARACTERS,
    ) -> None:
        """Open a queue.

        Args:
            inference_id: the endpoint, for messages.
            embedder: the model.
            executor: threads that call it.
            lanes: calls at the same time: two keep a model of this machine busy while texts are tokenised.
            observe: is told of each batch.
            least: text of a call from which on it is shared evenly among the lanes; by default it never is.
        """
        self._inference_id = inference_id
        self._embedder = embedder
        self._executor = executor
        self._lanes = lanes
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._least = least
        self._waiting: deque[Piece] = deque()
        # Text that waits, that is computed, and that the last call had, which ended at `_freed`.
        self._characters, self._computed, self._answered = 0, 0, 0
        self._freed = 0.0
        self._running: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._rate = 20_000.0

    @property
    def waiting(self) -> int:
        """Pieces that wait."""
        return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is computed."""
        return not self._waiting and not self._running

    async def embed(self, texts: Sequence[str], input_type: InputType, timeout: float) -> Embeddings:
        """Embed the texts of one request.

        Args:
            texts: the texts.
            input_type: what they are for.
            timeout: seconds until it is given up.

        Raises:
            InferenceError: 429, too much waits; 408, it took too long; what the model raised.
        """
        pieces = self._pieces(texts, input_type)
        characters = sum(piece.characters for piece in pieces)
        full = self._characters + characters > QUEUE_CHARACTERS or self.waiting >= QUEUE_REQUESTS
        if full and self._waiting:
            raise Busy(self._inference_id, min(60, math.ceil(self._characters / self._rate) or 1))
        self._waiting.extend(pieces)
        self._characters += characters
        self._start()
        patience = self._loop.call_later(timeout, _give_up, pieces, timeout)
        try:
            return _joined([await piece.answer for piece in pieces])
        finally:
            patience.cancel()
            for piece in pieces:
                piece.answer.cancel()

    def _pieces(self, texts: Sequence[str], input_type: InputType) -> list[Piece]:
        if len(texts) == 1:
            return [Piece(texts, input_type, len(texts[0]), self._loop.create_future())]
        pieces, start, characters = [], 0, 0
        for end, text in enumerate(texts, 1):
            characters += len(text)
            if characters >= JOINED_CHARACTERS or end == len(texts):
                pieces.append(Piece(texts[start:end], input_type, characters, self._loop.create_future()))
                start, characters = end, 0
        return pieces

    def _share(self) -> int:
        """Text of the next call: as much as each lane has where all of it is shared evenly.

        Else one lane could have a single text, again and again, while the other one has all others.
        """
        known = self._characters + self._computed + self._answered
        return min(JOINED_CHARACTERS, max(self._least, known // self._lanes))

    def _start(self) -> None:
        """Start calls while there are lanes and there is reason to start now."""
        while self._waiting and len(self._running) < self._lanes:
            # Who has just got an answer may ask again: a lane that is free now waits for them too.
            waits = time.monotonic() - max(self._waiting[0].since, self._freed)
            if self._running and self._characters < self._share() and waits < GATHER_SECONDS:
                self._start_later(GATHER_SECONDS - waits)
                return
            task = self._loop.create_task(self._run(self._take(self._share())))
            self._running.add(task)

    def _start_later(self, delay: float) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._start()

    def _take(self, most: int) -> list[Piece]:
        """The next batch: the piece that waits longest, and others of its input type; those given up are dropped.

        Args:
            most: characters, where the first piece does not have more.
        """
        taken: list[Piece] = []
        left: deque[Piece] = deque()
        characters = 0
        while self._waiting:
            piece = self._waiting.popleft()
            fits = not taken or (
                piece.input_type == taken[0].input_type and characters + piece.characters <= most
            )
            if not piece.answer.done() and not fits:
                left.append(piece)
                continue
            self._characters -= piece.characters
            if not piece.answer.done():
                taken.append(piece)
                characters += piece.characters
        self._waiting = left
        self._computed += characters
        return taken

    async def _run(self, pieces: list[Piece]) -> None:
        started = time.monotonic()
        try:
            if pieces:
                work = self._loop.run_in_executor(self._executor, embed_each, self._embedder, pieces)
                for piece, outcome in zip(pieces, await work, strict=True):
                    _give(piece, outcome)
                self._seen(pieces, time.monotonic() - started)
        except Exception as error:
            for piece in pieces:
                _give(piece, error)
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._running.discard(task)
            self._answered = sum(piece.characters for piece in pieces)
            self._computed -= self._answered
            self._freed = time.monotonic()
            self._start()

    def _seen(self, pieces: list[Piece], seconds: float) -> None:
        characters = sum(piece.characters for piece in pieces)
        # A slowly moving mean of what a lane gets done, for Retry-After.
        self._rate += 0.2 * (self._lanes * characters / max(seconds, 1e-4) - self._rate)
        self._rate = max(self._rate, 1.0)
        self._observe(len(pieces), sum(len(piece.texts) for piece in pieces), seconds)


def embed_each(embedder: Embedder, pieces: Sequence[Piece]) -> list[Embeddings | Exception]:
    """Embed the texts of several pieces in one call; only the piece that is to blame gets an error.

    Args:
        embedder: the model.
        pieces: of one input type.

    Returns:
        For each piece, in order, its embeddings or why there are none.
    """
    texts = [text for piece in pieces for text in piece.texts]
    try:
        embeddings = embedder.embed(texts, pieces[0].input_type)
    except Exception as error:
        if len(pieces) == 1 or isinstance(error, TransientError | ModelLoadError):
            return [error] * len(pieces)
        middle = len(pieces) // 2
        return embed_each(embedder, pieces[:middle]) + embed_each(embedder, pieces[middle:])
    if len(pieces) == 1:
        return [embeddings]
    outcomes: list[Embeddings | Exception] = []
    start = 0
    for piece in pieces:
        end = start + len(piece.texts)
        outcomes.append(embeddings.slice(start, end))
        start = end
    return outcomes


def _give_up(pieces: Sequence[Piece], timeout: float) -> None:
    """End the wait of a request: the piece that it waits for gets an error, those behind it are dropped."""
    left = [piece.answer for piece in pieces if not piece.answer.done()]
    for number, answer in enumerate(left):
        if number:
            answer.cancel()
        else:
            answer.set_exception(InferenceError(f"Request timed out after [{timeout:g}s]", status=408))


def _give(piece: Piece, outcome: Embeddings | Exception) -> None:
    if piece.answer.done():
        return
    if isinstance(outcome, Exception):
        piece.answer.set_exception(outcome)
    else:
        piece.answer.set_result(outcome)


def _joined(parts: Sequence[Embeddings]) -> Embeddings:
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], DenseEmbeddings):
        return DenseEmbeddings.concat([part for part in parts if isinstance(part, DenseEmbeddings)])
    return SparseEmbeddings.concat([part for part in parts if isinstance(part, SparseEmbeddings)])
