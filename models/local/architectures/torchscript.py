"""ELSER, exported from a cluster by its owner: a TorchScript file and a vocabulary.

The one place where TorchScript is accepted, and only where the run config says ``backend: torchscript``: the file
holds code that runs when it is loaded, so that it must come from somebody you trust.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.errors import ModelLoadError
from models.local.architectures.packed import PackedBatch
from models.local.architectures.torch_bert import sparsify
from models.local.sparse import SparseRows

if TYPE_CHECKING:
    import torch


VOCABULARIES = ("vocab.txt", "vocabulary.json")


def find_script(folder: Path) -> Path:
    """Find the TorchScript file of an exported model.

    Raises:
        ModelLoadError: there is none, or more than one.
    """
    found = sorted(folder.glob("*.pt"))
    if len(found) != 1:
        names = [path.name for path in found]
        raise ModelLoadError(
            f"[backend: torchscript] needs exactly one .pt file in [{folder}], found {names}"
        )
    return found[0]


def read_vocabulary(folder: Path) -> list[str]:
    """Read the exported vocabulary: ``vocab.txt``, one token a line, or Elastic's ``vocabulary.json``.

    Raises:
        ModelLoadError: there is none.
    """
    plain, exported = (folder / name for name in VOCABULARIES)
    if plain.is_file():
        return plain.read_text("utf-8").splitlines()
    if exported.is_file():
        content = json.loads(exported.read_text("utf-8"))
        tokens: list[str] = content["vocabulary"] if isinstance(content, dict) else content
        return tokens
    raise ModelLoadError(
        f"[backend: torchscript] needs the model's vocabulary in [{folder}]: {list(VOCABULARIES)}"
    )


class ScriptedModel:
    """A traced text expansion model: token ids, mask, types and positions in, weights of the vocabulary out."""

    def __init__(self, folder: Path, device: str, special_ids: npt.NDArray[np.int64]) -> None:
        """Load the script.

        Args:
            folder: holds the ``.pt`` file.
            device: where to compute.
            special_ids: tokens that never get a weight.

        Raises:
            ModelLoadError: the file is not TorchScript.
        """
        import torch

        path = find_script(folder)
        try:
            load: Any = torch.jit.load
            self._script: Any = load(path, map_location=device).eval()
        except RuntimeError as error:
            raise ModelLoadError(
                f"[{path}] is not a TorchScript file: {str(error).splitlines()[0]}"
            ) from error
        self._special = torch.from_numpy(special_ids).to(device)

    def __call__(self, batch: PackedBatch) -> SparseRows:
        """Compute the sparse rows of a batch."""
        import torch

        weights = torch.cat([self._weigh(batch, group) for group in batch.groups()])
        weights[:, self._special] = 0
        return sparsify(weights)

    def _weigh(self, batch: PackedBatch, group: Any) -> "torch.Tensor":
        """Run texts of equal length, which need no padding."""
        import torch

        ids = batch.ids[group.tokens].view(group.texts, group.length).long()
        positions = torch.arange(group.length, device=ids.device).expand_as(ids)
        out = self._script(ids, torch.ones_like(ids), torch.zeros_like(ids), positions)
        weights: torch.Tensor = (out[0] if isinstance(out, tuple | list) else out).float()
        if weights.shape[0] != group.texts or weights.numel() != group.texts * weights.shape[-1]:
            raise ModelLoadError(
                f"The TorchScript model answers with shape {list(weights.shape)} for {group.texts} texts; expected one"
                " row of vocabulary weights a text"
            )
        return weights.reshape(group.texts, -1).clone()
