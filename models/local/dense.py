"""Dense embeddings from a model that runs here."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from models.embeddings import DenseEmbeddings, Embedder, InputType, OnBatch, Span
from models.errors import InferenceError
from models.local.engine.batching import TokenBatch, ranges
from models.local.engine.run import Engine
from models.local.engine.workers import Workers
from models.local.tokens import Tokens
from models.local.vectors import encode_elements, must_be_finite, normalize, shorten

Compute = Callable[[TokenBatch], npt.NDArray[np.float32]]
"""A model: one batch in, the pooled hidden states of its texts, or of its spans, out [embeddings, hidden]."""


class DenseEmbedder(Embedder):
    """A loaded dense model. Safe to call from several threads."""

    def __init__(
        self,
        model_for: Callable[[str], Compute],
        tokens: Tokens,
        *,
        workers: Workers,
        unit: bool,
        prefixes: Mapping[str, str],
        dimensions: int | None = None,
        element_type: str = "float",
        similarity: str = "cosine",
        device: str = "cpu",
        token_budget: int = 1024,
    ) -> None:
        """Build an embedder around a model.

        Args:
            model_for: gives the model for an input type: one with adapters is several.
            tokens: the model's tokenizer.
            workers: the copies to compute on.
            unit: scale embeddings to length 1.
            prefixes: input type -> text put before each input.
            dimensions: cut embeddings to this length; None keeps the model's.
            element_type: ``float``, ``byte`` or ``bit``.
            similarity: decides how bytes are scaled.
            device: where the model is.
            token_budget: tokens of one batch.
        """
        self.device = device
        self._tokens = tokens
        self._workers = workers
        self._prefixes = prefixes
        self._dimensions = dimensions
        self._unit = unit
        self._element_type = element_type
        self._similarity = similarity
        self._model_for = model_for
        self._engine: Engine[npt.NDArray[np.float32]] = Engine(tokens.encode, workers, device, token_budget)

    def embed(
        self, texts: Sequence[str], input_type: InputType, on_batch: OnBatch | None = None
    ) -> DenseEmbeddings:
        """Embed `texts` in order; see `models.embeddings.Embedder`."""
        return self._embed(texts, input_type, on_batch)

    def embed_spans(
        self, texts: Sequence[str], spans: Sequence[Sequence[Span]], on_batch: OnBatch | None = None
    ) -> DenseEmbeddings:
        """Embed parts of documents within their surroundings; see `models.embeddings.Embedder`.

        A token that lies in two parts counts in the `tokens` of both.
        """
        return self._embed(texts, "ingest", on_batch, spans)

    def _embed(
        self,
        texts: Sequence[str],
        input_type: InputType,
        on_batch: OnBatch | None,
        spans: Sequence[Sequence[Span]] | None = None,
    ) -> DenseEmbeddings:
        prefix = self._prefixes.get(input_type, "")
        model = self._model_for(input_type)

        def compute(batch: TokenBatch) -> npt.NDArray[np.float32]:
            if not batch.lengths.all():
                raise InferenceError(
                    "A text has nothing to embed: the model's tokenizer leaves no token of it"
                )
            return model(batch)

        places = _Places(texts, spans)
        values: npt.NDArray[np.float32] | None = None
        is_truncated = np.zeros(places.total, np.bool_)
        tokens = np.zeros(places.total, np.int32)
        for rows, tokenized, parts in self._engine.run(texts, compute, prefix, on_batch, spans):
            own, found = places.of(rows), tokenized.spans
            tokens[own] = tokenized.lengths if found is None else np.diff(found.bounds)[:, 0]
            is_truncated[own] = tokenized.is_truncated if found is None else found.is_truncated
            for batch_rows, pooled in parts:
                if values is None:  # the model's width is known with its first batch
                    values = np.empty((places.total, pooled.shape[1]), np.float32)
                values[places.of(rows[batch_rows])] = (
                    pooled  # a batch's rows in its slice -> those of `texts`
                )
        if values is None:
            values = np.empty((0, self._dimensions or 0), np.float32)
        must_be_finite(values)
        return DenseEmbeddings(self._finish(values), is_truncated, tokens)

    def _finish(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | npt.NDArray[np.int8]:
        values = shorten(normalize(values) if self._unit else values, self._dimensions, self._unit)
        return encode_elements(values, self._element_type, self._similarity)

    def count_tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """Count each text's tokens before truncation, special tokens included."""
        return self._tokens.count(texts)

    def close(self) -> None:
        """Stop the copies."""
        self._workers.close()


class _Places:
    """Where the embeddings of each text stand among all."""

    def __init__(self, texts: Sequence[str], spans: Sequence[Sequence[Span]] | None) -> None:
        self._counts = None if spans is None else np.fromiter(map(len, spans), np.int64, len(spans))
        self.total = len(texts) if self._counts is None else int(self._counts.sum())

    def of(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
        """The places of some texts' embeddings, text by text."""
        if self._counts is None:
            return rows
        return ranges((np.cumsum(self._counts) - self._counts)[rows], self._counts[rows])
