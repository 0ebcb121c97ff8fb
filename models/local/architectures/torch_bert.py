"""BERT's forward pass and the masked-LM head in PyTorch: on any device, in any dtype, without padding."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.local.architectures.attention import attend
from models.local.architectures.bert import Array, BertWeights, HeadWeights, Pair
from models.local.architectures.packed import PackedBatch, over_texts
from models.local.sparse import SparseRows

if TYPE_CHECKING:
    import torch


CPU_LOGITS, GPU_LOGITS = 1 << 22, 1 << 28
"""Logits that exist at once: 16 MB on a CPU, 512 MB in half precision on a GPU."""


class BertEncoder:
    """A transformer encoder."""

    def __init__(self, weights: BertWeights, device: str, dtype: str) -> None:
        """Put the weights on a device.

        Args:
            weights: an encoder.
            device: where to compute.
            dtype: what to compute in.
        """
        put = _Put(device, dtype)
        self._words, self._positions = put(weights.words), put(weights.positions)
        self._norm = put.pair(weights.norm)
        self._layers = [
            {name: put.pair(getattr(layer, name)) for name in ("qkv", "out", "norm1", "up", "down", "norm2")}
            for layer in weights.layers
        ]
        self._heads, self._epsilon = weights.heads, weights.epsilon
        self._activate = _activation(weights.activation)

    def forward(self, batch: PackedBatch) -> "torch.Tensor":
        """Return the last hidden states [tokens, hidden]."""
        import torch.nn.functional as F

        hidden = self._words[batch.ids]
        hidden += self._positions[batch.positions]
        shape, epsilon = (hidden.shape[1],), self._epsilon
        hidden = F.layer_norm(hidden, shape, *self._norm, epsilon)
        for layer in self._layers:
            attended = self._attend(batch, F.linear(hidden, *layer["qkv"]))
            hidden = F.layer_norm(
                hidden.add_(F.linear(attended, *layer["out"])), shape, *layer["norm1"], epsilon
            )
            inner = self._activate(F.linear(hidden, *layer["up"]))
            hidden = F.layer_norm(
                hidden.add_(F.linear(inner, *layer["down"])), shape, *layer["norm2"], epsilon
            )
        return hidden

    def _attend(self, batch: PackedBatch, qkv: "torch.Tensor") -> "torch.Tensor":
        shape = (len(qkv), 3, self._heads, qkv.shape[1] // (3 * self._heads))
        query, key, value = qkv.view(shape).unbind(1)
        return attend(batch, query, key, value).flatten(1)


class VocabularyHead:
    """A masked-LM head, max-pooled over each text."""

    def __init__(
        self, weights: HeadWeights, device: str, dtype: str, special_ids: npt.NDArray[np.int64], twice: bool
    ) -> None:
        """Put the weights on a device.

        Args:
            weights: the head.
            device: where to compute.
            dtype: what to compute in.
            special_ids: tokens that never get a weight.
            twice: take the logarithm of the weights twice.
        """
        import torch

        put = _Put(device, dtype)
        self._dense, self._norm, self._decoder = (
            put.pair(weights.dense),
            put.pair(weights.norm),
            put(weights.decoder),
        )
        self._bias = put(weights.bias).float()
        self._epsilon = weights.epsilon
        self._activate = _activation(weights.activation)
        self._special = torch.from_numpy(special_ids).to(device)
        self._twice = twice

    def forward(self, hidden: "torch.Tensor", batch: PackedBatch) -> SparseRows:
        """Turn the hidden states of a batch into sparse rows."""
        import torch

        best = self._largest(self._transform(hidden), batch)
        # The bias is the same for all tokens of a column, and the activation grows with its input: both can wait
        # until one row a text is left.
        best = torch.log1p(torch.relu_(best.float() + self._bias))
        if self._twice:
            best = torch.log1p(best)
        best[:, self._special] = 0
        return sparsify(best)

    def _transform(self, hidden: "torch.Tensor") -> "torch.Tensor":
        import torch.nn.functional as F

        inner = self._activate(F.linear(hidden, *self._dense))
        return F.layer_norm(inner, (inner.shape[1],), *self._norm, self._epsilon)

    def _largest(self, hidden: "torch.Tensor", batch: PackedBatch) -> "torch.Tensor":
        """The largest logit of each output over the tokens of each text, a block of the vocabulary at a time."""
        decoder = self._decoder
        best = hidden.new_empty((len(batch.lengths), len(decoder)))
        limit = CPU_LOGITS if hidden.device.type == "cpu" else GPU_LOGITS
        columns = max(1, limit // max(1, len(hidden)))
        for start in range(0, len(decoder), columns):
            logits = hidden @ decoder[start : start + columns].T
            best[:, start : start + columns] = over_texts(logits, batch, "max")
        return best


def sparsify(values: "torch.Tensor") -> SparseRows:
    """Keep the entries of [texts, vocabulary] that are not 0, by text, sorted by descending weight within each.

    What is not a number stays among them, for the embedder to see.
    """
    import torch

    rows, token_ids = values.nonzero(as_tuple=True)  # by row, and within a row by token
    weights = values[rows, token_ids].float()
    # Two stable sorts, the less important one first, and one copy from the device for both columns.
    order = weights.argsort(descending=True, stable=True)
    order = order[rows[order].argsort(stable=True)]
    columns = torch.stack([token_ids[order].int(), weights[order].view(torch.int32)]).cpu().numpy()
    counts = torch.bincount(rows, minlength=len(values)).cpu().numpy()
    return SparseRows(counts, columns[0], columns[1].view(np.float32))


class _Put:
    """Puts arrays on a device."""

    def __init__(self, device: str, dtype: str) -> None:
        import torch

        self._device, self._dtype = device, getattr(torch, dtype)

    def __call__(self, array: Array) -> "torch.Tensor":
        import torch

        return torch.from_numpy(array).to(self._device, self._dtype)

    def pair(self, pair: Pair) -> "tuple[torch.Tensor, torch.Tensor]":
        return self(pair[0]), self(pair[1])


def _activation(name: str) -> Any:
    """Return the activation function of a feed-forward layer.

    Args:
        name: one of `models.local.architectures.bert.ACTIVATIONS`.
    """
    import torch.nn.functional as F

    if name == "relu":
        return F.relu
    approximate = "none" if name == "gelu" else "tanh"
    return lambda inner: F.gelu(inner, approximate=approximate)
