"""Static models in the layout of Model2Vec (`potion`): a vector for each token, and a text is the mean of its tokens'.

Nothing is computed of the tokens around a token, so that a laptop embeds a million short texts in minutes. Rules and
files are those of the package `model2vec` (github.com/MinishLab/model2vec): no special tokens, unknown tokens left out,
texts cut to the window times the median length of a token in characters before they are tokenised.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import ModelLoadError
from models.local.engine.batching import TokenBatch, TokenizedTexts
from models.local.tokens import Tokens
from models.local.weights import read_json, weight_files

Array = npt.NDArray[np.float32]

WINDOW = 512
"""Tokens of a text that count where a checkpoint does not say."""

BATCH_TOKENS = 1 << 14
"""Tokens of one batch: its vectors, some 16 MB, still lie near the caches, and handing it over costs little beside."""

_BLOCK = 1 << 11  # tokens that are summed at a time, so that their vectors stay in the second cache


def is_static(config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's ``config.json`` is that of a static model."""
    return config.get("model_type") == "model2vec" or config.get("architectures") == ["StaticModel"]


def stored_recipe(folder: Path) -> dict[str, Any]:
    """What the files of a static model say of its use: window, dimensions, whether embeddings have length 1.

    Raises:
        ModelLoadError: there are no weights, or they have another layout.
    """
    config = read_json(folder, "config.json")
    with _open(folder) as file:
        dimensions = file.get_slice(_name(file, folder)).get_shape()[1]
    return {
        "task_type": "text_embedding",
        "pooling": "mean",
        "normalize": bool(config.get("normalize", False)),
        "max_tokens": config.get("max_length", WINDOW),
        "dimensions": dimensions,
        "prefixes": {},
    }


def _open(folder: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    (path, *_) = weight_files(folder)
    try:
        return safe_open(path, framework="np")
    except (SafetensorError, OSError) as error:
        raise ModelLoadError(f"The weights in [{path}] cannot be read: {error}") from error


def _name(file: Any, folder: Path) -> str:
    names = [name for name in ("embeddings", "embedding.weight") if name in file.keys()]  # noqa: SIM118 - no mapping
    if not names or len(file.get_slice(names[0]).get_shape()) != 2:
        raise ModelLoadError(f"The static model in [{folder}] has no matrix [embeddings] in its weights")
    return names[0]


def read_vectors(folder: Path, tokens: int) -> Array:
    """Read the vector of each token, weighted (float32 [tokens, dimensions]).

    Args:
        folder: the checkpoint: a matrix ``embeddings``, where it has few vectors for many tokens a ``mapping`` from
            tokens to rows, and ``weights`` of the tokens.
        tokens: tokens that the tokenizer knows.

    Raises:
        ModelLoadError: the parts do not fit one another, or hold numbers that are not finite.
    """
    with _open(folder) as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        vectors = stored[_name(file, folder)].astype(np.float32)
    mapping, weights = stored.get("mapping"), stored.get("weights")
    if mapping is not None:
        if mapping.ndim != 1 or not np.issubdtype(mapping.dtype, np.integer):
            raise ModelLoadError(f"[mapping] of the static model in [{folder}] is no list of rows")
        if mapping.min(initial=0) < 0 or mapping.max(initial=0) >= len(vectors):
            raise ModelLoadError(f"[mapping] of the static model in [{folder}] names rows that are not there")
        vectors = vectors[mapping]
    if weights is not None:
        if weights.shape != (len(vectors),):
            raise ModelLoadError(
                f"The static model in [{folder}] has {len(vectors)} tokens and weights of {weights.shape}"
            )
        vectors = vectors * weights.astype(np.float32)[:, None]
    if len(vectors) < tokens:
        raise ModelLoadError(
            f"The tokenizer in [{folder}] knows {tokens} tokens, and only {len(vectors)} have vectors"
        )
    if not np.isfinite(vectors).all():
        raise ModelLoadError(
            f"The weights of the static model in [{folder}] hold numbers that are not finite; they are damaged"
        )
    return np.ascontiguousarray(vectors)


def pooled(vectors: Array) -> Callable[[TokenBatch], Array]:
    """Return what makes the embeddings of a batch: the mean of its tokens' vectors [texts, dimensions]."""

    def compute(batch: TokenBatch) -> Array:
        ends = np.cumsum(batch.lengths)
        starts = ends - batch.lengths
        means = np.empty((len(starts), vectors.shape[1]), np.float32)
        first = 0
        while first < len(starts):
            # As many texts as fit a block, one at least.
            last = max(first + 1, int(np.searchsorted(ends, starts[first] + _BLOCK, side="right")))
            taken = vectors[batch.ids[starts[first] : ends[last - 1]]]
            means[first:last] = np.add.reduceat(taken, starts[first:last] - starts[first], axis=0)
            first = last
        means /= batch.lengths[:, None]
        return means

    return compute


class StaticTokens(Tokens):
    """The tokenizer of a static model. Safe to call from several threads."""

    def __init__(self, folder: Path, window: int | None) -> None:
        """Open the tokenizer of a checkpoint.

        Args:
            folder: the checkpoint.
            window: most tokens of a text; None cuts nothing.

        Raises:
            ModelLoadError: there is no ``tokenizer.json``, or it cannot be read.
        """
        stored = read_json(folder, "tokenizer.json")
        if not stored:
            raise ModelLoadError(f"The static model in [{folder}] has no tokenizer.json")
        super().__init__(_without_template(stored, folder), window)
        self._unknown = _unknown_of(stored)
        lengths = [len(token) for token in self.vocabulary()]
        self._most = None if window is None else window * int(np.median(lengths))

    def encode(self, texts: Sequence[str], offsets: bool = False) -> TokenizedTexts:
        """See `Tokens.encode`; unknown tokens are left out."""
        if offsets:
            return super().encode(texts, offsets)
        found = super().encode([text[: self._most] for text in texts])
        is_cut = np.array([self._most is not None and len(text) > self._most for text in texts], np.bool_)
        known = found.ids != self._unknown
        rows = np.repeat(np.arange(len(texts)), found.lengths)
        lengths = np.bincount(rows[known], minlength=len(texts)).astype(np.int32)
        return TokenizedTexts(found.ids[known], lengths, found.is_truncated | is_cut)


def _without_template(stored: Mapping[str, Any], folder: Path) -> Any:
    """The tokenizer without what it would put around a text."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(json.dumps({**stored, "post_processor": None}))
    except Exception as error:  # the Rust side raises plain Exception
        raise ModelLoadError(f"[{folder / 'tokenizer.json'}] cannot be read: {error}") from error


def _unknown_of(stored: Mapping[str, Any]) -> int:
    """The id of the unknown token; -1 where the tokenizer has none."""
    model = stored.get("model") or {}
    named, vocabulary = model.get("unk_token"), model.get("vocab")
    if isinstance(model.get("unk_id"), int):  # Unigram's
        return int(model["unk_id"])
    return int(vocabulary.get(named, -1)) if isinstance(vocabulary, Mapping) else -1


@lru_cache(maxsize=16)
def open_static_tokens(folder: Path, window: int | None) -> StaticTokens:
    """Open the tokenizer of a static model, once a process."""
    return StaticTokens(folder, window)
