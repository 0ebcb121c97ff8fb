"""Attention within each text of a packed batch: the one step of a model that must know where a text ends."""

from functools import lru_cache
from inspect import signature
from typing import TYPE_CHECKING, Any

from models.local.architectures.packed import PackedBatch

if TYPE_CHECKING:
    import torch

Window = tuple[int, int]
"""How many tokens to its left and to its right a token sees; -1 for all of its text."""

ALL: Window = (-1, -1)
CAUSAL: Window = (-1, 0)


def attend(
    batch: PackedBatch,
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    scale: float | None = None,
    window: Window = ALL,
) -> "torch.Tensor":
    """Attend within each text; returns [tokens, heads, width].

    Args:
        batch: where the texts are.
        query: [tokens, heads, width].
        key: [tokens, key heads, width]; as many heads as `query`, or each for several of them.
        value: as `key`.
        scale: factor of the scores; None takes 1 / sqrt(width).
        window: what a token sees.
    """
    if not len(query):  # texts without tokens alone
        return query
    if not query.is_cuda:
        return by_length(batch, query, key, value, scale, window)
    if query.element_size() == 2 and has_flash(query.device.index or 0):
        return _flash(batch, query, key, value, scale, window)
    return padded(batch, query, key, value, scale, window)


@lru_cache(maxsize=16)
def has_flash(device: int) -> bool:
    """Whether a GPU has the kernel for texts of any lengths: from Ampere on, in half precision."""
    import torch

    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    known = signature(varlen_attn).parameters
    if not {"window_size", "enable_gqa"} <= known.keys() or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    # cuDNN, which torch would prefer on Hopper, builds a plan for each new shape, and each of our batches is new.
    torch.backends.cuda.enable_cudnn_sdp(False)
    return True


def _flash(
    batch: PackedBatch,
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    scale: float | None,
    window: Window,
) -> "torch.Tensor":
    from torch.nn.attention.varlen import varlen_attn

    ends, longest = batch.ends, batch.longest
    shared = query.shape[1] != key.shape[1]
    attended: Any = varlen_attn(
        query, key, value, ends, ends, longest, longest, scale=scale, window_size=window, enable_gqa=shared
    )
    found: torch.Tensor = attended
    return found


def by_length(
    batch: PackedBatch,
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    scale: float | None = None,
    window: Window = ALL,
) -> "torch.Tensor":
    """Attend in one call for all neighbouring texts of equal length, without a padded token: best on a CPU."""
    import torch

    parts = []
    for group in batch.groups():
        if not group.length:
            break
        shape = (group.texts, group.length, -1, query.shape[2])
        queries, keys, values = (
            part[group.tokens].view(shape).transpose(1, 2) for part in (query, key, value)
        )
        mask = _band(group.length, window, query.device)
        shared = query.shape[1] != key.shape[1]
        out = torch.nn.functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, scale=scale, enable_gqa=shared
        )
        parts.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts)


def padded(
    batch: PackedBatch,
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    scale: float | None = None,
    window: Window = ALL,
) -> "torch.Tensor":
    """Attend in one call with texts padded to the longest: for GPUs without the kernel, and for float32 on any."""
    import torch

    texts, longest = len(batch.lengths), batch.longest
    lengths = batch.ends.diff()
    # The number of results is given, so that the host need not wait for the device to count them.
    rows = torch.repeat_interleave(torch.arange(texts, device=query.device), lengths, output_size=len(query))
    places = rows * longest + batch.positions

    def spread(part: "torch.Tensor") -> "torch.Tensor":
        space = part.new_zeros(texts * longest, *part.shape[1:])
        space[places] = part
        # Heads that are shared are repeated: the kernel that takes a mask knows no groups.
        space = space.repeat_interleave(query.shape[1] // part.shape[1], 1)
        return space.view(texts, longest, *space.shape[1:]).transpose(1, 2)

    mask = (torch.arange(longest, device=query.device) < lengths[:, None])[:, None, None]
    band = _band(longest, window, query.device)
    mask = mask if band is None else mask & band
    out = torch.nn.functional.scaled_dot_product_attention(
        spread(query), spread(key), spread(value), attn_mask=mask, scale=scale
    )
    return out.transpose(1, 2).flatten(0, 1)[places]


def _band(length: int, window: Window, device: "torch.device") -> "torch.Tensor | None":
    """Which keys each query sees, [length, length]; None where that is all of them."""
    import torch

    left, right = (length if reach < 0 else reach for reach in window)
    if left >= length - 1 and right >= length - 1:
        return None
    places = torch.arange(length, device=device)
    ahead = places - places[:, None]  # how far a key stands to the right of a query
    return (ahead <= right) & (ahead >= -left)
