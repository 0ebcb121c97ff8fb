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
from models.local.engine.batching import TokenBatch
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


_STEP = 16
"""Texts are padded to a multiple of this many tokens: a GPU then sees few shapes, and each with many texts."""


class ScriptedModel:
    """A traced text expansion model: token ids, mask, types and positions in, weights of the vocabulary out."""

    def __init__(
        self, folder: Path, device: str, special_ids: npt.NDArray[np.int64], dtype: str = "float32"
    ) -> None:
        """Load the script.

        Args:
            folder: holds the ``.pt`` file.
            device: where to compute.
            special_ids: tokens that never get a weight.
            dtype: what the products are computed in; the script itself keeps float32.

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
        self._device, self._dtype = device, getattr(torch, dtype)
        self._step = _STEP if self._passes_over_padding() else 1

    def __call__(self, batch: PackedBatch) -> SparseRows:
        """Compute the sparse rows of a batch."""
        import torch

        padded = -(-batch.lengths // self._step) * self._step
        # The texts stand by length: those of one padded length are neighbours, which begin where it changes.
        firsts = np.flatnonzero(np.diff(padded, prepend=-1))
        bounds = zip(firsts.tolist(), [*firsts[1:].tolist(), len(padded)], strict=True)
        weights = torch.cat([self._weigh(batch, slice(*some), int(padded[some[0]])) for some in bounds])
        weights[:, self._special] = 0
        return sparsify(weights)

    def _weigh(self, batch: PackedBatch, texts: slice, longest: int) -> "torch.Tensor":
        """Run neighbouring texts, padded to `longest`."""
        import torch

        ends = batch.ends[texts.start : texts.stop + 1].long()
        places = torch.arange(longest, device=self._device)
        mask = places < ends.diff()[:, None]
        # Padding repeats a token that is there, so that nothing is read beyond the batch; the mask takes it out.
        ids = batch.ids[torch.where(mask, ends[:-1, None] + places, ends[:-1, None])].long()
        positions = places.expand_as(ids)
        with torch.autocast(self._device.split(":")[0], self._dtype, self._dtype != torch.float32):
            out = self._script(ids, mask.long(), torch.zeros_like(ids), positions)
        weights: torch.Tensor = (out[0] if isinstance(out, tuple | list) else out).float()
        if weights.shape[0] != len(ids) or weights.numel() != len(ids) * weights.shape[-1]:
            raise ModelLoadError(
                f"The TorchScript model answers with shape {list(weights.shape)} for {len(ids)} texts; expected one"
                " row of vocabulary weights a text"
            )
        return weights.reshape(len(ids), -1).clone()

    def _passes_over_padding(self) -> bool:
        """Whether the mask makes padding as good as nothing; an export that forgot it gets texts of one length."""
        import torch

        ids = self._special.repeat(4)[:5].int().cpu().numpy()
        batch = PackedBatch.put(TokenBatch(ids, np.array([len(ids)])), self._device)
        with torch.inference_mode():
            alone, padded = (self._weigh(batch, slice(0, 1), longest) for longest in (len(ids), _STEP))
        return bool(torch.allclose(alone, padded, rtol=0.02, atol=0.02))
