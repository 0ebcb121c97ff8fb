"""BERT, MiniLM, XLM-RoBERTa and their kin: encoders with learned positions and post-layer norm."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from models.architectures.packed import PackedBatch
from models.errors import ModelLoadError

if TYPE_CHECKING:
    import torch

MODEL_TYPES = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert")


class BertEncoder:
    """The encoder, with its weights laid out for the forward pass."""

    def __init__(self, tensors: "Mapping[str, torch.Tensor]", config: Mapping[str, Any]) -> None:
        """Lay out the weights.

        Args:
            tensors: the checkpoint's tensors, already of the dtype and on the device to compute with.
            config: the checkpoint's ``config.json``.
        """
        self._heads = int(config["num_attention_heads"])
        self._epsilon = float(config.get("layer_norm_eps", 1e-12))
        weights = _Names(tensors)
        self._first_position = (
            int(config.get("pad_token_id", 1)) + 1 if "roberta" in config["model_type"] else 0
        )
        self._words = weights["embeddings.word_embeddings.weight"]
        self._positions = weights["embeddings.position_embeddings.weight"]
        self._types = weights["embeddings.token_type_embeddings.weight"]
        self._embedding_norm = weights.norm("embeddings.LayerNorm")
        self._layers = [
            _Layer(weights, f"encoder.layer.{i}.") for i in range(int(config["num_hidden_layers"]))
        ]

    def forward(self, batch: PackedBatch) -> "torch.Tensor":
        """Return the last hidden states [tokens, hidden]."""
        import torch
        import torch.nn.functional as F

        positions = (
            torch.cat([torch.arange(length, device=batch.ids.device) for length in batch.lengths])
            + self._first_position
        )
        hidden = self._words[batch.ids] + self._positions[positions] + self._types[0]
        width = hidden.shape[1]
        hidden = F.layer_norm(hidden, (width,), *self._embedding_norm, self._epsilon)
        for layer in self._layers:
            attended = self._attend(batch, F.linear(hidden, *layer.qkv))
            hidden = F.layer_norm(
                hidden + F.linear(attended, *layer.out), (width,), *layer.norm1, self._epsilon
            )
            inner = F.gelu(F.linear(hidden, *layer.up))
            hidden = F.layer_norm(
                hidden + F.linear(inner, *layer.down), (width,), *layer.norm2, self._epsilon
            )
        return hidden

    def _attend(self, batch: PackedBatch, qkv: "torch.Tensor") -> "torch.Tensor":
        import torch
        import torch.nn.functional as F

        width = qkv.shape[1] // 3
        parts = []
        for group in batch.groups():
            shape = (group.texts, group.length, 3, self._heads, width // self._heads)
            query, key, value = qkv[group.tokens].view(shape).permute(2, 0, 3, 1, 4)
            out = F.scaled_dot_product_attention(query, key, value)
            parts.append(out.transpose(1, 2).reshape(-1, width))
        return torch.cat(parts)


class _Layer:
    """One layer's weights, (weight, bias) each."""

    def __init__(self, weights: "_Names", prefix: str) -> None:
        import torch

        projections = [weights.linear(f"{prefix}attention.self.{name}") for name in ("query", "key", "value")]
        self.qkv = tuple(torch.cat(parts) for parts in zip(*projections, strict=True))
        self.out = weights.linear(f"{prefix}attention.output.dense")
        self.norm1 = weights.norm(f"{prefix}attention.output.LayerNorm")
        self.up = weights.linear(f"{prefix}intermediate.dense")
        self.down = weights.linear(f"{prefix}output.dense")
        self.norm2 = weights.norm(f"{prefix}output.LayerNorm")


class _Names:
    """Tensors by the names that BERT gives them, without the model's own prefix."""

    def __init__(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        self._tensors = {plain_name(name): tensor for name, tensor in tensors.items()}

    def __getitem__(self, name: str) -> "torch.Tensor":
        try:
            return self._tensors[name]
        except KeyError:
            raise ModelLoadError(f"The checkpoint has no tensor [{name}]; is it a BERT model?") from None

    def linear(self, name: str) -> "tuple[torch.Tensor, torch.Tensor]":
        return self[f"{name}.weight"], self[f"{name}.bias"]

    def norm(self, name: str) -> "tuple[torch.Tensor, torch.Tensor]":
        return self[f"{name}.weight"], self[f"{name}.bias"]


def plain_name(name: str) -> str:
    """Strip the model's own prefix from a tensor's name, and spell the oldest names as today."""
    name = re.sub(r"^(bert|roberta|model|distilbert)\.", "", name)
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
