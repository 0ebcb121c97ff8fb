"""Any other encoder that transformers knows (Qwen3, ModernBERT, EuroBERT, jina-v3, …), run by transformers itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import ModelLoadError
from models.local.architectures.adapters import merge_adapter
from models.local.architectures.packed import PackedBatch
from models.local.weights import read_json

if TYPE_CHECKING:
    import torch


# What only the code in a jina-v5 checkpoint reads.
_WRAPPING = ("model_type", "architectures", "auto_map", "task_names")


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
    """A model of transformers behind the packed interface; pads inside, to the longest text of the batch."""

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
        model = _load(folder, dtype)
        if adapter is not None:
            merge_adapter(model, folder, adapter)
        self._model: Any = model.eval().to(device)

    def forward(self, batch: PackedBatch) -> "torch.Tensor":
        """Return the last hidden states [tokens, hidden]."""
        import torch

        longest = max(batch.lengths)
        lengths = torch.tensor(batch.lengths, device=batch.ids.device)
        # Padding stands on the right, where neither a causal model nor a position embedding can see it.
        mask = torch.arange(longest, device=batch.ids.device) < lengths[:, None]
        ids = torch.zeros(mask.shape, dtype=torch.int64, device=batch.ids.device)
        ids[mask] = batch.ids.long()
        hidden: torch.Tensor = self._model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return hidden[mask]


def _load(folder: Path, dtype: str) -> Any:
    """Load a model whose every tensor is in the checkpoint; transformers would make up what is missing."""
    from transformers import CONFIG_MAPPING, MODEL_MAPPING

    stored = read_json(folder, "config.json")
    kind = CONFIG_MAPPING[str(base_type(stored))]
    encoder: Any = MODEL_MAPPING[kind]
    settings = {name: value for name, value in stored.items() if name not in _WRAPPING}
    try:
        model, loading = encoder.from_pretrained(
            folder,
            config=kind.from_dict(settings),
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelLoadError(f"transformers cannot load [{folder}]: {error}") from error
    missing = sorted(name for name in loading["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise ModelLoadError(f"The checkpoint in [{folder}] has no tensor [{missing[0]}]; is it complete?")
    return model
