"""LoRA adapters in the PEFT layout, added to the weights once when a model is loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import ModelLoadError
from models.local.weights import read_json

if TYPE_CHECKING:
    import torch


_PREFIX = "base_model.model."
_WEIGHTS = "adapter_model.safetensors"
# Of a linear layer, and of an embedding, whose two matrices PEFT stores the other way round.
_PAIRS = ((".lora_A.weight", ".lora_B.weight"), (".lora_embedding_A", ".lora_embedding_B"))
_UNSUPPORTED = ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out")


def adapter_files(folder: Path) -> list[Path]:
    """List the files of all adapters of a checkpoint, in order."""
    configs = folder.glob("**/adapter_config.json")
    files = [file for config in configs for file in (config, config.with_name(_WEIGHTS))]
    return sorted(file for file in files if file.is_file())


def adapter_problems(
    folder: Path, model_id: str, adapters: Mapping[str, str], merged: str | None
) -> list[str]:
    """Say why a model cannot embed with its adapters; an empty list means it can.

    Args:
        folder: the checkpoint.
        model_id: its model, for messages.
        adapters: input type -> name of the adapter.
        merged: the adapter that the run config says is in the weights already.
    """
    wanted = [adapters[kind] for kind in ("ingest", "search") if kind in adapters]
    there = _adapters(folder)
    if merged is not None:
        return _merged_problems(folder, model_id, adapters, merged, sorted(there))
    if not adapters and (there or _wraps_a_base(folder)):
        return [
            f"The checkpoint in [{folder}] embeds with task adapters, and [{model_id}] says nothing of them: let the"
            " endpoint's [model_id] be a model of the catalogue, for example [jina-embeddings-v3], and name this"
            " folder as its location in the run config's [models] section"
        ]
    if wanted and not there:
        return [
            f"The checkpoint in [{folder}] has no adapters, and [{model_id}] embeds with"
            f" {sorted(set(wanted))}: copy the whole model there, adapter folders included, or, where one"
            f" adapter is merged into these weights, say which with [merged_adapter: {wanted[0]}] for"
            f" [{model_id}] in the run config's [models] section"
        ]
    return [_missing(folder, name, there) for name in dict.fromkeys(wanted) if _find(there, name) is None]


def _merged_problems(
    folder: Path, model_id: str, adapters: Mapping[str, str], merged: str, there: list[str]
) -> list[str]:
    setting = f"[models.{model_id}.merged_adapter] is [{merged}]"
    if merged not in adapters.values():
        known = f"one of {sorted(set(adapters.values()))}" if adapters else "none: it has no adapters"
        return [f"{setting}, but the adapters of [{model_id}] are {known}"]
    if there:
        return [
            f"{setting}, but [{folder}] has adapters to add to its weights, {there}: leave the setting out"
        ]
    if _wraps_a_base(folder):
        return [
            f"{setting}, but [{folder}] is of type [jina_embeddings_v5], whose weights have no adapter in them: copy"
            " its adapter folders there too"
        ]
    return []


def merge_adapter(model: Any, folder: Path, name: str) -> None:
    """Add the adapter's update, scale x B A, to the weights that it adapts.

    Args:
        model: a model of transformers.
        folder: the checkpoint.
        name: the adapter's name; its folder may spell a dot as an underscore.

    Raises:
        ModelLoadError: the adapter is missing, of a kind that is not known here, or does not fit the model.
    """
    there = _adapters(folder)
    path = _find(there, name)
    if path is None:
        raise ModelLoadError(_missing(folder, name, there))
    scale = _scale(path, name)
    for module, (down, up) in _pairs(path, _tensors(path)).items():
        _add(model, module, (up.float() @ down.float()) * scale)


def _scale(path: Path, name: str) -> float:
    config = read_json(path, "adapter_config.json")
    refused = [setting for setting in _UNSUPPORTED if config.get(setting)]
    if refused:
        raise ModelLoadError(
            f"The adapter in [{path}] sets [{refused[0]}], which is not known here; merge it into the weights"
            f" with peft's merge_and_unload and name it as [merged_adapter: {name}]"
        )
    rank = config.get("r")
    if not isinstance(rank, int) or rank < 1:
        raise ModelLoadError(
            f"The adapter in [{path}] has no rank: [r] in its adapter_config.json is [{rank}]"
        )
    return float(config.get("lora_alpha", rank) / (rank**0.5 if config.get("use_rslora") else rank))


def _tensors(path: Path) -> "dict[str, torch.Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (path / _WEIGHTS).is_file():
        raise ModelLoadError(f"The adapter in [{path}] has no {_WEIGHTS}; only safetensors is read")
    try:
        return load_file(path / _WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise ModelLoadError(f"The adapter in [{path / _WEIGHTS}] cannot be read: {error}") from error


def _pairs(
    path: Path, tensors: "Mapping[str, torch.Tensor]"
) -> "dict[str, tuple[torch.Tensor, torch.Tensor]]":
    """Pair an adapter's tensors by the module that they adapt; none is passed over."""
    found = {}
    rest = set(tensors)
    for key in tensors:
        for first, second in _PAIRS:
            module = key.removesuffix(first)
            if module != key and module + second in tensors:
                found[module.removeprefix(_PREFIX)] = (tensors[key], tensors[module + second])
                rest -= {key, module + second}
    if rest or not found:
        what = f"the tensor [{min(rest)}]" if rest else "no tensors"
        raise ModelLoadError(f"The adapter in [{path}] has {what}, where pairs of lora_A and lora_B belong")
    return found


def _add(model: Any, module: str, update: "torch.Tensor") -> None:
    import torch

    try:
        adapted = model.get_submodule(module)
    except AttributeError:
        raise ModelLoadError(f"The adapter changes [{module}], which the model does not have") from None
    weight = adapted.weight
    if isinstance(adapted, torch.nn.Embedding):
        update = update.T
    if update.shape != weight.shape:
        raise ModelLoadError(
            f"The adapter's update of [{module}] has shape {list(update.shape)}, and its weights"
            f" {list(weight.shape)}; the adapter belongs to another model"
        )
    with torch.no_grad():
        weight.add_(update.to(weight))


def _adapters(folder: Path) -> dict[str, Path]:
    return {path.parent.name: path.parent for path in sorted(folder.glob("**/adapter_config.json"))}


def _wraps_a_base(folder: Path) -> bool:
    """Whether the weights are a bare base, of no use without an adapter."""
    return read_json(folder, "config.json").get("model_type") == "jina_embeddings_v5"


def _find(there: Mapping[str, Path], name: str) -> Path | None:
    return there.get(name) or there.get(name.replace(".", "_"))


def _missing(folder: Path, name: str, there: Mapping[str, Path]) -> str:
    return f"The checkpoint in [{folder}] has no adapter [{name}]; it has {sorted(there)}"
