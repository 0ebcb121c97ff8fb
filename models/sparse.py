"""Learned sparse embeddings (SPLADE and its kin) from a model that runs here."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.architectures import bert, native
from models.architectures.packed import PackedBatch
from models.embeddings import InputType, SparseEmbeddings
from models.engine import Engine
from models.tokens import Tokens
from models.workers import Workers

if TYPE_CHECKING:
    import torch

CPU_LOGITS, GPU_LOGITS = 1 << 22, 1 << 28
"""Logits that exist at once, where no kernel keeps them in registers: 16 MB on a CPU, 512 MB in half precision."""


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
        config: Mapping[str, Any],
        special_ids: npt.NDArray[np.int64],
        activation: str,
    ) -> None:
        """Lay out the head.

        Args:
            weights: ``dense``, ``dense_bias``, ``norm``, ``norm_bias``, ``decoder`` [vocabulary, hidden] and
                ``decoder_bias``.
            config: the checkpoint's ``config.json``.
            special_ids: tokens that never get a weight.
            activation: ``log1p_relu`` or ``log1p_log1p_relu``.
        """
        import torch

        self._weights = weights
        self._epsilon = float(config.get("layer_norm_eps", 1e-12))
        self._activate = bert.activation(str(bert.setting(config, "hidden_act")))
        decoder = weights["decoder"]
        self._special = torch.from_numpy(special_ids).to(decoder.device)
        self._twice = activation == "log1p_log1p_relu"
        found = native.kernels((decoder.shape[1],), decoder.dtype) if decoder.device.type == "cpu" else None
        self._largest = _LargestLogits(decoder) if found is None else native.LargestLogits(decoder, found)

    def forward(self, hidden: "torch.Tensor", batch: PackedBatch) -> SparseRows:
        """Turn the hidden states of a batch into sparse rows."""
        import torch

        best = self._largest(self._transform(hidden), batch)
        # The bias is the same for all tokens of a column, and the activation grows with its input: both can wait
        # until one row a text is left.
        best = torch.log1p(torch.relu_(best.float() + self._weights["decoder_bias"].float()))
        if self._twice:
            best = torch.log1p(best)
        best[:, self._special] = 0
        return sparsify(best)

    def _transform(self, hidden: "torch.Tensor") -> "torch.Tensor":
        import torch.nn.functional as F

        weights = self._weights
        hidden = hidden.to(weights["dense"].dtype)
        inner = self._activate(F.linear(hidden, weights["dense"], weights["dense_bias"]))
        return F.layer_norm(inner, (inner.shape[1],), weights["norm"], weights["norm_bias"], self._epsilon)


class _LargestLogits:
    """The largest logit of each output over the tokens of each text, a block of the vocabulary at a time."""

    def __init__(self, decoder: "torch.Tensor") -> None:
        self._decoder = decoder

    def __call__(self, hidden: "torch.Tensor", batch: PackedBatch) -> "torch.Tensor":
        import torch

        best = hidden.new_empty((len(batch.lengths), len(self._decoder)))
        limit = CPU_LOGITS if hidden.device.type == "cpu" else GPU_LOGITS
        first = 0
        for group in batch.groups():
            states = hidden[group.tokens]
            columns = max(1, limit // len(states))
            for start in range(0, len(self._decoder), columns):
                logits = states @ self._decoder[start : start + columns].T
                grouped = logits.view(group.texts, group.length, -1)
                torch.amax(grouped, 1, out=best[first : first + group.texts, start : start + columns])
            first += group.texts
        return best


def sparsify(values: "torch.Tensor") -> SparseRows:
    """Keep the positive entries [texts, vocabulary], sorted by descending weight within each text."""
    entries = values.nonzero(as_tuple=True)
    weights = values[entries].cpu().numpy()
    rows, token_ids = (part.cpu().numpy() for part in entries)
    return _sort_rows(rows, token_ids, weights, len(values))


def _sort_rows(
    rows: npt.NDArray[np.int64],
    token_ids: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float32],
    texts: int,
) -> SparseRows:
    order = np.lexsort((token_ids, -weights, rows))
    counts = np.bincount(rows, minlength=texts).astype(np.int64)
    return SparseRows(counts, token_ids[order].astype(np.int32), weights[order])


def _reorder(
    found: Sequence[SparseRows], order: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Join the rows of several batches, in another order: row pointers, token ids and weights."""
    counts, token_ids, weights = (np.concatenate(part) for part in zip(*found, strict=True))
    starts = np.cumsum(counts) - counts
    sizes = counts[order]
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    entries = np.repeat(starts[order] - indptr[:-1], sizes) + np.arange(indptr[-1])
    return indptr, token_ids[entries], weights[entries]


class SparseEmbedder:
    """A loaded sparse model. Safe to call from several threads."""

    def __init__(
        self,
        compute: Callable[[PackedBatch], SparseRows],
        tokens: Tokens,
        *,
        workers: Workers,
        device: str = "cpu",
        token_budget: int = 1024,
        idf: npt.NDArray[np.float32] | None = None,
        rename: Callable[[str], str] = str,
    ) -> None:
        """Build an embedder around a model.

        Args:
            compute: the model: one batch in, its sparse rows out.
            tokens: the model's tokenizer.
            workers: the copies to compute on.
            device: where the model is.
            token_budget: tokens of one batch.
            idf: weight of each token of a query, for models whose queries need no model.
            rename: gives a token the name that it has in the embeddings.
        """
        self._idf = idf
        self._special = tokens.special_ids()
        self._tokens = tokens
        self._workers = workers
        self._vocabulary = tuple(map(rename, tokens.vocabulary()))
        self._compute = compute
        self._engine: Engine[SparseRows] = Engine(tokens, workers, device, token_budget)

    def embed(self, texts: Sequence[str], input_type: InputType) -> SparseEmbeddings:
        """Embed `texts` in order; see `models.embeddings.Embedder`."""
        if input_type == "search" and self._idf is not None:
            return self._weigh_queries(texts, self._idf)
        is_truncated = np.zeros(len(texts), np.bool_)
        tokens = np.zeros(len(texts), np.int32)
        order: list[npt.NDArray[np.intp]] = [np.zeros(0, np.intp)]
        found = [SparseRows(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))]
        for rows, tokenized, parts in self._engine.run(texts, self._compute):
            tokens[rows], is_truncated[rows] = tokenized.lengths, tokenized.is_truncated
            order += [rows[batch_rows] for batch_rows, _ in parts]
            found += [batch for _, batch in parts]
        in_order = np.argsort(np.concatenate(order))
        indptr, token_ids, weights = _reorder(found, in_order)
        return SparseEmbeddings(indptr, token_ids, weights, self._vocabulary, is_truncated, tokens)

    def _weigh_queries(self, texts: Sequence[str], idf: npt.NDArray[np.float32]) -> SparseEmbeddings:
        """Give each distinct token of a query its weight from the table."""
        tokenized = self._tokens.encode(texts)
        rows = np.repeat(np.arange(len(texts)), tokenized.lengths)
        keys = np.unique(rows * len(idf) + tokenized.ids)
        rows, token_ids = np.divmod(keys, len(idf))
        kept = (idf[token_ids] > 0) & ~np.isin(token_ids, self._special)
        found = _sort_rows(rows[kept], token_ids[kept], idf[token_ids[kept]], len(texts))
        indptr = np.concatenate([[0], np.cumsum(found.counts)]).astype(np.int64)
        return SparseEmbeddings(
            indptr,
            found.token_ids,
            found.weights,
            self._vocabulary,
            tokenized.is_truncated,
            tokenized.lengths,
        )

    def count_tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """Count each text's tokens before truncation, special tokens included."""
        return self._tokens.count(texts)

    def close(self) -> None:
        """Stop the copies."""
        self._workers.close()
