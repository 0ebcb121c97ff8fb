"""The weights of BERT, MiniLM, RoBERTa, XLM-RoBERTa and DistilBERT: learned positions, layer norm after each sublayer.

`native` and `torch_bert`, beside this module, compute with them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import ModelLoadError

Array = npt.NDArray[np.float32]
Pair = tuple[Array, Array]

MODEL_TYPES = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert")
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")

CODE_OF_ITS_OWN = (
    "; it brings code of its own, and code from a checkpoint is never run: take a conversion of the model"
    " that transformers knows (for jina-embeddings-v3: jinaai/jina-embeddings-v3-hf), or a remote service"
)

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


def unsupported(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """Say why a checkpoint of these families cannot run here; an empty list means it can."""
    name = setting(config, "hidden_act")
    if name not in ACTIVATIONS:
        return [f"The activation [{name}] of [{folder}] is not known here"]
    positions = config.get("position_embedding_type", "absolute")
    if positions != "absolute":  # jina-v3 as its authors published it, for one
        reason = f"The positions of [{folder}] are [{positions}], and a [{config['model_type']}] here has [absolute]"
        return [reason + (CODE_OF_ITS_OWN if config.get("auto_map") else "")]
    return []


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

    qkv: Pair
    out: Pair
    norm1: Pair
    up: Pair
    down: Pair
    norm2: Pair


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

    words: Array
    positions: Array
    norm: Pair
    layers: list[Layer]
    heads: int
    epsilon: float
    activation: str


@dataclass(frozen=True)
class HeadWeights:
    """A masked-LM head.

    Attributes:
        dense: the layer between, (weight, bias).
        norm: behind it.
        decoder: [vocabulary, hidden].
        bias: [vocabulary].
        epsilon: of the layer norm.
        activation: of the layer between.
    """

    dense: Pair
    norm: Pair
    decoder: Array
    bias: Array
    epsilon: float
    activation: str


def read_weights(tensors: Mapping[str, Array], config: Mapping[str, Any]) -> BertWeights:
    """Find an encoder's weights in a checkpoint.

    Args:
        tensors: the checkpoint's tensors.
        config: the checkpoint's ``config.json``.

    Raises:
        ModelLoadError: a tensor is missing, or has another shape than the model's.
    """
    weights = Tensors(tensors)
    words = weights.get("embeddings.word_embeddings.weight", None, None)
    width, heads = words.shape[1], _count(config, "num_attention_heads")
    if width % heads:
        raise ModelLoadError(f"The checkpoint's config has {heads} attention heads for a width of {width}")
    positions = weights.get("embeddings.position_embeddings.weight", None, width)
    if "roberta" in config["model_type"] or config["model_type"] == "camembert":
        positions = positions[int(config.get("pad_token_id", 1)) + 1 :]  # theirs start behind the padding id
    if "embeddings.token_type_embeddings.weight" in weights:
        positions = positions + weights.get("embeddings.token_type_embeddings.weight", None, width)[0]
    prefixes = [f"encoder.layer.{number}." for number in range(_count(config, "num_hidden_layers"))]
    inner = len(weights.get(f"{prefixes[0]}intermediate.dense.bias", None))
    return BertWeights(
        words=words,
        positions=positions,
        norm=weights.pair("embeddings.LayerNorm", width),
        layers=[_layer(weights, prefix, width, inner) for prefix in prefixes],
        heads=heads,
        epsilon=_epsilon(config),
        activation=str(setting(config, "hidden_act")),
    )


def read_head(tensors: Mapping[str, Array], config: Mapping[str, Any], vocabulary: int) -> HeadWeights:
    """Find the masked-LM head; its decoder is tied to the word embeddings where it is not stored.

    Args:
        tensors: the checkpoint's tensors.
        config: the checkpoint's ``config.json``.
        vocabulary: tokens that the tokenizer knows. Some checkpoints have a few outputs more, which mean nothing.

    Raises:
        ModelLoadError: a tensor is missing, or has another shape than the model's.
    """
    weights = Tensors(tensors)
    if "cls.predictions.transform.dense.weight" not in weights:
        raise ModelLoadError(
            "The checkpoint has no masked-LM head: no tensor [cls.predictions.transform.dense.weight]"
        )
    width = weights.get("embeddings.word_embeddings.weight", None, None).shape[1]
    stored = "cls.predictions.decoder.weight" in weights
    name = "cls.predictions.decoder.weight" if stored else "embeddings.word_embeddings.weight"
    decoder = weights.get(name, None, width)
    return HeadWeights(
        dense=weights.pair("cls.predictions.transform.dense", width, width),
        norm=weights.pair("cls.predictions.transform.LayerNorm", width),
        decoder=decoder[:vocabulary],
        bias=weights.get("cls.predictions.bias", len(decoder))[:vocabulary],
        epsilon=_epsilon(config),
        activation=str(setting(config, "hidden_act")),
    )


def _count(config: Mapping[str, Any], name: str) -> int:
    value = setting(config, name)
    if not isinstance(value, int) or value < 1:
        raise ModelLoadError(
            f"The checkpoint's config.json has [{name}: {value}]; it must be a whole number from 1 on"
        )
    return value


def _epsilon(config: Mapping[str, Any]) -> float:
    value = config.get("layer_norm_eps", 1e-12)
    if not isinstance(value, int | float):
        raise ModelLoadError(
            f"The checkpoint's config.json has [layer_norm_eps: {value}]; it must be a number"
        )
    return float(value)


def _layer(weights: "Tensors", prefix: str, width: int, inner: int) -> Layer:
    projections = [
        weights.pair(f"{prefix}attention.self.{name}", width, width) for name in ("query", "key", "value")
    ]
    return Layer(
        qkv=(
            np.concatenate([weight for weight, _ in projections]),
            np.concatenate([bias for _, bias in projections]),
        ),
        out=weights.pair(f"{prefix}attention.output.dense", width, width),
        norm1=weights.pair(f"{prefix}attention.output.LayerNorm", width),
        up=weights.pair(f"{prefix}intermediate.dense", inner, width),
        down=weights.pair(f"{prefix}output.dense", width, inner),
        norm2=weights.pair(f"{prefix}output.LayerNorm", width),
    )


class Tensors:
    """A checkpoint's tensors under BERT's names, their shapes checked: the kernels trust them."""

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self._tensors = {plain_name(name): tensor for name, tensor in tensors.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def get(self, name: str, *shape: int | None) -> Array:
        """Return a tensor of `shape`, where None stands for any length but 0."""
        tensor = self._tensors.get(name)
        if tensor is None:
            raise ModelLoadError(f"The checkpoint has no tensor [{name}]; is it complete?")
        fits = len(tensor.shape) == len(shape) and all(
            found == wanted or (wanted is None and found)
            for found, wanted in zip(tensor.shape, shape, strict=True)
        )
        if not fits:
            needed = ["any" if length is None else length for length in shape]
            raise ModelLoadError(
                f"The checkpoint's tensor [{name}] has the shape {list(tensor.shape)}, and the model needs {needed}"
            )
        if not np.isfinite(tensor).all():
            raise ModelLoadError(
                f"The checkpoint's tensor [{name}] holds numbers that are not finite; it is damaged"
            )
        return tensor

    def pair(self, name: str, *shape: int) -> Pair:
        """Return a weight of `shape` and its bias."""
        return self.get(f"{name}.weight", *shape), self.get(f"{name}.bias", shape[0])
