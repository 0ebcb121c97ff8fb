"""Models that are loaded once a process and shared by all searches."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from models.endpoints.endpoint import Endpoint

KEPT_MODELS = 12
"""Models in memory; the one that was used longest ago goes, as soon as no search has it."""

Opened = TypeVar("Opened", covariant=True)


class Loadable(Protocol[Opened]):
    """An embedding or a reranking model."""

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint that names it."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes when the model would answer otherwise."""
        ...

    def load(self) -> Opened:
        """Load it."""
        ...


@dataclass
class _Place:
    """Where a model is or will be; searches side by side would each load it."""

    loading: threading.Lock = field(default_factory=threading.Lock)
    model: Any = None


_PLACES: OrderedDict[tuple[str, str, bytes], _Place] = OrderedDict()
_LOOKING = threading.Lock()


def loaded(model: Loadable[Opened]) -> Opened:
    """The model, loaded by whoever asked first.

    A fingerprint says nothing of secrets and headers, so models of two endpoints are never shared.
    """
    key = (model.endpoint.inference_id, model.fingerprint, model.endpoint.key)
    with _LOOKING:
        place = _PLACES.setdefault(key, _Place())
        _PLACES.move_to_end(key)
        while len(_PLACES) > KEPT_MODELS:
            _PLACES.popitem(last=False)
    with place.loading:
        if place.model is None:
            place.model = model.load()
        opened: Opened = place.model
    return opened


def forget(inference_id: str) -> None:
    """Load the models of an endpoint anew when they are wanted: its definition, or a secret, has changed."""
    with _LOOKING:
        for key in [key for key in _PLACES if key[0] == inference_id]:
            del _PLACES[key]
