"""Models that searches share: whose, for how long, and without standing in one another's way."""

import threading
from dataclasses import dataclass, replace

from support.checkpoints import local_endpoint

from models.endpoints.endpoint import Endpoint
from pipeline.search import loaded


@dataclass(frozen=True)
class Model:
    endpoint: Endpoint
    fingerprint: str = "one"
    gate: threading.Event | None = None

    def load(self) -> object:
        if self.gate is not None:
            self.gate.wait(60)
        return object()


def model(key: str = "env:OLD", **changes) -> Model:
    return Model(local_endpoint("rerank", {"api_key": key}), **changes)


def test_an_endpoints_model_is_loaded_once():
    assert loaded.loaded(model()) is loaded.loaded(model())


def test_another_secret_has_another_client():
    assert loaded.loaded(model()) is not loaded.loaded(model("env:NEW"))


def test_a_changed_definition_is_loaded_anew():
    before, other = (
        loaded.loaded(model()),
        replace(model(), endpoint=replace(model().endpoint, inference_id="x")),
    )
    kept = loaded.loaded(other)
    loaded.forget("test")
    assert loaded.loaded(model()) is not before
    assert loaded.loaded(other) is kept


def test_no_search_waits_for_the_model_of_another():
    gate = threading.Event()
    first = threading.Thread(target=loaded.loaded, args=(model(fingerprint="slow", gate=gate),))
    first.start()
    assert loaded.loaded(model(fingerprint="quick")) is not None
    gate.set()
    first.join(60)
    assert not first.is_alive()


def test_only_so_many_are_kept(monkeypatch):
    monkeypatch.setattr(loaded, "KEPT_MODELS", 2)
    first = loaded.loaded(model(fingerprint="a"))
    for name in "bcd":
        loaded.loaded(model(fingerprint=name))
    assert loaded.loaded(model(fingerprint="a")) is not first
