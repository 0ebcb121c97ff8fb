"""The description of a model: cheap, picklable, and able to load the real thing where it runs."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from models.embeddings import Embedder
from models.endpoints.endpoint import Endpoint
from models.reranker import Reranker


class Model(Protocol):
    """A model that an endpoint names, not loaded yet.

    Beam ships this description to the workers; `load` runs there, once a process. Nothing here holds weights.
    """

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint that names the model."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest over everything that changes an embedding; not chunking, device or batch size.

        Raises:
            ModelLoadError: the weights cannot be found, so that it is not known which they are.
        """
        ...

    @property
    def model_settings(self) -> dict[str, Any]:
        """``task_type``, ``service``; for dense models ``dimensions``, ``similarity``, ``element_type``."""
        ...

    @property
    def weight_bytes(self) -> int:
        """Bytes of the files of weights that `load` reads; 0 where there are none."""
        ...

    @property
    def max_tokens(self) -> int | None:
        """The model's window in tokens, special tokens included; None where nothing is ever cut."""
        ...

    def describe(self) -> dict[str, Any]:
        """Say which model this is, as JSON: model id, location, revision, what it stands in for."""
        ...

    def problems(self) -> list[str]:
        """Name everything that would stop `load`, one sentence each; an empty list means it can load."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """Count each text's tokens before truncation, special tokens included; loads no weights."""
        ...

    def impatient(self, timeout: float | None = None) -> "Model":
        """Return this model for a person who waits: a service that does not answer is given up sooner.

        Args:
            timeout: seconds that a service may take for one attempt; None takes the usual ones. Models that run on
                this machine know no such limit.
        """
        ...

    def load(self, device: str | None = None) -> Embedder:
        """Load the weights.

        Args:
            device: ``cpu``, ``cuda`` or ``cuda:1``; None takes the first CUDA device where there is one.

        Raises:
            ModelLoadError: the weights are missing, unreadable or not allowed.
        """
        ...


class RerankModel(Protocol):
    """A model that ranks texts for a query, named by an endpoint of task type ``rerank`` and not loaded yet."""

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint that names the model."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest over everything that changes a score.

        Raises:
            ModelLoadError: the weights cannot be found.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Say which model this is; see `Model.describe`."""
        ...

    def problems(self) -> list[str]:
        """Name everything that would stop `load`, one sentence each; an empty list means it can load."""
        ...

    def impatient(self, timeout: float | None = None) -> "RerankModel":
        """Return this model for a person who waits; see `Model.impatient`."""
        ...

    def load(self, device: str | None = None) -> Reranker:
        """Load the weights; see `Model.load`."""
        ...
