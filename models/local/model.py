"""Models that run on this machine: services `elasticsearch`, `elser`, `elastic` and `hashing`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.embeddings import Embedder
from models.endpoints.endpoint import Endpoint
from models.errors import InferenceError, ModelLoadError, ValidationError
from models.local.architectures.adapters import adapter_problems
from models.local.architectures.torchscript import find_script
from models.local.catalog import Checkpoint, Recipe, resolve
from models.local.checkpoint import (
    OpenCheckpoint,
    described,
    int8_problems,
    open_checkpoint,
    recipe_of,
    window_of,
)
from models.local.hashing import HashingModel
from models.local.settings import digest, dimension_problems, dimensions_of, model_settings
from models.local.weights import weight_files
from models.model import Model

CODE_VERSION = 1
"""Raised when a change to this code changes embeddings."""


def local_model(endpoint: Endpoint, models: Mapping[str, Any] | None = None) -> Model:
    """Describe the model of an endpoint that runs on this machine.

    Args:
        endpoint: its definition.
        models: the run config's ``models`` section: where weights lie, or what stands in for a model.

    Raises:
        ValidationError: the section or the endpoint's settings cannot be.
    """
    if endpoint.service == "hashing":
        return HashingModel(endpoint)
    return LocalModel(endpoint, resolve(model_id_of(endpoint), models or {}))


def model_id_of(endpoint: Endpoint) -> str:
    """Return the id of the model that an endpoint names; `elser` names its own."""
    settings = endpoint.service_settings
    name = settings.get("model_id") or settings.get("deployment_id")
    if name:
        return str(name)
    if endpoint.service == "elser":
        return ".elser_model_2"
    raise ValidationError([f"The endpoint [{endpoint.inference_id}] names no model: [model_id] is missing"])


@dataclass(frozen=True)
class LocalModel:
    """A checkpoint that runs in this process.

    Attributes:
        endpoint: the endpoint that names it.
        checkpoint: which weights, and how to use them.
    """

    endpoint: Endpoint
    checkpoint: Checkpoint

    @property
    def fingerprint(self) -> str:
        """See `models.model.Model`."""
        recipe = asdict(self.recipe)
        del recipe["licence"], recipe["matryoshka"]
        opened = self.opened
        return digest(
            {
                "code": CODE_VERSION,
                "model": self.checkpoint.model_id,
                "revision": opened.revision,
                "backend": "torchscript" if opened.is_script else self.checkpoint.precision,
                "recipe": recipe | {"max_tokens": self.max_tokens},
                "settings": self.model_settings,
            }
        )

    @property
    def opened(self) -> OpenCheckpoint:
        """The checkpoint's files.

        Raises:
            ModelLoadError: they are not on this machine.
        """
        return open_checkpoint(self.checkpoint, self._limit)

    @property
    def recipe(self) -> Recipe:
        """How to use the checkpoint: the catalogue's word, completed from the files where they are here."""
        return recipe_of(self.checkpoint)

    @property
    def dimensions(self) -> int | None:
        """Length of the dense embeddings; None for sparse ones."""
        return dimensions_of(self.endpoint, self.recipe.dimensions)

    @property
    def model_settings(self) -> dict[str, Any]:
        """See `models.model.Model`."""
        return model_settings(self.endpoint, self.dimensions)

    @property
    def weight_bytes(self) -> int:
        """See `models.model.Model`."""
        opened = self.opened
        found = [find_script(opened.folder)] if opened.is_script else weight_files(opened.folder)
        return sum(path.stat().st_size for path in found)

    @property
    def max_tokens(self) -> int | None:
        """The model's window, or the endpoint's ``max_input_tokens`` where that is smaller."""
        return window_of(self.recipe, self._limit)

    @property
    def _limit(self) -> int | None:
        return self.endpoint.service_settings.get("max_input_tokens")

    def describe(self) -> dict[str, Any]:
        """See `models.model.Model`."""
        merged = {"merged_adapter": self.checkpoint.merged_adapter} if self.recipe.adapters else {}
        return {**described(self.checkpoint), **merged}

    def problems(self) -> list[str]:
        """See `models.model.Model`."""
        try:
            opened = self.opened
            found = _file_problems(opened, self.endpoint.task_type)
        except InferenceError as error:
            return [error.reason]
        found += int8_problems(opened)
        recipe = opened.recipe
        if recipe.task_type != self.endpoint.task_type and self.endpoint.task_type != "embedding":
            found.append(
                f"The endpoint [{self.endpoint.inference_id}] is for [{self.endpoint.task_type}], but the model"
                f" [{self.checkpoint.model_id}] makes [{recipe.task_type}]"
            )
        return found + dimension_problems(self.endpoint, recipe.dimensions, recipe.matryoshka)

    def count_tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """See `models.model.Model`."""
        return self.opened.tokens.count(texts)

    def impatient(self, timeout: float | None = None) -> "LocalModel":
        """Nothing here waits for a service."""
        return self

    def load(self, device: str | None = None) -> Embedder:
        """See `models.model.Model`."""
        from models.local.load import load_embedder

        problems = self.problems()
        if problems:
            raise ModelLoadError(" ".join(problems))
        return load_embedder(self.opened, self.endpoint, device)


def _file_problems(opened: OpenCheckpoint, task_type: str) -> list[str]:
    """Say why a checkpoint's files cannot be used for a task; raises where one of them is missing or damaged."""
    from models.local.load import unsupported  # here, since models that need no checkpoint never want it

    tokens, checkpoint = opened.tokens, opened.checkpoint
    if opened.is_script:
        find_script(opened.folder)
        return [] if tokens.special_ids().size else [f"The vocabulary in [{opened.folder}] is not BERT's"]
    weight_files(opened.folder)
    return unsupported(opened.folder, task_type) or adapter_problems(
        opened.folder, checkpoint.model_id, opened.recipe.adapters, checkpoint.merged_adapter
    )
