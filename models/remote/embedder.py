"""Embeds through a service: cuts, batches, sends several batches at once, and checks what comes back."""

import contextlib
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.embeddings import DenseEmbeddings, Embedder, Embeddings, InputType, OnBatch, SparseEmbeddings
from models.errors import InferenceError
from models.remote.http import TooLargeError
from models.remote.limits import unlimited
from models.remote.protocol import Call, RemoteProtocol, Vectors
from models.remote.text import batches, cut_to_tokens, estimate_tokens, halve

BATCH_CHARACTERS = 400_000  # of one request; services bound a request's tokens too (OpenAI: 300,000)
MAX_HALVINGS = 8
CONCURRENCY = 4
_SMALLEST = 1e-45  # below, a float32 weight is 0, and Elasticsearch stores only weights above 0
SHAPE_ERRORS = (KeyError, TypeError, IndexError, ValueError, AttributeError)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold.

    Attributes:
        batch: most texts.
        max_input_tokens: texts are cut to three UTF-16 code units a token; None cuts nothing.
        dimensions: length that the embeddings must have; None takes any.
        element_type: ``float``, ``byte`` or ``bit``.
        sparse: whether the embeddings are sparse.
        cosine: whether they are compared by their direction, which a vector of zeros does not have.
        characters: most UTF-16 code units of all texts together.
    """

    batch: int
    max_input_tokens: int | None
    dimensions: int | None
    element_type: str
    sparse: bool
    cosine: bool = False
    characters: int = BATCH_CHARACTERS


@dataclass(frozen=True, slots=True)
class Revealed:
    """What a service tells of its model only when it is asked.

    Attributes:
        dimensions: length of its embeddings.
        name: the model's name in its answers; None where they hold none.
    """

    dimensions: int
    name: str | None


class RemoteEmbedder(Embedder):
    """An open connection to a service. Safe to call from several threads."""

    def __init__(
        self,
        name: str,
        protocol: RemoteProtocol,
        post: Callable[[Call, int], Any],
        limits: Limits,
        close: Callable[[], None],
        retries: "RetryCount",
        spend: Callable[[int], None] = unlimited,
    ) -> None:
        """Put the parts together.

        Args:
            name: the endpoint's id, for messages.
            protocol: builds requests and reads answers.
            post: sends a call and returns the JSON of an answer of at most so many bytes.
            limits: what a request may hold.
            close: closes the connections.
            retries: counts the requests that were tried again.
            spend: waits until a request of so many tokens may be sent.
        """
        self._name, self._protocol, self._post, self._limits = name, protocol, post, limits
        # Stages share an embedder and the last one to drop it does not know that it is the last.
        self._close = weakref.finalize(self, close)
        self._retries, self._spend = retries, spend
        self._pool = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix=f"embed-{name}")
        self._vocabulary = Vocabulary()
        self._model_name: str | None = None

    def embed(
        self, texts: Sequence[str], input_type: InputType, on_batch: OnBatch | None = None
    ) -> Embeddings:
        """See `models.embeddings.Embedder`."""
        cut = [cut_to_tokens(text, self._limits.max_input_tokens) for text in texts]
        kept = [text for text, _ in cut]

        def embed_batch(batch: slice) -> tuple[list[Any], list[bool]]:
            embedded = self._embed_batch(kept[batch], input_type)
            if on_batch is not None:
                on_batch(len(embedded[1]), 0)
            return embedded

        parts = list(self._pool.map(embed_batch, batches(kept, self._limits.batch, self._limits.characters)))
        vectors = [vector for part, _ in parts for vector in part]
        shortened = [flag for _, flags in parts for flag in flags]
        truncated = np.array([was_cut for _, was_cut in cut], np.bool_) | np.array(shortened, np.bool_)
        return self._sparse(vectors, truncated) if self._limits.sparse else self._dense(vectors, truncated)

    def count_tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """Estimate the tokens of each text: the service's tokenizer is not here."""
        return np.array([estimate_tokens(text) for text in texts], np.int32)

    def ask(self, text: str) -> Revealed:
        """Embed one text and return what the answer tells of the model, which has to be a dense one."""
        embeddings = self.embed([text], "ingest")
        assert isinstance(embeddings, DenseEmbeddings)
        dimensions = embeddings.values.shape[1] * (8 if self._limits.element_type == "bit" else 1)
        return Revealed(dimensions, self._model_name)

    def take_retries(self) -> tuple[str, int]:
        """See `models.embeddings.Embedder`."""
        return self._name, self._retries.take()

    def close(self) -> None:
        """See `models.embeddings.Embedder`."""
        self._pool.shutdown(cancel_futures=True)
        self._close()

    def _embed_batch(self, texts: Sequence[str], input_type: InputType) -> tuple[list[Any], list[bool]]:
        """Embed one batch; where the service finds it too large, in halves, and a single text cut to half."""
        try:
            return list(self._request(texts, input_type)), [False] * len(texts)
        except TooLargeError:
            if len(texts) == 1:
                return self._embed_shortened(texts[0], input_type)
        middle = len(texts) // 2
        left, right = (self._embed_batch(part, input_type) for part in (texts[:middle], texts[middle:]))
        return left[0] + right[0], left[1] + right[1]

    def _embed_shortened(self, text: str, input_type: InputType) -> tuple[list[Any], list[bool]]:
        for _ in range(MAX_HALVINGS - 1):
            text = halve(text)
            try:
                return list(self._request([text], input_type)), [True]
            except TooLargeError:
                continue
        return list(self._request([halve(text)], input_type)), [True]

    def _request(self, texts: Sequence[str], input_type: InputType) -> Vectors:
        """Send one request and take the embeddings out of the answer."""
        self._spend(sum(map(estimate_tokens, texts)))
        answer = self._post(self._protocol.call(texts, input_type), (2 << 20) + (len(texts) << 18))
        shape_problem = None
        try:
            vectors = self._protocol.parse(answer)
            count = len(vectors)
            self._model_name = _model_name(answer)
        except SHAPE_ERRORS as error:
            shape_problem = words_of(answer) or f"{type(error).__name__}: {error}"[:200]
        if shape_problem is not None:
            raise InferenceError(
                f"The answer to inference entity id [{self._name}] has not the shape of embeddings"
                f" ({shape_problem})",
                status=502,
            )
        if count != len(texts):
            raise InferenceError(
                f"Error the number of embedding responses [{count}] does not equal the number of requests"
                f" [{len(texts)}]",
                status=500,
            )
        return vectors

    def _dense(self, vectors: Sequence[Any], truncated: npt.NDArray[np.bool_]) -> DenseEmbeddings:
        values = self._array(vectors)
        expected = self._limits.dimensions
        if expected is not None and self._limits.element_type == "bit":
            expected //= 8
        if expected is not None and len(vectors) and values.shape[1] != expected:
            raise InferenceError(
                f"The retrieved embeddings size [{values.shape[1]}] does not match the size specified in the"
                f" settings [{expected}]. Please recreate the [{self._name}] configuration with the correct"
                " dimensions",
                status=400,
            )
        if self._limits.element_type != "float":
            self._check(
                np.all((values >= -128) & (values <= 127) & (values == np.rint(values))), "lists of bytes"
            )
            return DenseEmbeddings(values.astype(np.int8), truncated, np.zeros(len(vectors), np.int32))
        return DenseEmbeddings(values, truncated, np.zeros(len(vectors), np.int32))

    def _array(self, vectors: Sequence[Any]) -> npt.NDArray[np.float32]:
        """Make one array of the vectors; all must be numbers and equally long."""
        if not len(vectors):
            return np.zeros((0, self._limits.dimensions or 0), np.float32)
        values: npt.NDArray[np.float32] = np.zeros(0, np.float32)
        with contextlib.suppress(ValueError, TypeError):
            values = np.array(vectors, np.float32)
        if self._limits.cosine and values.ndim == 2:
            # Elasticsearch refuses them too: "the cosine similarity does not support vectors with zero magnitude".
            self._check(
                bool(values.any(axis=1).all()), "vectors with a direction: one is all zeros, under cosine"
            )
        self._check(
            values.ndim == 2 and values.shape[1] > 0 and bool(np.isfinite(values).all()),
            "equally long lists of numbers",
        )
        return values

    def _sparse(self, vectors: Sequence[Any], truncated: npt.NDArray[np.bool_]) -> SparseEmbeddings:
        """Sort each embedding by weight; a weight that is not above 0 is left out, as Elasticsearch does."""
        self._check(all(_is_sparse(vector) for vector in vectors), "maps of token weights")
        rows = [
            sorted(((w, t) for t, w in vector.items() if w > _SMALLEST), reverse=True) for vector in vectors
        ]
        indptr = np.cumsum([0, *map(len, rows)]).astype(np.int64)
        ids = self._vocabulary.ids([token for row in rows for _, token in row])
        weights = np.array([weight for row in rows for weight, _ in row], np.float32)
        tokens = np.zeros(len(rows), np.int32)
        return SparseEmbeddings(indptr, ids, weights, self._vocabulary.tokens, truncated, tokens)

    def _check(self, holds: bool | np.bool_, what: str) -> None:
        if not holds:
            raise InferenceError(
                f"The embeddings that inference entity id [{self._name}] got are not {what}", status=502
            )


def _model_name(answer: Any) -> str | None:
    name = answer.get("model") if isinstance(answer, dict) else None
    return name if isinstance(name, str) else None


def words_of(answer: Any) -> str | None:
    """What a service says in an answer that holds an error instead of embeddings, though its status is 200."""
    told = answer
    for name in ("error", "detail", "message", "reason"):
        if isinstance(told, dict) and told.get(name):
            told = told[name]
    return str(told)[:500] if told is not answer else None


class RetryCount:
    """Counts requests that were tried again. Safe to call from several threads."""

    def __init__(self) -> None:
        """Start at 0."""
        self._count = 0
        self._lock = threading.Lock()

    def add(self) -> None:
        """Count one more."""
        with self._lock:
            self._count += 1

    def take(self) -> int:
        """Return the count and start at 0 again."""
        with self._lock:
            count, self._count = self._count, 0
        return count


class Vocabulary:
    """The tokens of a sparse model that is elsewhere, numbered as they turn up."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self._ids: dict[str, int] = {}
        self._lock = threading.Lock()

    def ids(self, tokens: Sequence[str]) -> npt.NDArray[np.int32]:
        """Return the number of each token; new ones get the next."""
        with self._lock:
            for token in tokens:
                if token not in self._ids:
                    self._ids[token] = len(self.tokens)
                    self.tokens.append(token)
        return np.array([self._ids[token] for token in tokens], np.int32)


def _is_sparse(vector: Any) -> bool:
    return isinstance(vector, Mapping) and all(
        isinstance(weight, int | float) and np.isfinite(weight) for weight in vector.values()
    )
