"""BERT's forward pass in compiled kernels, for CPUs with AMX, AVX-512 or AVX2.

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

from models import huge_pages
from models.architectures.bert import BertWeights, Layer
from models.architectures.packed import PackedBatch
from models.errors import ModelLoadError

if TYPE_CHECKING:
    import torch

DISABLING_VARIABLE = "SEMANTIC_INGEST_KERNELS"
"""Environment variable: ``off`` leaves the work to PyTorch, ``avx512`` and ``avx2`` use no newer instructions."""

AMX_DEPTH = 32

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
        ("parts", _INT),
        ("panel", _INT),
        ("strip", _INT),
        ("workspace", ctypes.CFUNCTYPE(_INT, _MODEL, _INT, _INT)),
        ("forward", ctypes.CFUNCTYPE(None, _MODEL, _POINTER, _POINTER, _INT, _INT, _POINTER)),
        ("largest", ctypes.CFUNCTYPE(None, *[_POINTER] * 4, _INT, _INT, _INT, _POINTER)),
    ]


_HALF, _TWO_HALVES, _AVX512, _AVX2 = range(4)
_VARIANTS = {
    "": (_TWO_HALVES, _AVX512, _AVX2),
    "avx512": (_AVX512, _AVX2),
    "avx2": (_AVX2,),
    "off": (),
}


def kernels(factors: tuple[int, ...], dtype: "torch.dtype") -> Any | None:
    """Return the fastest kernels for this processor; None where there are none or they are switched off.

    Args:
        factors: the lengths of a model's dot products; AMX takes only multiples of `AMX_DEPTH`.
        dtype: of the model's weights. bfloat16 needs AMX. With float32 the embeddings are those of float32 on every
            processor: AMX then multiplies each number in two parts.
    """
    import torch

    choice = os.environ.get(DISABLING_VARIABLE, "")
    if choice not in _VARIANTS:
        known = ", ".join(filter(None, _VARIANTS))
        raise ModelLoadError(f"{DISABLING_VARIABLE} must be one of {known}, got [{choice}]", status=400)
    if dtype == torch.float32:
        variants = _VARIANTS[choice]
    else:
        variants = (_HALF,) if dtype == torch.bfloat16 and choice == "" else ()
    if any(factor % AMX_DEPTH for factor in factors):
        variants = tuple(one for one in variants if one not in (_HALF, _TWO_HALVES))
    return next((found for one in variants if (found := _load(one)) is not None), None)


@lru_cache(maxsize=4)
def _load(variant: int) -> Any | None:
    try:
        from models import _kernels  # type: ignore[attr-defined]
    except ImportError:
        return None
    find = ctypes.CDLL(_kernels.__file__).kernels_for_this_cpu
    find.restype, find.argtypes = ctypes.POINTER(Kernels), [_INT]
    found = find(variant)
    return found.contents if found else None


def kernels_for(weights: BertWeights) -> Any | None:
    """Return the kernels that can run this encoder: on CPU, with the activation that they know."""
    words = weights.words
    if words.device.type != "cpu" or weights.activation != "gelu":
        return None
    width = words.shape[1]
    inner = len(weights.layers[0].up[0]) if weights.layers else width
    return kernels((width, width // weights.heads, inner), words.dtype)


class NativeEncoder:
    """The forward pass in compiled kernels, one thread a call. Safe to call from several threads."""

    def __init__(self, weights: BertWeights, found: Any) -> None:
        """Lay out the weights; the originals can be let go.

        Args:
            weights: an encoder.
            found: what `kernels_for` returned for it.
        """
        self._kernels = found
        # Only what sums up the embeddings stays as it was.
        self._embeddings = BertWeights(
            weights.words.float(),
            weights.positions.float(),
            weights.norm,
            [],
            weights.heads,
            weights.epsilon,
            "gelu",
        )
        layers = [self._lay_out(layer, weights.heads) for layer in weights.layers]
        self._tensors = [
            dict(zip(layer, huge_pages.moved(list(layer.values())), strict=True)) for layer in layers
        ]
        self._layers = (_Layer * len(self._tensors))(
            *(_Layer(*(tensors[name].data_ptr() for name in _LAYER_FIELDS)) for tensors in self._tensors)
        )
        gain, shift = (tensor.float().contiguous() for tensor in weights.norm)
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
        weight, bias = (part.float().clone() for part in layer.qkv)
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
            tensors[name] = lay_out(matrix.float(), self._kernels.strip, self._kernels.parts)
            tensors[f"{name}_bias"] = _pad(offsets, self._kernels.strip)
        return {
            name: (tensor if name in matrices else tensor.float()).contiguous()
            for name, tensor in tensors.items()
        }

    def forward(self, batch: PackedBatch) -> "torch.Tensor":
        """Return the last hidden states [tokens, hidden]."""
        rows = self._embeddings.embed(batch)
        lengths = np.array(batch.lengths, np.int64)
        if not self._tensors or not len(rows):
            raise ValueError("an encoder needs layers, and a batch needs tokens")
        size = self._kernels.workspace(self._model, len(rows), int(lengths.max()))
        space = _workspace(self._local, size)
        self._kernels.forward(
            self._model, rows.data_ptr(), lengths.ctypes.data, len(lengths), len(rows), space.data_ptr()
        )
        return rows


class LargestLogits:
    """The largest logit of each output over the tokens of each text, without the logits in between."""

    def __init__(self, decoder: "torch.Tensor", found: Any) -> None:
        """Lay out a decoder [outputs, hidden]."""
        self._kernels = found
        self._outputs = len(decoder)
        (self._panels,) = huge_pages.moved([lay_out(decoder.float(), found.panel, found.parts)])
        self._local = threading.local()

    def __call__(self, hidden: "torch.Tensor", batch: PackedBatch) -> "torch.Tensor":
        """Return the largest logits [texts, outputs] of hidden states [tokens, hidden]."""
        import torch

        hidden = hidden.float().contiguous()
        lengths = np.array(batch.lengths, np.int64)
        best = torch.empty((len(lengths), self._outputs))
        padded = len(hidden) + AMX_DEPTH
        space = _workspace(self._local, self._kernels.parts * padded * hidden.shape[1] // 2 + AMX_DEPTH)
        self._kernels.largest(
            hidden.data_ptr(),
            self._panels.data_ptr(),
            lengths.ctypes.data,
            best.data_ptr(),
            len(lengths),
            hidden.shape[1],
            self._outputs,
            space.data_ptr(),
        )
        return best


def _workspace(local: threading.local, size: int) -> "torch.Tensor":
    """Memory of at least `size` floats for one call, kept for the next one of the same thread."""
    space: torch.Tensor | None = getattr(local, "space", None)
    if space is None or len(space) < size:
        space = local.space = huge_pages.zeros(size)
    return space


def lay_out(matrix: "torch.Tensor", strip: int, parts: int) -> "torch.Tensor":
    """Lay out [outputs, inputs] for the kernels, padded with zeros to whole strips of outputs.

    Args:
        matrix: float32.
        strip: outputs of a strip.
        parts: 0 gives strips of float32, [outputs / strip, inputs, strip]; else tiles of bfloat16,
            [outputs / 16, inputs / 32, parts, 16, 16, 2], where each part holds what the parts before it lost.
    """
    import torch

    padded = _pad(matrix, strip)
    if not parts:
        return padded.view(-1, strip, matrix.shape[1]).transpose(1, 2).contiguous()
    tiles = padded.view(-1, 16, matrix.shape[1] // AMX_DEPTH, 16, 2).permute(0, 2, 3, 1, 4)
    rounded = []
    for _ in range(parts):
        rounded.append(tiles.to(torch.bfloat16))
        tiles = tiles - rounded[-1].float()
    return torch.stack(rounded, 2).contiguous()


def _pad(tensor: "torch.Tensor", strip: int) -> "torch.Tensor":
    import torch

    missing = -len(tensor) % strip
    return torch.cat([tensor, tensor.new_zeros((missing, *tensor.shape[1:]))]).contiguous()
