"""The description of a cross-encoder that runs on this machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.endpoints.endpoint import Endpoint
from models.errors import InferenceError, ModelLoadError
from models.local.architectures import cross_encoder
from models.local.catalog import Checkpoint, resolve
from models.local.checkpoint import OpenCheckpoint, described, int8_problems, open_checkpoint
from models.local.device import choose_device, choose_dtype
from models.local.engine.workers import Workers, allocations, usable_cores
from models.local.model import model_id_of
from models.local.rerank.cross_encoder import CrossEncoder, PairTokens, must_agree
from models.local.settings import digest
from models.local.weights import weight_files
from models.model import RerankModel

CODE_VERSION = 1
"""Raised when a change to this code changes scores."""


def local_rerank_model(endpoint: Endpoint, models: Mapping[str, Any] | None = None) -> RerankModel:
    """Describe the reranking model of an endpoint that runs on this machine.

    Args:
        endpoint: its definition.
        models: the run config's ``models`` section.

    Raises:
        ValidationError: the section or the endpoint's settings cannot be.
    """
    return LocalRerankModel(endpoint, resolve(model_id_of(endpoint), models or {}))


@dataclass(frozen=True)
class LocalRerankModel:
    """A cross-encoder that runs in this process.

    Attributes:
        endpoint: the endpoint that names it.
        checkpoint: which weights, and how to use them.
    """

    endpoint: Endpoint
    checkpoint: Checkpoint

    @property
    def fingerprint(self) -> str:
        """See `models.model.RerankModel`."""
        opened = self.opened
        return digest(
            {
                "code": CODE_VERSION,
                "model": self.checkpoint.model_id,
                "revision": opened.revision,
                "backend": self.checkpoint.precision,
                "max_tokens": opened.window,
            }
        )

    @property
    def opened(self) -> OpenCheckpoint:
        """The checkpoint's files.

        Raises:
            ModelLoadError: they are not on this machine.
        """
        return open_checkpoint(self.checkpoint)

    def describe(self) -> dict[str, Any]:
        """See `models.model.RerankModel`."""
        return described(self.checkpoint)

    def problems(self) -> list[str]:
        """See `models.model.RerankModel`."""
        found = []
        if self.endpoint.service_settings.get("long_document_strategy") == "chunk":
            found.append(
                "[long_document_strategy: chunk] is not known to models on this machine: they read the beginning of a"
                " text, as [truncate] says; a search gives them chunks"
            )
        try:
            opened = self.opened
            weight_files(opened.folder)
        except InferenceError as error:
            return [*found, error.reason]
        return found + _file_problems(opened, self.checkpoint.model_id) + int8_problems(opened)

    def impatient(self, timeout: float | None = None) -> "LocalRerankModel":
        """Nothing here waits for a service."""
        return self

    def load(self, device: str | None = None) -> CrossEncoder:
        """See `models.model.RerankModel`."""
        problems = self.problems()
        if problems:
            raise ModelLoadError(" ".join(problems))
        device = choose_device(device)
        loaded = self._load_on(device, choose_dtype(self.checkpoint.dtype, device))
        if device != "cpu":
            reference = self._load_on("cpu", "float32")
            try:
                must_agree(loaded, reference)
            finally:
                reference.close()
        return loaded

    def _load_on(self, device: str, dtype: str) -> CrossEncoder:
        opened = self.opened
        score, shift = cross_encoder.load(opened.folder, device, dtype, self.checkpoint.backend == "auto")
        plan = allocations(self.endpoint.service_settings, device)
        workers = Workers(plan, usable_cores() if device == "cpu" else None)
        return CrossEncoder(score, PairTokens(opened.folder, opened.window, shift), workers, device)


def _file_problems(opened: OpenCheckpoint, model_id: str) -> list[str]:
    """Say why a checkpoint cannot rerank; an empty list means it can."""
    task = opened.recipe.task_type
    if task != "rerank":
        return [f"The model [{model_id}] makes [{task}] and does not rerank"]
    return cross_encoder.unsupported(opened.folder)
