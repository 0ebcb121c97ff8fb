"""Any other encoder that transformers knows (Qwen3, ModernBERT, EuroBERT, jina-v3, …), run by transformers itself."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.architectures.adapters import merge_adapter
from models.architectures.packed import PackedBatch
from models.errors import ModelLoadError

if TYPE_CHECKING:
    import torch


def is_known(model_type: str | None) -> bool:
    """Whether transformers has an encoder of this type, without code from the checkpoint."""
    from transformers import CONFIG_MAPPING, MODEL_MAPPING

    return (
        model_type is not None
        and model_type in CONFIG_MAPPING
        and CONFIG_MAPPING[model_type] in MODEL_MAPPING
    )


class GenericEncoder:
    """A model of transformers behind the packed interface; pads inside, to the longest text of the batch."""

    def __init__(self, folder: Path, device: str, dtype: "torch.dtype", adapter: str | None = None) -> None:
        """Load the model.

        Args:
            folder: the checkpoint.
            device: where to compute.
            dtype: what to compute in.
            adapter: name of the LoRA adapter to add to the weights.

        Raises:
            ModelLoadError: transformers cannot load it, or the adapter is not there.
        """
        from transformers import AutoModel

        try:
            model = AutoModel.from_pretrained(
                folder, dtype=dtype, trust_remote_code=False, use_safetensors=True, local_files_only=True
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelLoadError(f"transformers cannot load [{folder}]: {error}") from error
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
