"""Texts through a model: tokenise, batch, compute, while the next texts are tokenised."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from models.embeddings import OnBatch, Span
from models.errors import InferenceError
from models.local.engine.batching import TokenBatch, TokenizedTexts, gather, plan_batches
from models.local.engine.spans import with_spans
from models.local.engine.workers import Workers

_log = logging.getLogger(__name__)
_SLICE_CHARACTERS = 1 << 18
"""Tokenised at once: long enough for like lengths to meet, short enough to start soon."""

_CHARACTERS_A_TOKEN = 16
"""A slice has at least so many characters for each token of a batch: enough text for three or four full batches."""

Output = TypeVar("Output")
Rows = npt.NDArray[np.intp]


class Encode(Protocol):
    """A model's tokenizer; see `models.local.tokens.Tokens.encode`."""

    def __call__(self, texts: Sequence[str], offsets: bool = False) -> TokenizedTexts:
        """Give the token ids of texts, and where their tokens are."""
        ...


class Engine(Generic[Output]):
    """Runs batches of packed texts on the copies of one model. Safe to call from several threads."""

    def __init__(
        self,
        encode: Encode,
        workers: Workers,
        device: str,
        token_budget: int,
    ) -> None:
        """Put an engine together.

        Args:
            encode: the model's tokenizer: texts in, their token ids out.
            workers: the copies to compute on.
            device: where the model is, for messages.
            token_budget: tokens of one batch.
        """
        self._encode = encode
        self._workers = workers
        self._device = device
        self.token_budget = token_budget

    def run(
        self,
        texts: Sequence[str],
        compute: Callable[[TokenBatch], Output],
        prefix: str = "",
        on_batch: OnBatch | None = None,
        spans: Sequence[Sequence[Span]] | None = None,
    ) -> "Iterator[tuple[Rows, TokenizedTexts, list[tuple[Rows, Output]]]]":
        """Embed `texts`.

        Args:
            texts: what to embed.
            compute: the model: one batch in, embeddings in the order of its texts out.
            prefix: put before each text.
            on_batch: told of every batch that is computed.
            spans: the parts of each text that get an embedding each; None gives every text one.

        Yields:
            For each slice of the texts: which texts, their tokens, and for each batch of the slice its rows in the
            slice and the model's output for them.
        """
        pending: list[tuple[Rows, TokenizedTexts, list[Future[list[tuple[Rows, Output]]]]]] = []
        try:
            # All slices are handed over before the first result is awaited: the workers compute meanwhile.
            for rows in slices(texts, max(_SLICE_CHARACTERS, self.token_budget * _CHARACTERS_A_TOKEN)):
                inputs = [prefix + texts[row] for row in rows]
                if spans is None:
                    tokenized = self._encode(inputs)
                else:
                    tokenized = with_spans(
                        self._encode(inputs, True), [spans[row] for row in rows], len(prefix)
                    )
                batches = plan_batches(tokenized.lengths, self.token_budget)
                starts = tokenized.starts()
                futures = [
                    self._workers.submit(self._run_batch, compute, tokenized, starts, batch, on_batch)
                    for batch in batches
                ]
                pending.append((rows, tokenized, futures))
            for rows, tokenized, futures in pending:
                yield rows, tokenized, [part for future in futures for part in future.result()]
        finally:
            for _, _, futures in pending:
                for future in futures:
                    future.cancel()

    def _run_batch(
        self,
        compute: Callable[[TokenBatch], Output],
        tokenized: TokenizedTexts,
        starts: npt.NDArray[np.int64],
        rows: Rows,
        on_batch: OnBatch | None,
    ) -> list[tuple[Rows, Output]]:
        """Compute one batch; one that does not fit into memory is halved until it does."""
        lengths = tokenized.lengths[rows].astype(np.int64)
        spans = None if tokenized.spans is None else tokenized.spans.within(rows, lengths)
        try:
            computed = compute(TokenBatch(gather(tokenized.ids, starts, lengths, rows), lengths, spans))
        except MemoryError as error:
            if len(rows) == 1:
                raise InferenceError(
                    f"Out of memory on [{self._device}] with one text of {lengths[0]} tokens; use a device with"
                    " more memory, or a smaller max_chunk_size",
                    status=507,
                ) from error
            self._shrink(int(lengths.sum()))
        else:
            if on_batch is not None:
                on_batch(len(rows) if spans is None else len(spans), int(lengths.sum()))
            return [(rows, computed)]
        middle = (len(rows) + 1) // 2
        first = self._run_batch(compute, tokenized, starts, rows[:middle], on_batch)
        return first + self._run_batch(compute, tokenized, starts, rows[middle:], on_batch)

    def _shrink(self, failed: int) -> None:
        smaller = max(1, failed // 2)
        if smaller < self.token_budget:
            _log.warning(
                "Out of memory on %s with %d tokens in a batch; going on with at most %d",
                self._device,
                failed,
                smaller,
            )
            self.token_budget = smaller


def slices(texts: Sequence[str], characters: int) -> Iterator[Rows]:
    """Split texts into slices of about `characters`, none of them a small rest, longest texts first.

    Characters are counted, since tokens are not known yet.
    """
    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    order = np.argsort(-sizes, kind="stable")
    ends = np.cumsum(sizes[order])
    count = max(1, round(int(ends[-1]) / characters)) if len(ends) else 1
    # A text belongs to the slice in which it ends; a very long one passes over the numbers of several.
    slice_of = (ends - 1) * count // max(1, int(ends[-1])) if len(ends) else ends
    for rows in np.split(order, np.flatnonzero(np.diff(slice_of)) + 1):
        if len(rows):
            yield rows
