"""Any other encoder that transformers knows (Qwen3, ModernBERT, EuroBERT, jina-v3, …), run by transformers itself.

All texts of a batch go through it as one, end to end: positions start anew with each text, and in the place of
transformers' attention stands ours, which keeps the texts apart. An encoder that would mix them anyway, such as one
with relative positions, is found out when it is loaded, and gets padded texts.
"""

import threading
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.errors import ModelLoadError
from models.local.architectures.adapters import merge_adapter
from models.local.architectures.attention import ALL, CAUSAL, Window, attend
from models.local.architectures.packed import PackedBatch
from models.local.engine.batching import TokenBatch
from models.local.weights import read_json

if TYPE_CHECKING:
    import torch


# What only the code in a jina-v5 checkpoint reads.
_WRAPPING = ("model_type", "architectures", "auto_map", "task_names")
_ATTENTION = "packed_texts"
"""Name of our attention among transformers' own."""
_LEAST_COSINE = {4: 0.9999, 2: 0.99}
"""Bytes of a number -> what packed and padded hidden states must have in common: half precision rounds both."""
_CURRENT = threading.local()


def base_type(config: Mapping[str, Any]) -> str | None:
    """Return transformers' name for a checkpoint's encoder.

    jina-v5 wraps a base that transformers knows and changes nothing in its settings: Qwen3 (small), or EuroBERT
    (nano), which is no decoder.
    """
    if config.get("model_type") == "jina_embeddings_v5":
        return "eurobert" if config.get("is_decoder") is False else "qwen3"
    return config.get("model_type")


def is_known(config: Mapping[str, Any]) -> bool:
    """Whether transformers has an encoder of this type, without code from the checkpoint."""
    from transformers import CONFIG_MAPPING, MODEL_MAPPING

    name = base_type(config)
    return name is not None and name in CONFIG_MAPPING and CONFIG_MAPPING[name] in MODEL_MAPPING


class GenericEncoder:
    """A model of transformers behind the packed interface.

    Attributes:
        is_packed: whether texts go through end to end; else they are padded to the longest of their batch.
    """

    def __init__(self, folder: Path, device: str, dtype: str, adapter: str | None = None) -> None:
        """Load the model.

        Args:
            folder: the checkpoint.
            device: where to compute.
            dtype: what to compute in.
            adapter: name of the LoRA adapter to add to the weights.

        Raises:
            ModelLoadError: transformers cannot load it, or the adapter is not there.
        """
        from transformers import MODEL_MAPPING

        model = load_whole(folder, dtype, MODEL_MAPPING, ("pooler.",))
        if adapter is not None:
            merge_adapter(model, folder, adapter)
        self._model: Any = model.eval().to(device)
        self._model.config.use_cache = False  # a decoder's cache of keys and values is for texts that go on
        self._takes = signature(self._model.forward).parameters.keys()
        self.is_packed = self._can_pack(device)

    def forward(self, batch: PackedBatch) -> "torch.Tensor":
        """Return the last hidden states [tokens, hidden]."""
        return self._packed(batch) if self.is_packed else self._padded(batch)

    def _packed(self, batch: PackedBatch) -> "torch.Tensor":
        """Run all texts as one of [1, tokens]."""
        import torch

        inputs = {"input_ids": batch.ids.long()[None], "position_ids": batch.positions.long()[None]}
        if "token_type_ids" in self._takes:  # a model's own zeros end with its longest text
            inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
        _CURRENT.batch = batch
        try:
            hidden: torch.Tensor = self._model(**inputs).last_hidden_state[0]
        finally:
            _CURRENT.batch = None
        return hidden

    def _padded(self, batch: PackedBatch) -> "torch.Tensor":
        """Run texts as rows of [texts, longest]."""
        ids, mask, places = batch.padded()
        found = self._model(input_ids=ids, attention_mask=mask)
        hidden: torch.Tensor = found.last_hidden_state.flatten(0, 1)[places]
        return hidden

    def _can_pack(self, device: str) -> bool:
        """Put our attention into the model, and see whether it then computes what it computes for padded texts."""
        import torch

        if "position_ids" not in self._takes or not _set_attention(self._model):
            return False
        config = self._model.config
        # Long enough for a window of attention to show, with two texts of one length, and one of a single token.
        window = getattr(config, "sliding_window", None) or 0
        longest = min(max(24, window + 16), getattr(config, "max_position_embeddings", None) or 24)
        lengths = np.array([longest, min(7, longest), min(7, longest), 1], np.int64)
        ids = np.random.default_rng(0).integers(1, config.vocab_size, lengths.sum()).astype(np.int32)
        batch = PackedBatch.put(TokenBatch(ids, lengths), device)
        with torch.inference_mode():
            try:
                packed, padded = self._packed(batch).float(), self._padded(batch).float()
            except (
                RuntimeError,
                ValueError,
                IndexError,
                TypeError,
            ):  # made for one text a row, and no other shape
                return False
            cosine = torch.nn.functional.cosine_similarity(packed, padded).min()
        return bool(cosine >= _LEAST_COSINE[self._model.dtype.itemsize])


def _set_attention(model: Any) -> bool:
    """Let a model attend as `_attention` does; False where it has an attention of its own that cannot be replaced."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(_ATTENTION, _attention)
    AttentionMaskInterface.register(_ATTENTION, _mask)
    try:
        model.set_attn_implementation(_ATTENTION)
    except ValueError:
        return False
    return bool(model.config._attn_implementation == _ATTENTION)


def _attention(
    module: Any,
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: "torch.Tensor | None",
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> "tuple[torch.Tensor, None]":
    """Attend as transformers asks: [1, heads, tokens, width] in, [1, tokens, heads, width] out.

    Outside of a packed pass it is PyTorch's attention with a mask.
    """
    batch: PackedBatch | None = getattr(_CURRENT, "batch", None)
    if batch is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        options = {**others, "scaling": scaling, "is_causal": is_causal}
        attended: torch.Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, **options)[
            0
        ]
        return attended, None
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    window: Window = CAUSAL if causal else ALL
    if sliding_window is not None:  # counts the token itself
        window = (sliding_window - 1, 0 if causal else sliding_window - 1)
    # Kernels want a token's heads side by side.
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
    return attend(batch, query, key, value, scaling, window)[None], None


def _mask(*arguments: Any, **options: Any) -> Any:
    """The mask of a padded pass; a packed one needs none."""
    from transformers.masking_utils import sdpa_mask

    return sdpa_mask(*arguments, **options) if getattr(_CURRENT, "batch", None) is None else None


def load_whole(folder: Path, dtype: str, models: Mapping[Any, Any], spare: tuple[str, ...] = ()) -> Any:
    """Load a model whose every tensor is in the checkpoint; transformers would make up what is missing.

    Args:
        folder: the checkpoint.
        dtype: what to compute in.
        models: transformers' classes of models by their classes of settings.
        spare: beginnings of the names of tensors that nothing reads.

    Raises:
        ModelLoadError: transformers cannot load it, or a tensor is missing.
    """
    from transformers import CONFIG_MAPPING

    stored = read_json(folder, "config.json")
    kind = CONFIG_MAPPING[str(base_type(stored))]
    settings = {name: value for name, value in stored.items() if name not in _WRAPPING}
    try:
        model, loading = models[kind].from_pretrained(
            folder,
            config=kind.from_dict(settings),
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelLoadError(f"transformers cannot load [{folder}]: {error}") from error
    missing = sorted(name for name in loading["missing_keys"] if not name.startswith(spare))
    if missing:
        raise ModelLoadError(f"The checkpoint in [{folder}] has no tensor [{missing[0]}]; is it complete?")
    return model
