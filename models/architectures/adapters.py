"""LoRA adapters in the PEFT layout, added to the weights once when a model is loaded."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import ModelLoadError

if TYPE_CHECKING:
    import torch

_PREFIX = "base_model.model."


def find_adapter(folder: Path, name: str) -> Path | None:
    """Find the folder of an adapter; None where the checkpoint has no adapters at all, being merged already.

    Args:
        folder: the checkpoint.
        name: the adapter's name; its folder may spell a dot as an underscore.

    Raises:
        ModelLoadError: there are adapters, but not this one.
    """
    there = {path.parent for path in folder.glob("**/adapter_config.json")}
    spellings = {name, name.replace(".", "_")}
    for path in sorted(there):
        if path.name in spellings:
            return path
    if there:
        raise ModelLoadError(
            f"The checkpoint in [{folder}] has no adapter [{name}]; it has {sorted(path.name for path in there)}"
        )
    return None


def merge_adapter(model: Any, folder: Path, name: str) -> None:
    """Add the adapter's update, scale x B A, to the weights that it adapts.

    Args:
        model: a model of transformers.
        folder: the checkpoint.
        name: the adapter's name.

    Raises:
        ModelLoadError: the adapter is missing or does not fit the model.
    """
    from safetensors.torch import load_file

    path = find_adapter(folder, name)
    if path is None:
        return
    if not (path / "adapter_model.safetensors").is_file():
        raise ModelLoadError(
            f"The adapter in [{path}] has no adapter_model.safetensors; only safetensors is read"
        )
    config = json.loads((path / "adapter_config.json").read_text("utf-8"))
    rank = int(config["r"])
    scale = config.get("lora_alpha", rank) / (rank**0.5 if config.get("use_rslora") else rank)
    tensors = load_file(path / "adapter_model.safetensors")
    for key in tensors:
        if ".lora_A" in key:
            _add(model, key, tensors, scale)


def _add(model: Any, key: str, tensors: "dict[str, torch.Tensor]", scale: float) -> None:
    import torch

    module = key.removeprefix(_PREFIX).partition(".lora_A")[0]
    down, up = tensors[key], tensors[key.replace(".lora_A", ".lora_B")]
    try:
        weight = model.get_submodule(module).weight
    except AttributeError:
        raise ModelLoadError(f"The adapter changes [{module}], which the model does not have") from None
    update = (up.float() @ down.float()) * scale
    if update.shape != weight.shape:
        # An embedding's adapter is stored the other way round.
        update = update.T
    with torch.no_grad():
        weight.add_(update.to(weight))
