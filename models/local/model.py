"""Models that run on this machine: services `elasticsearch`, `elser`, `elastic` and `hashing`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.embeddings import Embedder
from models.errors import InferenceError, ModelLoadError, ValidationError
from models.local.architectures.torchscript import find_script, read_vocabulary
from models.local.catalog import Checkpoint, Recipe, complete, resolve
from models.local.hashing import HashingModel
from models.local.settings import digest, dimension_problems, model_settings
from models.local.tokens import Tokens, open_tokens, word_piece_tokens
from models.local.weights import content_hash, find_folder, revision_of, weight_files
from models.model import EndpointDefinition, Model

CODE_VERSION = 1
"""Raised when a change to this code changes embeddings."""


def local_model(endpoint: EndpointDefinition, models: Mapping[str, Any] | None = None) -> Model:
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


def model_id_of(endpoint: EndpointDefinition) -> str:
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

    endpoint: EndpointDefinition
    checkpoint: Checkpoint

    @property
    def fingerprint(self) -> str:
        """See `models.model.Model`."""
        recipe = asdict(self.recipe)
        del recipe["licence"], recipe["matryoshka"]
        return digest(
            {
                "code": CODE_VERSION,
                "model": self.checkpoint.model_id,
                "revision": self.revision,
                "backend": "torchscript" if self.checkpoint.backend == "torchscript" else "float",
                "recipe": recipe | {"max_tokens": self.max_tokens},
                "settings": self.model_settings,
            }
        )

    @property
    def revision(self) -> str:
        """Which version of the weights this is.

        Raises:
            ModelLoadError: they are not on this machine.
        """
        if self.checkpoint.backend == "torchscript":
            return content_hash([find_script(self.folder)])
        from models.local.architectures.adapters import adapter_files

        adapters = adapter_files(self.folder) if self.recipe.adapters else []
        return revision_of(self.folder, self.checkpoint.revision, adapters)

    @property
    def folder(self) -> Path:
        """The folder of the checkpoint.

        Raises:
            ModelLoadError: it is not on this machine.
        """
        checkpoint = self.checkpoint
        if checkpoint.location is None:
            raise ModelLoadError(_unobtainable(checkpoint.model_id), status=404)
        return _find_folder(checkpoint.location, checkpoint.revision, checkpoint.download)

    @property
    def recipe(self) -> Recipe:
        """How to use the checkpoint: the catalogue's word, completed from the files where they are here."""
        try:
            folder = self.folder
        except ModelLoadError:
            return self.checkpoint.recipe
        return _completed(self.checkpoint, folder)

    @property
    def dimensions(self) -> int | None:
        """Length of the dense embeddings; None for sparse ones."""
        if self.endpoint.task_type == "sparse_embedding":
            return None
        return self.endpoint.service_settings.get("dimensions") or self.recipe.dimensions

    @property
    def model_settings(self) -> dict[str, Any]:
        """See `models.model.Model`."""
        return model_settings(self.endpoint, self.dimensions)

    @property
    def max_tokens(self) -> int | None:
        """The model's window, or the endpoint's ``max_input_tokens`` where that is smaller."""
        limits = (self.recipe.max_tokens, self.endpoint.service_settings.get("max_input_tokens"))
        return min((limit for limit in limits if limit), default=None)

    def describe(self) -> dict[str, Any]:
        """See `models.model.Model`."""
        checkpoint = self.checkpoint
        try:
            revision: str | None = self.revision
        except ModelLoadError:
            revision = checkpoint.revision
        return {
            "model_id": checkpoint.model_id,
            "location": checkpoint.location,
            "revision": revision,
            "substituted_for": checkpoint.substituted_for,
            "licence": self.recipe.licence,
            **({"merged_adapter": checkpoint.merged_adapter} if self.recipe.adapters else {}),
        }

    def problems(self) -> list[str]:
        """See `models.model.Model`."""
        try:
            found = self._file_problems()
        except InferenceError as error:
            return [error.reason]
        recipe = self.recipe
        if recipe.task_type != self.endpoint.task_type and self.endpoint.task_type != "embedding":
            found.append(
                f"The endpoint [{self.endpoint.inference_id}] is for [{self.endpoint.task_type}], but the"
                f" model [{self.checkpoint.model_id}] makes [{recipe.task_type}]"
            )
        return found + dimension_problems(self.endpoint, recipe.dimensions, recipe.matryoshka)

    def _file_problems(self) -> list[str]:
        from models.local.architectures.adapters import adapter_problems
        from models.local.load import unsupported

        checkpoint, tokens = self.checkpoint, self.tokens
        if self.checkpoint.backend == "torchscript":
            find_script(self.folder)
            return [] if tokens.special_ids().size else [f"The vocabulary in [{self.folder}] is not BERT's"]
        weight_files(self.folder)
        return unsupported(self.folder, self.endpoint.task_type) or adapter_problems(
            self.folder, checkpoint.model_id, self.recipe.adapters, checkpoint.merged_adapter
        )

    @property
    def tokens(self) -> Tokens:
        """The model's tokenizer, opened once a process."""
        if self.checkpoint.backend == "torchscript":
            return word_piece_tokens(read_vocabulary(self.folder), self.max_tokens)
        return open_tokens(self.folder, self.max_tokens)

    def count_tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """See `models.model.Model`."""
        return self.tokens.count(texts)

    def load(self, device: str | None = None) -> Embedder:
        """See `models.model.Model`."""
        from models.local.load import load_embedder

        problems = self.problems()
        if problems:
            raise ModelLoadError(" ".join(problems))
        return load_embedder(self, device)


def _unobtainable(model_id: str) -> str:
    return (
        f"The weights of [{model_id}] are Elastic's property and cannot be shipped or downloaded here. Two"
        " ways on: export the model from your own cluster and name its folder as [location] in the run config's"
        " [models] section, with [backend: torchscript]; or let an open model stand in, for example"
        f" [models: {{{model_id}: splade-tiny}}]"
    )


# Descriptions are asked often (a fingerprint for each document); the answers are kept for the life of the
# process.
_find_folder = lru_cache(maxsize=64)(find_folder)
_COMPLETED: dict[tuple[str, Path], Recipe] = {}


def _completed(checkpoint: Checkpoint, folder: Path) -> Recipe:
    key = (repr(checkpoint.recipe), folder)
    if key not in _COMPLETED:
        _COMPLETED[key] = complete(checkpoint.recipe, folder)
    return _COMPLETED[key]
