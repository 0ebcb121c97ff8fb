"""BERT's forward pass and the masked-LM head in compiled kernels, for CPUs with AMX, AVX-512 or AVX2.

The kernels (`models/local/kernels`) are compiled when the package is installed and a C++ compiler is there. Where
there is none, or the processor is another, `kernels` returns None and PyTorch does the work. With kernels PyTorch is
not even imported, which would take longer than a small run does otherwise.
"""

import ctypes
import math
import os
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import InferenceError, ModelLoadError
from models.local.architectures import huge_pages
from models.local.architectures.bert import Array, BertWeights, HeadWeights, Layer
from models.local.architectures.layouts import AMX_DEPTH, lay_out_decoder, lay_out_pair
from models.local.engine.batching import TokenBatch
from models.local.sparse import SparseRows, sort_rows

DISABLING_VARIABLE = "SEMANTIC_INGEST_KERNELS"
"""Environment variable: ``off`` leaves the work to PyTorch, ``avx512`` and ``avx2`` use no newer instructions."""

_POINTER, _INT = ctypes.c_void_p, ctypes.c_int64
_LAYER_FIELDS = (
    *("qkv", "qkv_bias", "out", "out_bias", "gain1", "shift1"),
    *("up", "up_bias", "down", "down_bias", "gain2", "shift2"),
)


class _Layer(ctypes.Structure):
    _fields_ = [(name, _POINTER) for name in _LAYER_FIELDS]


class _Model(ctypes.Structure):
    _fields_ = [
        ("layers", ctypes.POINTER(_Layer)),
        ("gain", _POINTER),
        ("shift", _POINTER),
        *((name, _INT) for name in ("count", "width", "inner", "heads")),
        ("epsilon", ctypes.c_float),
    ]


_MODEL = ctypes.POINTER(_Model)


class _Vocabulary(ctypes.Structure):
    _fields_ = [
        *((name, _POINTER) for name in ("dense", "dense_bias", "gain", "shift", "decoder")),
        *((name, _INT) for name in ("width", "outputs")),
        ("epsilon", ctypes.c_float),
    ]


_VOCABULARY = ctypes.POINTER(_Vocabulary)


class Kernels(ctypes.Structure):
    """The table of functions that `kernels.cpp` exports for one kind of processor."""

    _fields_ = [
        ("size", _INT),
        ("parts", _INT),
        ("run", _INT),
        ("panel", _INT),
        ("strip", _INT),
        ("workspace", ctypes.CFUNCTYPE(_INT, _MODEL, _INT, _INT)),
        ("forward", ctypes.CFUNCTYPE(None, _MODEL, _POINTER, _POINTER, _INT, _INT, _POINTER)),
        ("largest_workspace", ctypes.CFUNCTYPE(_INT, _VOCABULARY, _INT)),
        ("largest", ctypes.CFUNCTYPE(None, _VOCABULARY, *[_POINTER] * 3, _INT, _INT, _POINTER)),
    ]


_HALF, _TWO_HALVES, _AVX512, _AVX2 = range(4)
_INT8_AMX, _INT8_AVX_VNNI, _INT8_AVX512_VNNI, _INT8_AVX512, _INT8_AVX2 = range(4, 9)
_NAMES = {
    _HALF: "AMX",
    _TWO_HALVES: "AMX",
    _AVX512: "AVX-512",
    _AVX2: "AVX2",
    _INT8_AMX: "AMX",
    _INT8_AVX_VNNI: "AVX-VNNI",
    _INT8_AVX512_VNNI: "AVX-512 VNNI",
    _INT8_AVX512: "AVX-512",
    _INT8_AVX2: "AVX2",
}
_CHOICES = ("", "avx512", "avx2", "off")
_VARIANTS = {
    ("float32", ""): (_TWO_HALVES, _AVX512, _AVX2),
    ("float32", "avx512"): (_AVX512, _AVX2),
    ("float32", "avx2"): (_AVX2,),
    ("bfloat16", ""): (_HALF,),
    ("int8", ""): (_INT8_AMX, _INT8_AVX512_VNNI, _INT8_AVX512, _INT8_AVX_VNNI, _INT8_AVX2),
    ("int8", "avx512"): (_INT8_AVX512, _INT8_AVX2),
    ("int8", "avx2"): (_INT8_AVX2,),
}
"""dtype and choice -> what can compute in it, fastest first."""

FAST_INT8 = tuple(_NAMES[one] for one in (_INT8_AMX, _INT8_AVX512_VNNI, _INT8_AVX_VNNI))
"""Names of the kernels that multiply in int8 several times as fast as in float32."""


def kernels(factors: tuple[int, ...], dtype: str) -> Any | None:
    """Return the fastest kernels for this processor; None where there are none or they are switched off.

    Args:
        factors: the lengths of a model's dot products; AMX takes only multiples of `AMX_DEPTH` in floats.
        dtype: to compute in. ``bfloat16`` needs AMX. With ``float32`` the embeddings are those of float32 on every
            processor: AMX then multiplies each number in two parts. ``int8`` gives the same numbers on every
            processor, where the same compiler made the kernels.
    """
    variant = _variant(factors, dtype)
    return None if variant is None else _load(variant)


def _variant(factors: tuple[int, ...], dtype: str) -> int | None:
    choice = os.environ.get(DISABLING_VARIABLE, "")
    if choice not in _CHOICES:
        known = ", ".join(filter(None, _CHOICES))
        raise ModelLoadError(f"{DISABLING_VARIABLE} must be one of {known}, got [{choice}]", status=400)
    variants = _VARIANTS.get((dtype, choice), ())
    if any(factor % AMX_DEPTH for factor in factors):
        variants = tuple(one for one in variants if one not in (_HALF, _TWO_HALVES))
    return next((one for one in variants if _load(one) is not None), None)


def name_of_kernels(dtype: str = "float32") -> str | None:
    """Name the instructions that the fastest kernels here use; None where there are none for a dtype."""
    variant = _variant((), dtype)
    return None if variant is None else _NAMES[variant]


@lru_cache(maxsize=len(_NAMES))
def _load(variant: int) -> Any | None:
    try:
        from models import _kernels  # type: ignore[attr-defined]
    except ImportError:
        return None
    find = ctypes.CDLL(_kernels.__file__).kernels_for_this_cpu
    find.restype, find.argtypes = ctypes.POINTER(Kernels), [_INT]
    found = find(variant)
    if found and found.contents.size != ctypes.sizeof(Kernels):
        raise ModelLoadError(
            f"The compiled kernels [{_kernels.__file__}] belong to another version of the package; install it again"
        )
    return found.contents if found else None


def kernels_for(weights: BertWeights, dtype: str) -> Any | None:
    """Return the kernels that can run this encoder, and a head of its width; they know one activation."""
    if weights.activation != "gelu":
        return None
    width = weights.words.shape[1]
    return kernels((width, width // weights.heads, len(weights.layers[0].up[0])), dtype)


def for_head(found: Any) -> Any:
    """Return the kernels for the vocabulary head of an encoder that `found` runs."""
    return found if found.largest else _load(_INT8_AVX512_VNNI)


class NativeEncoder:
    """The forward pass, one thread a call. Safe to call from several threads."""

    def __init__(self, weights: BertWeights, found: Any) -> None:
        """Lay out the weights; the originals can be let go.

        Args:
            weights: an encoder.
            found: what `kernels_for` returned for it.
        """
        self._kernels = found
        self._words, self._positions, *norm = huge_pages.moved(
            [weights.words, weights.positions, *weights.norm]
        )
        layers = [_lay_out_layer(layer, weights.heads, found) for layer in weights.layers]
        self._arrays = (norm, layers)  # what the structure points to
        self._model = _Model(
            (_Layer * len(layers))(
                *(_Layer(*(_at(layer[name]) for name in _LAYER_FIELDS)) for layer in layers)
            ),
            *map(_at, norm),
            len(layers),
            weights.words.shape[1],
            len(weights.layers[0].up[0]),
            weights.heads,
            weights.epsilon,
        )
        self._local = threading.local()

    def forward(self, batch: TokenBatch) -> Array:
        """Return the last hidden states [tokens, hidden].

        Raises:
            InferenceError: a token or a position is not in the checkpoint.
        """
        rows = self._embed(batch)
        if not len(rows):
            return rows
        size = self._kernels.workspace(self._model, len(rows), int(batch.lengths.max()))
        space = _workspace(self._local, size)
        self._kernels.forward(
            self._model, _at(rows), _at(batch.lengths), len(batch.lengths), len(rows), _at(space)
        )
        return rows

    def _embed(self, batch: TokenBatch) -> Array:
        """Sum word, position and type embeddings, not yet normalized."""
        longest = int(batch.lengths.max())
        if longest > len(self._positions) or batch.ids.max(initial=0) >= len(self._words):
            raise InferenceError(
                f"The tokenizer and the weights of a checkpoint do not fit: {len(self._words)} tokens and"
                f" {len(self._positions)} positions have weights, and a text has token {batch.ids.max()} or"
                f" {longest} tokens"
            )
        rows = self._words[batch.ids]  # the types' embedding is in the positions' already
        for tokens in batch.slices():
            rows[tokens] += self._positions[: tokens.stop - tokens.start]
        return rows


def pooled(encoder: NativeEncoder, pooling: str) -> Callable[[TokenBatch], Array]:
    """Reduce the hidden states of each embedding's tokens to one row [embeddings, hidden].

    Args:
        encoder: gives the hidden states.
        pooling: ``mean``, ``cls`` or ``last``.
    """
    reduce = _POOLINGS[pooling]

    def compute(batch: TokenBatch) -> Array:
        hidden = encoder.forward(batch)
        return np.stack([reduce(hidden[tokens]) for tokens in batch.segments()])

    return compute


_POOLINGS: dict[str, Callable[[Array], Array]] = {
    "mean": lambda states: states.mean(0),
    "cls": lambda states: states[0],
    "last": lambda states: states[-1],
}


class NativeHead:
    """A masked-LM head, max-pooled over each text: the logits in between never leave the registers."""

    def __init__(
        self, weights: HeadWeights, found: Any, special_ids: npt.NDArray[np.int64], twice: bool
    ) -> None:
        """Lay out the weights; the originals can be let go.

        Args:
            weights: the head of an encoder that `found` can run.
            found: what `for_head` returned for the encoder.
            special_ids: tokens that never get a weight.
            twice: take the logarithm of the weights twice.
        """
        self._kernels = found
        self._bias, self._special, self._twice = weights.bias, special_ids, twice
        self._arrays = huge_pages.moved(
            [
                *lay_out_pair(weights.dense, found),
                *weights.norm,
                lay_out_decoder(weights.decoder, found),
            ]
        )
        outputs, width = weights.decoder.shape
        self._head = _Vocabulary(*map(_at, self._arrays), width, outputs, weights.epsilon)
        self._local = threading.local()

    def forward(self, hidden: Array, batch: TokenBatch) -> SparseRows:
        """Turn hidden states [tokens, hidden] into sparse rows."""
        best = np.empty((len(batch.lengths), len(self._bias)), np.float32)
        space = _workspace(self._local, self._kernels.largest_workspace(self._head, len(hidden)))
        self._kernels.largest(
            self._head,
            _at(hidden),
            _at(batch.lengths),
            _at(best),
            len(batch.lengths),
            len(hidden),
            _at(space),
        )
        # The bias is the same for all tokens of a column, and the activation grows with its input: both can wait
        # until one row a text is left.
        best += self._bias
        best[:, self._special] = 0
        best[batch.lengths == 0] = 0
        # The activation is log(1 + max(0, x)): what is not positive has no entry, and the others alone need one. What
        # is no number stays, for the embedder to see.
        rows, token_ids = np.divmod(np.flatnonzero(~(best <= 0)), len(self._bias))
        weights = np.log1p(best[rows, token_ids])
        return sort_rows(rows, token_ids, np.log1p(weights) if self._twice else weights, len(best))


def _lay_out_layer(layer: Layer, heads: int, found: Any) -> dict[str, npt.NDArray[Any]]:
    weight, bias = (part.copy() for part in layer.qkv)
    width = len(bias) // 3  # queries, keys and values stand below one another, queries first
    # The kernels compute powers of two of the scores as they come: all factors go into the queries.
    scale = math.log2(math.e) / math.sqrt(width // heads)
    weight[:width] *= scale
    bias[:width] *= scale
    arrays = dict(zip(("gain1", "shift1", "gain2", "shift2"), (*layer.norm1, *layer.norm2), strict=True))
    pairs = {"qkv": (weight, bias), "out": layer.out, "up": layer.up, "down": layer.down}
    for name, pair in pairs.items():
        arrays[name], arrays[f"{name}_bias"] = lay_out_pair(pair, found)
    return dict(zip(arrays, huge_pages.moved(list(arrays.values())), strict=True))


def _at(array: npt.NDArray[Any]) -> int:
    """Address of an array whose numbers lie side by side."""
    assert array.flags.c_contiguous
    return array.ctypes.data


def _workspace(local: threading.local, size: int) -> Array:
    """Memory of at least `size` floats for one call, kept for the next one of the same thread."""
    space: Array | None = getattr(local, "space", None)
    if space is None or len(space) < size:
        space = local.space = huge_pages.zeros(size)
    return space
