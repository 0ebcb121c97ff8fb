"""Learned sparse embeddings (SPLADE and its kin) from a model that runs here."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from models.architectures.packed import Encoder, PackedBatch
from models.embeddings import InputType, SparseEmbeddings
from models.engine import Engine
from models.tokens import Tokens
from models.workers import Workers

if TYPE_CHECKING:
    import torch


class SparseRows(NamedTuple):
    """The sparse embeddings of one batch.

    Attributes:
        counts: int64 [texts]; entries of each text.
        token_ids: int32 [entries].
        weights: float32 [entries]; descending within a text.
    """

    counts: npt.NDArray[np.int64]
    token_ids: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]


class VocabularyHead:
    """The masked-LM head, max-pooled over each text."""

    def __init__(
        self,
        weights: "Mapping[str, torch.Tensor]",
        epsilon: float,
        special_ids: npt.NDArray[np.int64],
        activation: str,
    ) -> None:
        """Lay out the head.

        Args:
            weights: ``dense``, ``dense_bias``, ``norm``, ``norm_bias``, ``decoder`` [vocabulary, hidden] and
                ``decoder_bias``.
            epsilon: of the layer norm.
            special_ids: tokens that never get a weight.
            activation: ``log1p_relu`` or ``log1p_log1p_relu``.
        """
        self._weights = weights
        self._epsilon = epsilon
        self._special = special_ids
        self._twice = activation == "log1p_log1p_relu"

    def forward(self, hidden: "torch.Tensor", batch: PackedBatch) -> SparseRows:
        """Turn the hidden states of a batch into sparse rows."""
        import torch

        transformed = self._transform(hidden)
        decoder, bias = self._weights["decoder"], self._weights["decoder_bias"]
        best = torch.empty((len(batch.lengths), len(bias)), dtype=transformed.dtype, device=hidden.device)
        row = 0
        for group in batch.groups():
            states = transformed[group.tokens]
            for text in range(group.texts):
                logits = states[text * group.length : (text + 1) * group.length] @ decoder.T
                torch.amax(logits, 0, out=best[row])
                row += 1
        # The bias is the same for all tokens of a column, and the activation grows with its input: both can
        # wait until one row a text is left.
        best = torch.log1p(torch.relu_(best.float() + bias.float()))
        if self._twice:
            best = torch.log1p(best)
        best[:, torch.from_numpy(self._special).to(best.device)] = 0
        return _sparsify(best)

    def _transform(self, hidden: "torch.Tensor") -> "torch.Tensor":
        import torch.nn.functional as F

        weights = self._weights
        inner = F.gelu(F.linear(hidden, weights["dense"], weights["dense_bias"]))
        return F.layer_norm(inner, (inner.shape[1],), weights["norm"], weights["norm_bias"], self._epsilon)


def _sparsify(values: "torch.Tensor") -> SparseRows:
    """Keep the positive entries [texts, vocabulary], sorted by descending weight within each text."""
    entries = values.nonzero(as_tuple=True)
    weights = values[entries].cpu().numpy()
    rows, token_ids = (part.cpu().numpy() for part in entries)
    order = np.lexsort((token_ids, -weights, rows))
    counts = np.bincount(rows, minlength=len(values)).astype(np.int64)
    return SparseRows(counts, token_ids[order].astype(np.int32), weights[order])


class SparseEmbedder:
    """A loaded sparse model. Safe to call from several threads."""

    def __init__(
        self,
        encoder: Encoder,
        head: VocabularyHead,
        tokens: Tokens,
        workers: Workers,
        *,
        device: str = "cpu",
        token_budget: int = 1024,
    ) -> None:
        """Build an embedder around an encoder.

        Args:
            encoder: computes hidden states.
            head: turns them into sparse rows.
            tokens: the model's tokenizer.
            workers: the copies to compute on.
            device: where the model is.
            token_budget: tokens of one batch.
        """
        self._tokens = tokens
        self._workers = workers
        self._vocabulary = tokens.vocabulary()
        self._engine: Engine[SparseRows] = Engine(
            tokens, lambda batch: head.forward(encoder.forward(batch), batch), workers, device, token_budget
        )

    def embed(self, texts: Sequence[str], input_type: InputType) -> SparseEmbeddings:
        """Embed `texts` in order; see `models.embeddings.Embedder`."""
        is_truncated = np.zeros(len(texts), np.bool_)
        tokens = np.zeros(len(texts), np.int32)
        order: list[npt.NDArray[np.intp]] = [np.zeros(0, np.intp)]
        found = [SparseRows(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))]
        for rows, tokenized, parts in self._engine.run(texts):
            tokens[rows], is_truncated[rows] = tokenized.lengths, tokenized.is_truncated
            order += [rows[batch_rows] for batch_rows, _ in parts]
            found += [batch for _, batch in parts]
        counts, token_ids, weights = (np.concatenate(part) for part in zip(*found, strict=True))
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        computed = SparseEmbeddings(indptr, token_ids, weights, self._vocabulary, is_truncated, tokens)
        # `computed` lies in the order of the batches; its flags do not, and are set again afterwards.
        back = np.argsort(np.concatenate(order))
        sorted_rows = computed.take(back)
        return SparseEmbeddings(
            sorted_rows.indptr,
            sorted_rows.token_ids,
            sorted_rows.weights,
            self._vocabulary,
            is_truncated,
            tokens,
        )

    def count_tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """Count each text's tokens before truncation, special tokens included."""
        return self._tokens.count(texts)

    def close(self) -> None:
        """Stop the copies."""
        self._workers.close()
