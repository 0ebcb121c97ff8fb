"""BERT's forward pass and the masked-LM head in PyTorch: on any device, in any dtype, without padding."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.local.architectures.bert import Array, BertWeights, HeadWeights, Pair
from models.local.architectures.packed import PackedBatch
from models.local.sparse import SparseRows, sort_rows

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
        hidden += self._positions[batch.positions()]
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
        import torch

        heads = self._heads
        width = qkv.shape[1] // 3
        if qkv.is_cuda and qkv.dtype != torch.float32:
            return _attend_unpadded(batch, qkv.view(len(qkv), 3, heads, width // heads)).reshape(-1, width)
        parts = []
        for group in batch.groups():
            shape = (group.texts, group.length, 3, heads, width // heads)
            query, key, value = qkv[group.tokens].view(shape).permute(2, 0, 3, 1, 4)
            out = torch.nn.functional.scaled_dot_product_attention(query, key, value)
            parts.append(out.transpose(1, 2).reshape(-1, width))
        return torch.cat(parts)


def _attend_unpadded(batch: PackedBatch, qkv: "torch.Tensor") -> "torch.Tensor":
    """Attend within each text in one kernel for texts of any lengths (CUDA, half precision)."""
    import torch
    import torch.nn.functional as F

    ends = batch.ends()
    query, key, value = qkv.unbind(1)
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # older torch: its jagged tensors reach the same kernel with more bookkeeping
        jagged = torch.nested.nested_tensor_from_jagged
        query, key, value = (jagged(part, ends).transpose(1, 2) for part in (query, key, value))
        values: torch.Tensor = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).values()
        return values
    longest = max(batch.lengths)
    attended = varlen_attn(query, key, value, ends, ends, longest, longest)
    assert isinstance(attended, torch.Tensor)
    return attended


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
        import torch

        decoder = self._decoder
        best = hidden.new_empty((len(batch.lengths), len(decoder)))
        limit = CPU_LOGITS if hidden.device.type == "cpu" else GPU_LOGITS
        first = 0
        for group in batch.groups():
            states = hidden[group.tokens]
            if not len(states):
                best[first:] = float("-inf")  # texts without tokens, which come last
                break
            columns = max(1, limit // len(states))
            for start in range(0, len(decoder), columns):
                logits = states @ decoder[start : start + columns].T
                grouped = logits.view(group.texts, group.length, -1)
                torch.amax(grouped, 1, out=best[first : first + group.texts, start : start + columns])
            first += group.texts
        return best


def sparsify(values: "torch.Tensor") -> SparseRows:
    """Keep the positive entries [texts, vocabulary], sorted by descending weight within each text."""
    entries = values.nonzero(as_tuple=True)
    weights = values[entries].cpu().numpy()
    rows, token_ids = (part.cpu().numpy() for part in entries)
    return sort_rows(rows, token_ids, weights, len(values))


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
