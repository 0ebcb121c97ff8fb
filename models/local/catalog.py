"""Which checkpoint stands behind a model id, and how its output becomes an embedding.

`catalog.json` lists the models that are known by name. What it leaves out, and everything about a model that
it does not list, is read from the checkpoint in the sentence-transformers layout. The run config's
``models`` section says where weights lie on this machine, or which other model stands in.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from models.endpoints.prices import PRICE
from models.errors import ModelLoadError, ValidationError
from models.local.architectures.static import is_static, stored_recipe
from models.local.weights import PACKAGE_PREFIX, read_json

POOLINGS = ("mean", "cls", "last", "max")
ACTIVATIONS = ("log1p_relu", "log1p_log1p_relu")
BACKENDS = ("auto", "torch", "torchscript")
DTYPES = ("float32", "bfloat16", "float16", "int8")


@dataclass(frozen=True)
class Recipe:
    """How a checkpoint turns texts into embeddings. None means: what the checkpoint says.

    Attributes:
        task_type: ``text_embedding``, ``sparse_embedding`` or ``rerank``.
        pooling: ``mean``, ``cls``, ``last`` or ``max``.
        normalize: scale dense embeddings to length 1.
        max_tokens: the window, special tokens included.
        dimensions: length of the dense embeddings.
        matryoshka: shorter lengths that the model was trained for.
        prefixes: input type -> text put before each input.
        adapters: input type -> name of the adapter.
        activation: of sparse logits.
        query: ``idf`` where queries need no model, only a table of term weights.
        licence: as the model's card names it.
    """

    task_type: str | None = None
    pooling: str | None = None
    normalize: bool | None = None
    max_tokens: int | None = None
    dimensions: int | None = None
    matryoshka: tuple[int, ...] = ()
    prefixes: Mapping[str, str] | None = None
    adapters: Mapping[str, str] = field(default_factory=dict)
    activation: str | None = None
    query: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Checkpoint:
    """Which weights to load.

    Attributes:
        model_id: the id that the endpoint names.
        location: as `models.local.weights.find_folder` takes it; None where the weights cannot be had.
        revision: of a hub id.
        dtype: None picks float32 on CPU and half precision on CUDA; see `precision`.
        backend: ``auto`` takes compiled kernels where they fit, and PyTorch elsewhere; ``torch`` takes PyTorch;
            ``torchscript`` runs a TorchScript file, which must be trusted.
        download: whether a hub id may be fetched.
        substituted_for: the model that this one stands in for.
        merged_adapter: the adapter that is in the weights already, so that the checkpoint has none beside them.
        recipe: how to use it.
    """

    model_id: str
    location: str | None
    revision: str | None = None
    dtype: str | None = None
    backend: str = "auto"
    download: bool = False
    substituted_for: str | None = None
    merged_adapter: str | None = None
    recipe: Recipe = field(default_factory=Recipe)

    @property
    def precision(self) -> str:
        """``int8`` or ``float``: embeddings of the two are told apart, those of several floats are not."""
        return "int8" if self.dtype == "int8" else "float"


@lru_cache(maxsize=1)
def catalog() -> dict[str, dict[str, Any]]:
    """Read `catalog.json`."""
    content: dict[str, dict[str, Any]] = json.loads(
        resources.files("models.local").joinpath("catalog.json").read_text("utf-8")
    )
    return content


def catalog_id(model_id: str) -> str:
    """Name a model as the catalogue does: no leading dot, no platform suffix, its own name for a hub id that it lists.

    A hub id may be spelt as Eland uploads it: ``owner__name``.
    """
    name = model_id.removeprefix(".").removesuffix("_linux-x86_64")
    return _hub_ids().get(name.lower().replace("__", "/"), name)


@lru_cache(maxsize=1)
def _hub_ids() -> dict[str, str]:
    """Hub id in lower case -> the catalogue's name."""
    return {
        entry["location"].lower(): name
        for name, entry in catalog().items()
        if entry["location"] and not entry["location"].startswith(PACKAGE_PREFIX)
    }


def keys_of(model_id: str) -> tuple[str, ...]:
    """Names under which the run config's section may have an entry for a model id, the best one first."""
    name = catalog_id(model_id)
    return model_id, name, "." + name


def resolve(model_id: str, models: Mapping[str, Any]) -> Checkpoint:
    """Find the checkpoint of a model id.

    Args:
        model_id: as in the endpoint's ``service_settings``.
        models: the run config's section: model id -> location, catalogue id, or an object.

    Raises:
        ValidationError: the section says something that cannot be.
    """
    name = catalog_id(model_id)
    choice = next((models[key] for key in keys_of(model_id) if models.get(key) is not None), None)
    if isinstance(choice, Mapping):
        choice = {key: value for key, value in choice.items() if key != PRICE} or None
    if choice is None:
        return _listed(name) if name in catalog() else Checkpoint(model_id, model_id)
    settings = {"location": choice} if isinstance(choice, str) else choice
    if not isinstance(settings, Mapping):
        raise ValidationError(
            [f"[models.{model_id}] must be a location, a model id or an object, got [{settings}]"]
        )
    return _chosen(name, settings)


def _listed(name: str) -> Checkpoint:
    entry = catalog()[name]
    known = {each.name for each in fields(Recipe)}
    values = {key: value for key, value in entry.items() if key in known}
    values["matryoshka"] = tuple(values.get("matryoshka", ()))
    return Checkpoint(name, entry["location"], entry.get("revision"), recipe=Recipe(**values))


def _chosen(name: str, settings: Mapping[str, Any]) -> Checkpoint:
    """Apply one entry of the ``models`` section."""
    problems = _problems(name, settings)
    if problems:
        raise ValidationError(problems)
    listed = _listed(name) if name in catalog() else Checkpoint(name, None)
    location = settings.get("location", listed.location)
    stand_in = catalog_id(location) if location else None
    base = replace(listed, location=location)
    if stand_in in catalog() and stand_in != name:
        base = replace(_listed(stand_in), substituted_for=name)
    names = ("revision", "dtype", "backend", "download", "merged_adapter")
    chosen = {key: settings[key] for key in names if key in settings}
    return replace(base, **chosen)


def _problems(name: str, settings: Mapping[str, Any]) -> list[str]:
    known = {
        **dict.fromkeys(("location", "revision", "dtype", "backend", "merged_adapter"), str),
        "download": bool,
    }
    where = f"models.{name}"
    problems = [
        f"[{where}] unknown setting [{key}]; known: {sorted(known)}" for key in settings if key not in known
    ]
    problems += [
        f"[{where}.{key}] must be a {kind.__name__}, got [{settings[key]}]"
        for key, kind in known.items()
        if key in settings and not isinstance(settings[key], kind)
    ]
    for key, allowed in (("dtype", DTYPES), ("backend", BACKENDS)):
        if isinstance(settings.get(key), str) and settings[key] not in allowed:
            problems.append(f"[{where}.{key}] must be one of {list(allowed)}, got [{settings[key]}]")
    return problems


def complete(recipe: Recipe, folder: Path) -> Recipe:
    """Fill what `recipe` leaves open from the checkpoint's own files."""
    config = read_json(folder, "config.json")
    if is_static(config):
        found = {key: value for key, value in stored_recipe(folder).items() if getattr(recipe, key) is None}
        return replace(recipe, **found)
    stored = _stored_pooling(folder)
    filled = {
        "task_type": _task_type(config),
        "max_tokens": _window(folder),
        "prefixes": _prompts(folder),
        "activation": ACTIVATIONS[0],
        "normalize": any("Normalize" in module for module in _modules(folder)),
        **stored,
    }
    missing = {key: value for key, value in filled.items() if getattr(recipe, key) is None}
    recipe = replace(recipe, **missing)
    limits = [limit for limit in (recipe.max_tokens, _positions(config)) if limit]
    recipe = replace(recipe, max_tokens=min(limits, default=None))
    if recipe.pooling is None:
        recipe = replace(recipe, pooling="max" if recipe.task_type == "sparse_embedding" else "mean")
    if recipe.dimensions is None and recipe.task_type == "text_embedding":
        recipe = replace(recipe, dimensions=config.get("hidden_size", config.get("dim")))
    return recipe


def _task_type(config: Mapping[str, Any]) -> str:
    names = [str(name) for name in config.get("architectures") or []]
    if any(name.endswith("ForSequenceClassification") for name in names):
        return "rerank"
    is_masked_lm = any(name.endswith("ForMaskedLM") for name in names)
    return "sparse_embedding" if is_masked_lm else "text_embedding"


def _modules(folder: Path) -> list[str]:
    path = folder / "modules.json"
    return [module["type"] for module in json.loads(path.read_text("utf-8"))] if path.is_file() else []


def _stored_pooling(folder: Path) -> dict[str, Any]:
    """Read the pooling module's settings, in sentence-transformers' old or new spelling."""
    path = folder / "modules.json"
    if not path.is_file():
        return {}
    for module in json.loads(path.read_text("utf-8")):
        if not module["type"].endswith("Pooling") or "Splade" in module["type"]:
            continue
        config = read_json(folder / module["path"], "config.json")
        modes = {
            "mean": config.get("pooling_mode_mean_tokens") or config.get("pooling_mode") == "mean",
            "cls": config.get("pooling_mode_cls_token") or config.get("pooling_mode") == "cls",
            "last": config.get("pooling_mode_lasttoken") or config.get("pooling_mode") == "lasttoken",
        }
        chosen = [name for name, is_set in modes.items() if is_set]
        if len(chosen) != 1:
            raise ModelLoadError(f"The pooling in [{path}] is not one of mean, cls, lasttoken: [{config}]")
        return {"pooling": chosen[0]}
    return {}


def _window(folder: Path) -> int | None:
    """The checkpoint's window: sentence-transformers' setting, else the tokenizer's."""
    stored = read_json(folder, "sentence_bert_config.json").get("max_seq_length")
    length = stored or read_json(folder, "tokenizer_config.json").get("model_max_length")
    return int(length) if length and length < 10**9 else None  # tokenizers write 10^30 for "no limit"


def _positions(config: Mapping[str, Any]) -> int | None:
    """How many positions the model has embeddings for; no window can be longer."""
    positions = config.get("max_position_embeddings")
    if positions and config.get("model_type") in ("roberta", "xlm-roberta", "camembert"):
        positions -= config.get("pad_token_id", 1) + 1  # theirs start behind the padding id
    return positions


def _prompts(folder: Path) -> dict[str, str]:
    """Read sentence-transformers' prompts; `document` and `query` are the names it gives retrieval."""
    prompts: Mapping[str, str] = read_json(folder, "config_sentence_transformers.json").get("prompts") or {}
    names = {
        "ingest": ("document", "passage"),
        "search": ("query",),
        "classification": ("classification",),
        "clustering": ("clustering",),
    }
    found = {
        kind: next((prompts[name] for name in tried if prompts.get(name)), "")
        for kind, tried in names.items()
    }
    return {kind: prompt for kind, prompt in found.items() if prompt}
