"""Dense embeddings from a model that runs here."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.architectures.packed import Encoder, PackedBatch
from models.embeddings import DenseEmbeddings, InputType
from models.engine import Engine
from models.tokens import Tokens
from models.vectors import encode_elements, normalize, shorten
from models.workers import Workers

if TYPE_CHECKING:
    import torch


class DenseEmbedder:
    """A loaded dense model. Safe to call from several threads."""

    def __init__(
        self,
        encoder_for: Callable[[str], Encoder],
        tokens: Tokens,
        *,
        workers: Workers,
        pooling: str,
        unit: bool,
        prefixes: Mapping[str, str],
        dimensions: int | None = None,
        element_type: str = "float",
        similarity: str = "cosine",
        device: str = "cpu",
        token_budget: int = 1024,
    ) -> None:
        """Build an embedder around an encoder.

        Args:
            encoder_for: gives the encoder for an input type: a model with adapters has several.
            tokens: the model's tokenizer.
            workers: the copies to compute on.
            pooling: ``mean``, ``cls`` or ``last``.
            unit: scale embeddings to length 1.
            prefixes: input type -> text put before each input.
            dimensions: cut embeddings to this length; None keeps the model's.
            element_type: ``float``, ``byte`` or ``bit``.
            similarity: decides how bytes are scaled.
            device: where the encoders are.
            token_budget: tokens of one batch.
        """
        self._tokens = tokens
        self._workers = workers
        self._prefixes = prefixes
        self._dimensions = dimensions
        self._unit = unit
        self._element_type = element_type
        self._similarity = similarity
        self._encoder_for = encoder_for
        self._pool = POOLINGS[pooling]
        self._engine: Engine[npt.NDArray[np.float32]] = Engine(tokens, workers, device, token_budget)

    def embed(self, texts: Sequence[str], input_type: InputType) -> DenseEmbeddings:
        """Embed `texts` in order; see `models.embeddings.Embedder`."""
        prefix = self._prefixes.get(input_type, "")
        encoder, pool = self._encoder_for(input_type), self._pool

        def compute(batch: PackedBatch) -> npt.NDArray[np.float32]:
            return pool(encoder.forward(batch), batch)

        values: npt.NDArray[np.float32] | None = None
        is_truncated = np.zeros(len(texts), np.bool_)
        tokens = np.zeros(len(texts), np.int32)
        for rows, tokenized, parts in self._engine.run(texts, compute, prefix):
            tokens[rows], is_truncated[rows] = tokenized.lengths, tokenized.is_truncated
            for batch_rows, pooled in parts:
                if values is None:
                    values = np.empty((len(texts), pooled.shape[1]), np.float32)
                values[rows[batch_rows]] = pooled
        if values is None:
            values = np.empty((0, self._dimensions or 0), np.float32)
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


def _pool_mean(hidden: "torch.Tensor", batch: PackedBatch) -> npt.NDArray[np.float32]:
    return _pool(hidden, batch, lambda states: states.mean(1))


def _pool_first(hidden: "torch.Tensor", batch: PackedBatch) -> npt.NDArray[np.float32]:
    return _pool(hidden, batch, lambda states: states[:, 0])


def _pool_last(hidden: "torch.Tensor", batch: PackedBatch) -> npt.NDArray[np.float32]:
    return _pool(hidden, batch, lambda states: states[:, -1])


def _pool(
    hidden: "torch.Tensor", batch: PackedBatch, reduce: "Callable[[torch.Tensor], torch.Tensor]"
) -> npt.NDArray[np.float32]:
    """Reduce each text's hidden states [texts, length, hidden] to one row, in float32."""
    import torch

    parts = [
        reduce(hidden[group.tokens].view(group.texts, group.length, -1).float()) for group in batch.groups()
    ]
    pooled: npt.NDArray[np.float32] = torch.cat(parts).cpu().numpy()
    return pooled


POOLINGS = {"mean": _pool_mean, "cls": _pool_first, "last": _pool_last}
