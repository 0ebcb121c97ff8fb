"""How the compiled kernels want matrices: in strips of float32, in tiles of bfloat16, or in strips of int8."""

from typing import Any

import numpy as np
import numpy.typing as npt

from models.local.architectures.bert import Array, Pair

AMX_DEPTH = 32
"""Inputs of a tile of bfloat16; AMX takes only multiples of it."""

MOST = 127
"""The largest number of int8 that is used; the smallest is its opposite, so that -128 never occurs."""


def lay_out_pair(pair: Pair, found: Any) -> tuple[npt.NDArray[Any], Array]:
    """Lay out a weight and its bias for kernels, padded with zeros to whole strips of outputs."""
    weight, bias = pair
    if found.run:
        return lay_out_bytes(weight, found.strip, found.run), _pad(bias, found.strip)
    return lay_out(weight, found.strip, found.parts), _pad(bias, found.strip)


def lay_out_decoder(decoder: Array, found: Any) -> npt.NDArray[Any]:
    """Lay out a vocabulary head's decoder [vocabulary, hidden], whose outputs lie side by side in panels."""
    if found.run:
        return lay_out_bytes(decoder, found.panel, found.run)
    return lay_out(decoder, found.panel, found.parts)


def quantize(matrix: Array) -> tuple[npt.NDArray[np.int8], Array]:
    """Round each row to whole numbers from -127 to 127 times a scale of its own.

    Returns:
        The numbers, and the scales [rows]; both are zero for a row of zeros.
    """
    scales = np.abs(matrix).max(axis=1) / np.float32(MOST)
    # A scale below the normal numbers would round badly; what is that small is as good as zero.
    scales[scales < np.finfo(np.float32).tiny] = 0
    steps = matrix / np.where(scales, scales, np.float32(1))[:, None]
    numbers = np.where(scales[:, None] > 0, np.rint(steps), 0)
    return np.clip(numbers, -MOST, MOST).astype(np.int8), scales


def lay_out_bytes(matrix: Array, strip: int, run: int) -> npt.NDArray[np.uint8]:
    """Round [outputs, inputs] to int8 and lay it out [outputs / strip, bytes of a strip].

    Args:
        matrix: what to lay out.
        strip: outputs of a strip.
        run: inputs of an output that lie side by side; inputs are padded to a multiple of it.

    Returns:
        Of each strip: the sums of its outputs' numbers (int32), their scales (float32), and the numbers [inputs / run,
        strip, run].
    """
    padded = _pad(matrix, strip)
    numbers, scales = quantize(np.pad(padded, ((0, 0), (0, -padded.shape[1] % run))))
    totals = numbers.sum(axis=1, dtype=np.int32)
    weights = numbers.reshape(-1, strip, numbers.shape[1] // run, run).swapaxes(1, 2)
    parts = (totals, scales, np.ascontiguousarray(weights))
    strips = [part.reshape(len(weights), -1).view(np.uint8) for part in parts]
    return np.concatenate(strips, axis=1)


def lay_out(matrix: Array, strip: int, parts: int) -> npt.NDArray[Any]:
    """Lay out [outputs, inputs] for the kernels, padded with zeros to whole strips of outputs.

    Args:
        matrix: what to lay out.
        strip: outputs of a strip.
        parts: 0 gives strips of float32, [outputs / strip, inputs, strip]; else tiles of pairs of bfloat16,
            [outputs / 16, inputs / 32, parts, 16, 16], where each part holds what the parts before it lost.
    """
    padded = _pad(matrix, strip)
    outputs, inputs = padded.shape
    if not parts:
        # A strip's outputs lie side by side for each input: the kernel broadcasts them one after the other.
        return padded.reshape(-1, strip, inputs).swapaxes(1, 2)
    shape = (outputs // 16, inputs // AMX_DEPTH, parts, 16, 16)
    # AMX multiplies pairs: each row of a tile holds, for one pair of inputs, both numbers of 16 outputs. Two numbers of
    # 16 bits move as one of 32, so that the pairs stay together while the rest is transposed.
    tiles = np.empty(shape, np.uint32)
    for part in range(parts):
        rounded = _to_bfloat16(padded)
        tiles[:, :, part] = (
            rounded.view(np.uint32).reshape(-1, 16, inputs // AMX_DEPTH, 16).transpose(0, 2, 3, 1)
        )
        if part + 1 < parts:  # what rounding took away is the next part
            padded = padded - (rounded.astype(np.uint32) << 16).view(np.float32)
    return tiles


def _to_bfloat16(values: Array) -> npt.NDArray[np.uint16]:
    """Keep the upper half of each number, rounded to nearest, ties to even."""
    # Adding 0x7FFF carries into the upper half where the lower one is above its middle; at the very middle the lowest
    # bit that stays decides, so that ties go to the even number. In place: the matrices are large.
    bits = values.view(np.uint32) >> 16
    bits &= 1
    bits += values.view(np.uint32)
    bits += 0x7FFF
    bits >>= 16
    return bits.astype(np.uint16)


def _pad(array: Array, strip: int) -> Array:
    missing = -len(array) % strip  # rows up to the next whole strip
    padded = np.concatenate([array, np.zeros((missing, *array.shape[1:]), np.float32)]) if missing else array
    return np.ascontiguousarray(padded)
