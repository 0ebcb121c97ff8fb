"""Cross-encoders of other families than BERT's, run by transformers' own classifiers on padded pairs."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.local.architectures.generic import load_whole
from models.local.architectures.packed import PackedBatch

if TYPE_CHECKING:
    import torch


MODEL_TYPES = ("modernbert", "deberta-v2")
"""transformers' names for the encoders whose classifiers are known to score padded pairs as they score one alone."""


def kinds_shift(config: Mapping[str, Any]) -> int:
    """What to add to the token ids of the second text of a pair, see `PairClassifier`; 0 where kinds mean nothing."""
    return int(config["vocab_size"]) if int(config.get("type_vocab_size") or 0) > 1 else 0


class PairClassifier:
    """A classifier of transformers with one output, behind the packed interface.

    A batch is one list of numbers: a token of the second text of a pair has the size of the vocabulary added.
    """

    def __init__(self, folder: Path, device: str, dtype: str, shift: int) -> None:
        """Load the model.

        Args:
            folder: the checkpoint.
            device: where to compute.
            dtype: what to compute in.
            shift: what the ids of the second text have more; 0 for nothing.

        Raises:
            ModelLoadError: transformers cannot load it, or a tensor is missing.
        """
        from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

        self._model: Any = (
            load_whole(folder, dtype, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING).eval().to(device)
        )
        self._shift = shift

    def logits(self, batch: PackedBatch) -> "torch.Tensor":
        """Return the output of each pair [pairs], in float32."""
        ids, mask, _ = batch.padded()
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self._shift:
            kinds = ids >= self._shift
            inputs = {**inputs, "input_ids": ids - self._shift * kinds, "token_type_ids": kinds.long()}
        found: torch.Tensor = self._model(**inputs).logits[:, 0].float()
        return found
