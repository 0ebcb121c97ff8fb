"""Cross-encoders: an encoder that reads a query and a text together, and a classifier with one output.

BERT's family runs as it does for embeddings, others by transformers. The scores are those of sentence-transformers'
`CrossEncoder`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import ModelLoadError
from models.local.architectures import bert, classifiers, native, packed, torch_bert
from models.local.architectures.bert import Array, BertWeights, Pair, Tensors, read_weights
from models.local.engine.batching import TokenBatch
from models.local.weights import read_json, read_tensors

Score = Callable[[TokenBatch], Array]
"""A model: one batch of pairs in, a score for each [pairs] out."""

_LOGITS, _SIGMOID = "Identity", "Sigmoid"
_STORED = ("activation_fn", "sbert_ce_default_activation_function")


@dataclass(frozen=True)
class Classifier:
    """What makes a score of the hidden state of a pair's first token.

    Attributes:
        dense: the layer between, (weight, bias).
        out: the last layer, [1, hidden] and [1].
        activation: between the two.
        sigmoid: whether scores are scaled to 0 to 1.
    """

    dense: Pair
    out: Pair
    activation: Callable[[Array], Array]
    sigmoid: bool

    def scores(self, first: Array) -> Array:
        """Turn the first tokens' hidden states [pairs, hidden] into scores [pairs]."""
        inner = self.activation(first @ self.dense[0].T + self.dense[1])
        return _scaled((inner @ self.out[0].T + self.out[1])[:, 0], self.sigmoid)


def _scaled(logits: Array, sigmoid: bool) -> Array:
    # tanh never overflows, and the logistic function is one half of (1 + tanh of half its argument).
    found: Array = (0.5 * (1 + np.tanh(0.5 * logits)) if sigmoid else logits).astype(np.float32)
    return found


def _relu(values: Array) -> Array:
    return np.maximum(values, 0)


_CLASSIFIERS: dict[str, tuple[str, str, Callable[[Array], Array]]] = {
    "bert": ("pooler.dense", "classifier", np.tanh),
    "distilbert": ("pre_classifier", "classifier", _relu),
}
_ROBERTA = ("classifier.dense", "classifier.out_proj", np.tanh)


def read_classifier(folder: Path, tensors: Mapping[str, Array], width: int) -> Classifier:
    """Find the classifier of a checkpoint.

    Args:
        folder: the checkpoint's.
        tensors: its tensors.
        width: of the hidden states.

    Raises:
        ModelLoadError: it has none with one output, or scales scores in a way that is not known here.
    """
    config = read_json(folder, "config.json")
    dense, out, activation = _CLASSIFIERS.get(config["model_type"], _ROBERTA)
    weights = Tensors(tensors)
    return Classifier(
        weights.pair(dense, width, width), weights.pair(out, 1, width), activation, _scales(folder, config)
    )


def outputs(config: Mapping[str, Any]) -> int:
    """How many outputs a classifier has; transformers leaves the usual two unsaid."""
    labels = config.get("id2label")
    return len(labels) if isinstance(labels, Mapping) else int(config.get("num_labels", 2))


def _scales(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether scores go through the logistic function: sentence-transformers' default, or what it has stored."""
    places = (
        read_json(folder, "config_sentence_transformers.json"),
        config.get("sentence_transformers"),
        config,
    )
    stored = next(
        (
            place[name]
            for place in places
            if isinstance(place, Mapping)
            for name in _STORED
            if place.get(name)
        ),
        _SIGMOID,
    )
    name = str(stored).rpartition(".")[2]
    if name not in (_LOGITS, _SIGMOID):
        raise ModelLoadError(
            f"The checkpoint in [{folder}] scales its scores by [{stored}]; known are {_LOGITS} and {_SIGMOID}"
        )
    return name == _SIGMOID


def unsupported(folder: Path) -> list[str]:
    """Say why the checkpoint in `folder` cannot run here; an empty list means it can."""
    config = read_json(folder, "config.json")
    kind, count = config.get("model_type"), outputs(config)
    found = []
    if kind in bert.MODEL_TYPES:
        found += bert.unsupported(folder, config)
    elif kind not in classifiers.MODEL_TYPES:
        known = ", ".join((*bert.MODEL_TYPES, *classifiers.MODEL_TYPES))
        return [f"Cross-encoders here are of type {known}; the one in [{folder}] is of type [{kind}]"]
    if count != 1:
        found.append(f"A cross-encoder has one output; the model in [{folder}] has {count} classes")
    return found


def read_pair_weights(tensors: Mapping[str, Array], config: Mapping[str, Any]) -> tuple[BertWeights, int]:
    """Find an encoder's weights for texts of two kinds, queries and what is ranked.

    The embedding of a token's kind is added to that of its word. Here every word stands twice in the table of words,
    once for each kind, so that a batch stays one list of numbers, and whatever runs encoders runs cross-encoders.

    Args:
        tensors: the checkpoint's tensors.
        config: the checkpoint's ``config.json``.

    Returns:
        The weights, and what to add to the token ids of the second kind; 0 where the model knows one kind.
    """
    weights, name = read_weights(tensors, config), "embeddings.token_type_embeddings.weight"
    known = Tensors(tensors)
    if name not in known or len(known.get(name, None, weights.words.shape[1])) < 2:
        return weights, 0
    # The positions hold the first kind's embedding already: the second kind's words carry the difference.
    kinds = known.get(name, None, weights.words.shape[1])
    words = np.concatenate([weights.words, weights.words + (kinds[1] - kinds[0])])
    return replace(weights, words=words), len(weights.words)


def tells_kinds(folder: Path) -> bool:
    """Whether a checkpoint's tokenizer tells its model of which kind a token is, as BERT's own does."""
    settings = read_json(folder, "tokenizer_config.json")
    if isinstance(names := settings.get("model_input_names"), list):
        return "token_type_ids" in names
    # transformers' tokenizers of no particular model leave kinds out where nothing says otherwise.
    return settings.get("tokenizer_class") not in ("PreTrainedTokenizerFast", "TokenizersBackend")


def load(folder: Path, device: str, dtype: str, compiled: bool) -> tuple[Score, int]:
    """Load a cross-encoder.

    Args:
        folder: the checkpoint.
        device: where to compute.
        dtype: to compute in.
        compiled: whether the compiled kernels may do the work.

    Returns:
        The model, and what to add to the token ids of the second text of a pair.
    """
    config = read_json(folder, "config.json")
    if config["model_type"] in classifiers.MODEL_TYPES:
        return _by_transformers(folder, config, device, dtype)
    tensors = read_tensors(folder)
    weights, shift = (
        read_pair_weights(tensors, config) if tells_kinds(folder) else (read_weights(tensors, config), 0)
    )
    classifier = read_classifier(folder, tensors, weights.words.shape[1])
    found = native.kernels_for(weights, dtype) if compiled and device == "cpu" else None
    if found is not None:
        first = native.pooled(native.NativeEncoder(weights, found), "cls")
        return lambda batch: classifier.scores(first(batch)), shift
    states = packed.pooled(torch_bert.BertEncoder(weights, device, dtype), "cls", device)
    return lambda batch: classifier.scores(states(batch)), shift


def _by_transformers(folder: Path, config: Mapping[str, Any], device: str, dtype: str) -> tuple[Score, int]:
    shift = classifiers.kinds_shift(config) if tells_kinds(folder) else 0
    sigmoid = _scales(folder, config)
    model = classifiers.PairClassifier(folder, device, dtype, shift)
    logits = packed.OnDevice(lambda batch: model.logits(batch).cpu().numpy(), device)
    return lambda batch: _scaled(logits(batch), sigmoid), shift
