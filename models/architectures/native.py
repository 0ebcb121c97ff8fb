"""BERT's forward pass in compiled kernels, for CPUs with AVX-512 or AVX2.

The kernels (`models/kernels`) are compiled when the package is installed and a C++ compiler is there. Where there is
none, or the processor is another, `kernels` returns None and PyTorch does the work.
"""

import ctypes
import math
import os
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from models.architectures.bert import BertWeights, Layer
from models.architectures.packed import PackedBatch

if TYPE_CHECKING:
    import torch

DISABLING_VARIABLE = "SEMANTIC_INGEST_KERNELS"
"""Environment variable: ``off`` leaves the work to PyTorch, ``avx2`` uses no wider instructions."""

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


class Kernels(ctypes.Structure):
    """The table of functions that `kernels.cpp` exports for one kind of processor."""

    _fields_ = [
        ("panel", _INT),
        ("strip", _INT),
        ("workspace", ctypes.CFUNCTYPE(_INT, _MODEL, _INT, _INT)),
        ("forward", ctypes.CFUNCTYPE(None, _MODEL, _POINTER, _POINTER, _INT, _INT, _POINTER)),
        ("largest", ctypes.CFUNCTYPE(None, _POINTER, _POINTER, _POINTER, _POINTER, _INT, _INT, _INT)),
    ]


def kernels() -> Any | None:
    """Return the kernels for this processor; None where there are none or they are switched off."""
    choice = os.environ.get(DISABLING_VARIABLE, "")
    return None if choice == "off" else _load(avx2_only=choice == "avx2")


@lru_cache(maxsize=2)
def _load(avx2_only: bool) -> Any | None:
    try:
        from models import _kernels  # type: ignore[attr-defined]
    except ImportError:
        return None
    library = ctypes.CDLL(_kernels.__file__)
    find = library.kernels_for_this_cpu
    find.restype, find.argtypes = ctypes.POINTER(Kernels), [_INT]
    for variant in (1,) if avx2_only else (0, 1):
        found = find(variant)
        if found:
            return found.contents
    return None


def fits(weights: BertWeights) -> bool:
    """Whether the kernels can run this encoder: float32 on CPU, and the activation that they know."""
    words = weights.words
    return (
        words.device.type == "cpu"
        and words.dtype.is_floating_point
        and words.itemsize == 4
        and (weights.activation == "gelu")
    )


class NativeEncoder:
    """The forward pass in compiled kernels, one thread a call. Safe to call from several threads."""

    def __init__(self, weights: BertWeights, found: Any) -> None:
        """Lay out the weights; the originals can be let go.

        Args:
            weights: an encoder that `fits`.
            found: what `kernels` returned.
        """
        self._kernels = found
        # Only what sums up the embeddings stays as it was.
        self._embeddings = BertWeights(
            weights.words, weights.positions, weights.norm, [], weights.heads, weights.epsilon, "gelu"
        )
        self._tensors = [self._lay_out(layer, weights.heads) for layer in weights.layers]
        self._layers = (_Layer * len(self._tensors))(
            *(_Layer(*(tensors[name].data_ptr() for name in _LAYER_FIELDS)) for tensors in self._tensors)
        )
        gain, shift = (tensor.contiguous() for tensor in weights.norm)
        self._norm = (gain, shift)
        inner, width = weights.layers[0].up[0].shape if weights.layers else (0, weights.words.shape[1])
        self._model = _Model(
            self._layers,
            gain.data_ptr(),
            shift.data_ptr(),
            len(self._tensors),
            width,
            inner,
            weights.heads,
            weights.epsilon,
        )
        self._local = threading.local()

    def _lay_out(self, layer: Layer, heads: int) -> "dict[str, torch.Tensor]":
        weight, bias = (part.clone() for part in layer.qkv)
        width = len(bias) // 3
        # The kernels compute powers of two of the scores as they come: all factors go into the queries.
        scale = math.log2(math.e) / math.sqrt(width // heads)
        weight[:width] *= scale
        bias[:width] *= scale
        tensors = {
            "gain1": layer.norm1[0],
            "shift1": layer.norm1[1],
            "gain2": layer.norm2[0],
            "shift2": layer.norm2[1],
        }
        matrices = {"qkv": (weight, bias), "out": layer.out, "up": layer.up, "down": layer.down}
        for name, (matrix, offsets) in matrices.items():
            tensors[name] = in_strips(matrix, self._kernels.strip)
            tensors[f"{name}_bias"] = _pad(offsets, self._kernels.strip)
        return {name: tensor.contiguous() for name, tensor in tensors.items()}

    def forward(self, batch: PackedBatch) -> "torch.Tensor":
        """Return the last hidden states [tokens, hidden]."""
        rows = self._embeddings.embed(batch)
        lengths = np.array(batch.lengths, np.int64)
        if not self._tensors or not len(rows):
            raise ValueError("an encoder needs layers, and a batch needs tokens")
        space = self._workspace(len(rows), int(lengths.max()))
        self._kernels.forward(
            self._model, rows.data_ptr(), lengths.ctypes.data, len(lengths), len(rows), space.data_ptr()
        )
        return rows

    def _workspace(self, tokens: int, longest: int) -> "torch.Tensor":
        """Memory for one call, kept for the next one of the same thread."""
        import torch

        size = self._kernels.workspace(self._model, tokens, longest)
        space: torch.Tensor | None = getattr(self._local, "space", None)
        if space is None or len(space) < size:
            space = self._local.space = torch.zeros(size)
        return space


class LargestLogits:
    """The largest logit of each output over the tokens of each text, without the logits in between."""

    def __init__(self, decoder: "torch.Tensor", found: Any) -> None:
        """Lay out a decoder [outputs, hidden]."""
        self._kernels = found
        self._outputs = len(decoder)
        self._panels = in_strips(decoder, found.panel)

    def __call__(self, hidden: "torch.Tensor", batch: PackedBatch) -> "torch.Tensor":
        """Return the largest logits [texts, outputs] of hidden states [tokens, hidden]."""
        import torch

        hidden = hidden.contiguous()
        lengths = np.array(batch.lengths, np.int64)
        best = torch.empty((len(lengths), self._outputs))
        self._kernels.largest(
            hidden.data_ptr(),
            self._panels.data_ptr(),
            lengths.ctypes.data,
            best.data_ptr(),
            len(lengths),
            hidden.shape[1],
            self._outputs,
        )
        return best


def in_strips(matrix: "torch.Tensor", strip: int) -> "torch.Tensor":
    """Lay out [outputs, inputs] as [outputs / strip, inputs, strip], padded with zeros."""
    padded = _pad(matrix, strip)
    return padded.view(-1, strip, matrix.shape[1]).transpose(1, 2).contiguous()


def _pad(tensor: "torch.Tensor", strip: int) -> "torch.Tensor":
    import torch

    missing = -len(tensor) % strip
    return torch.cat([tensor, tensor.new_zeros((missing, *tensor.shape[1:]))]).contiguous()
