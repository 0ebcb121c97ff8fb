"""Models that are loaded once a process and shared by all searches, told from one another by their fingerprints."""

from functools import lru_cache
from threading import RLock
from typing import Any, Protocol, TypeVar

_LOADING = RLock()
Opened = TypeVar("Opened", covariant=True)


class Loadable(Protocol[Opened]):
    """An embedding or a reranking model."""

    @property
    def fingerprint(self) -> str:
        """Changes when the model would answer otherwise."""
        ...

    def load(self) -> Opened:
        """Load it."""
        ...


def loaded(model: Loadable[Opened]) -> Opened:
    """The model, loaded by whoever asked first."""
    with _LOADING:  # searches side by side would each load it
        opened: Opened = _load(_Key(model))
    return opened


class _Key:
    """A model, equal to others of its fingerprint."""

    def __init__(self, model: Loadable[Any]) -> None:
        self.model = model
        self.fingerprint = model.fingerprint

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and other.fingerprint == self.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)


@lru_cache(maxsize=12)
def _load(key: _Key) -> Any:
    return key.model.load()
