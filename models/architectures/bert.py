"""BERT, MiniLM, RoBERTa, XLM-RoBERTa and DistilBERT: learned positions, layer norm after each sublayer."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.architectures.packed import PackedBatch
from models.errors import ModelLoadError

if TYPE_CHECKING:
    import torch

    Pair = tuple[torch.Tensor, torch.Tensor]

MODEL_TYPES = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert")
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")

# Checkpoints of other families, and very old ones, under BERT's names.
_RENAMED = [
    (r"^(bert|roberta|distilbert|camembert|model)\.", ""),
    (r"LayerNorm\.gamma$", "LayerNorm.weight"),
    (r"LayerNorm\.beta$", "LayerNorm.bias"),
    (r"^transformer\.layer\.", "encoder.layer."),
    (r"\.attention\.q_lin\.", ".attention.self.query."),
    (r"\.attention\.k_lin\.", ".attention.self.key."),
    (r"\.attention\.v_lin\.", ".attention.self.value."),
    (r"\.attention\.out_lin\.", ".attention.output.dense."),
    (r"\.sa_layer_norm\.", ".attention.output.LayerNorm."),
    (r"\.ffn\.lin1\.", ".intermediate.dense."),
    (r"\.ffn\.lin2\.", ".output.dense."),
    (r"\.output_layer_norm\.", ".output.LayerNorm."),
    (r"^(vocab_transform|lm_head\.dense)\.", "cls.predictions.transform.dense."),
    (r"^(vocab_layer_norm|lm_head\.layer_norm)\.", "cls.predictions.transform.LayerNorm."),
    (r"^(vocab_projector|lm_head\.decoder)\.weight$", "cls.predictions.decoder.weight"),
    (r"^(vocab_projector|lm_head|lm_head\.decoder|cls\.predictions\.decoder)\.bias$", "cls.predictions.bias"),
]
_CONFIG_NAMES = {
    "hidden_size": "dim",
    "num_attention_heads": "n_heads",
    "num_hidden_layers": "n_layers",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
}


def plain_name(name: str) -> str:
    """Return the name that BERT gives a tensor of any of these families."""
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def setting(config: Mapping[str, Any], name: str) -> Any:
    """Look up a setting by BERT's name; DistilBERT has names of its own."""
    return config.get(name, config.get(_CONFIG_NAMES.get(name, name)))


@dataclass(frozen=True)
class Layer:
    """One layer's weights, (weight, bias) each; query, key and value in one matrix."""

    qkv: "Pair"
    out: "Pair"
    norm1: "Pair"
    up: "Pair"
    down: "Pair"
    norm2: "Pair"


@dataclass(frozen=True)
class BertWeights:
    """An encoder's weights and shape.

    Attributes:
        words: word embeddings [vocabulary, hidden].
        positions: position embeddings, the first token type's added [positions, hidden].
        norm: of the embeddings.
        layers: first to last.
        heads: attention heads.
        epsilon: of the layer norms.
        activation: of the feed-forward layers.
    """

    words: "torch.Tensor"
    positions: "torch.Tensor"
    norm: "Pair"
    layers: list[Layer]
    heads: int
    epsilon: float
    activation: str

    def embed(self, batch: PackedBatch) -> "torch.Tensor":
        """Sum word, position and type embeddings [tokens, hidden], not yet normalized."""
        import torch

        device = batch.ids.device
        positions = torch.cat([torch.arange(length, device=device) for length in batch.lengths])
        hidden = self.words[batch.ids]
        hidden += self.positions[positions]
        return hidden


def read_weights(tensors: "Mapping[str, torch.Tensor]", config: Mapping[str, Any]) -> BertWeights:
    """Find an encoder's weights in a checkpoint.

    Args:
        tensors: the checkpoint's tensors, already of the dtype and on the device to compute with.
        config: the checkpoint's ``config.json``.

    Raises:
        ModelLoadError: a tensor is missing.
    """
    weights = _Tensors(tensors)
    positions = weights["embeddings.position_embeddings.weight"]
    if "roberta" in config["model_type"] or config["model_type"] == "camembert":
        positions = positions[int(config.get("pad_token_id", 1)) + 1 :]  # theirs start behind the padding id
    if "embeddings.token_type_embeddings.weight" in weights:
        positions = positions + weights["embeddings.token_type_embeddings.weight"][0]
    return BertWeights(
        words=weights["embeddings.word_embeddings.weight"],
        positions=positions,
        norm=weights.pair("embeddings.LayerNorm"),
        layers=[
            _layer(weights, f"encoder.layer.{i}.") for i in range(int(setting(config, "num_hidden_layers")))
        ],
        heads=int(setting(config, "num_attention_heads")),
        epsilon=float(config.get("layer_norm_eps", 1e-12)),
        activation=str(setting(config, "hidden_act")),
    )


def _layer(weights: "_Tensors", prefix: str) -> Layer:
    import torch

    projections = [weights.pair(f"{prefix}attention.self.{name}") for name in ("query", "key", "value")]
    return Layer(
        qkv=(torch.cat([weight for weight, _ in projections]), torch.cat([bias for _, bias in projections])),
        out=weights.pair(f"{prefix}attention.output.dense"),
        norm1=weights.pair(f"{prefix}attention.output.LayerNorm"),
        up=weights.pair(f"{prefix}intermediate.dense"),
        down=weights.pair(f"{prefix}output.dense"),
        norm2=weights.pair(f"{prefix}output.LayerNorm"),
    )


class _Tensors:
    """A checkpoint's tensors under BERT's names."""

    def __init__(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        self._tensors = {plain_name(name): tensor for name, tensor in tensors.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> "torch.Tensor":
        try:
            return self._tensors[name]
        except KeyError:
            raise ModelLoadError(f"The checkpoint has no tensor [{name}]; is it complete?") from None

    def pair(self, name: str) -> "Pair":
        return self[f"{name}.weight"], self[f"{name}.bias"]


class BertEncoder:
    """The forward pass in PyTorch, on any device and in any dtype; no padding anywhere."""

    def __init__(self, weights: BertWeights) -> None:
        """Use `weights`."""
        self._weights = weights

    def forward(self, batch: PackedBatch) -> "torch.Tensor":
        """Return the last hidden states [tokens, hidden]."""
        import torch.nn.functional as F

        w = self._weights
        activate = activation(w.activation)
        hidden = w.embed(batch)
        shape = (hidden.shape[1],)
        hidden = F.layer_norm(hidden, shape, *w.norm, w.epsilon)
        for layer in w.layers:
            attended = self._attend(batch, F.linear(hidden, *layer.qkv))
            hidden = F.layer_norm(hidden.add_(F.linear(attended, *layer.out)), shape, *layer.norm1, w.epsilon)
            inner = activate(F.linear(hidden, *layer.up))
            hidden = F.layer_norm(hidden.add_(F.linear(inner, *layer.down)), shape, *layer.norm2, w.epsilon)
        return hidden

    def _attend(self, batch: PackedBatch, qkv: "torch.Tensor") -> "torch.Tensor":
        import torch

        heads = self._weights.heads
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


def activation(name: str) -> Any:
    """Return the activation function of a feed-forward layer.

    Args:
        name: one of `ACTIVATIONS`.
    """
    import torch.nn.functional as F

    if name == "relu":
        return F.relu
    approximate = "none" if name == "gelu" else "tanh"
    return lambda inner: F.gelu(inner, approximate=approximate)
