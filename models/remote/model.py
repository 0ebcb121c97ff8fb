"""The description of a model that a service runs."""

import hashlib
import importlib.util
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from models.endpoints.endpoint import Endpoint
from models.endpoints.secrets import Secrets, resolve, unresolved
from models.endpoints.services import SERVICES
from models.errors import InferenceError
from models.model import Model
from models.remote.embedder import BATCH_CHARACTERS, Limits, RemoteEmbedder, RetryCount, Revealed
from models.remote.http import DEFAULT_POLICY, INTERACTIVE_POLICY, HttpClient, Policy
from models.remote.limits import rate_limit
from models.remote.protocol import RemoteProtocol
from models.remote.text import CHARACTERS_PER_TOKEN, estimate_tokens

CODE_VERSION = 1
"""Raised when a change to this code changes embeddings."""

Opened = TypeVar("Opened")
_REVEALED: dict[str, Revealed] = {}  # by settings; what a service said does not change while we run
_log = logging.getLogger(__name__)
_NOT_IN_FINGERPRINT = {"rate_limit", "batch_size", "max_batch_size", "similarity", "user"}
_EXTRAS = {
    "amazonbedrock": ("botocore", "aws"),
    "amazon_sagemaker": ("botocore", "aws"),
    "googlevertexai": ("google.auth", "gcp"),
}
_COSINE = ("amazon_sagemaker", "elastic", "elasticsearch", "fireworksai", "hugging_face")


@dataclass(frozen=True)
class RemoteModel:
    """A model behind an HTTP API. Holds references to secrets; `load` resolves them.

    Attributes:
        endpoint: the endpoint that names it.
        policy: how patient requests are.
    """

    endpoint: Endpoint
    policy: Policy = DEFAULT_POLICY

    @property
    def fingerprint(self) -> str:
        """See `models.model.Model`; covers every setting that a request carries, and no secret.

        Where the endpoint names no dimensions, the service is asked for them. They are part of it then, and the model's
        name in the answer: another model behind the same settings is another model.
        """
        if not self._must_ask:
            return self._settings_digest
        revealed = self._ask()
        told = [self._settings_digest, revealed.dimensions, revealed.name]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    @property
    def _settings_digest(self) -> str:
        secret = self.endpoint.secret_references
        settings = {
            scope: {
                name: value
                for name, value in values.items()
                if name not in _NOT_IN_FINGERPRINT and name not in ("headers", *secret)
            }
            for scope, values in (
                ("service_settings", _without_secret_parameters(self.endpoint.service_settings)),
                ("task_settings", self.endpoint.task_settings),
            )
        }
        identity = [CODE_VERSION, self.endpoint.service, self.endpoint.task_type, settings]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @property
    def model_settings(self) -> dict[str, Any]:
        """See `models.model.Model`; where the endpoint names no dimensions, the service is asked once."""
        settings = {"task_type": self.endpoint.task_type, "service": self.endpoint.service}
        if self.endpoint.is_sparse:
            return settings
        similarity = self.endpoint.service_settings.get("similarity")
        return {
            **settings,
            "dimensions": self._ask().dimensions
            if self._must_ask
            else int(self.endpoint.service_settings["dimensions"]),
            "similarity": similarity or self._default_similarity(),
            "element_type": self.endpoint.element_type,
        }

    @property
    def weight_bytes(self) -> int:
        """No weights are loaded here."""
        return 0

    @property
    def max_tokens(self) -> int | None:
        """The endpoint's ``max_input_tokens``."""
        tokens = self.endpoint.service_settings.get("max_input_tokens")
        return None if tokens is None else int(tokens)

    def describe(self) -> dict[str, Any]:
        """See `models.model.Model`."""
        settings = self.endpoint.service_settings
        names = ("model_id", "model", "deployment_id", "service_id", "endpoint_name", "inference_id")
        return {
            "model_id": next((settings[name] for name in names if settings.get(name)), self.endpoint.service),
            "location": self.endpoint.service,
            "revision": None,
            "substituted_for": None,
            "licence": None,
        }

    def problems(self) -> list[str]:
        """See `models.model.Model`; nothing is called."""
        references = self.endpoint.secret_references
        found = [unresolved(path, reference, self.endpoint.folder) for path, reference in references.items()]
        module, extra = _EXTRAS.get(self.endpoint.service, ("json", ""))
        if not _installed(module):
            found.append(
                f"service [{self.endpoint.service}] needs {module}: pip install 'semantic-ingest[{extra}]'"
            )
        for name in ("url", "target", "token_url"):
            found.append(_url_problem(name, self.endpoint.service_settings.get(name)))
        return [problem for problem in found if problem]

    def count_tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """Estimate the tokens of each text: the service's tokenizer is not here."""
        return np.array([estimate_tokens(text) for text in texts], np.int32)

    def impatient(self, timeout: float | None = None) -> "RemoteModel":
        """See `models.model.Model`."""
        timeout = INTERACTIVE_POLICY.timeout if timeout is None else timeout
        return replace(self, policy=replace(INTERACTIVE_POLICY, timeout=timeout))

    def load(self, device: str | None = None) -> RemoteEmbedder:
        """Resolve the secrets and open the connections; `device` has no meaning here.

        Raises:
            InferenceError: a secret is missing, or a setting cannot be used; nothing is called yet.
        """
        client, secrets, retries = self.open_client()
        protocol = self._open_protocol(secrets, client)
        settings = self.endpoint.service_settings
        limits = Limits(
            batch=protocol.batch or self._batch(),
            max_input_tokens=self.max_tokens,
            dimensions=settings.get("dimensions"),
            element_type=self.endpoint.element_type,
            sparse=self.endpoint.is_sparse,
            characters=self.most_characters(),
            cosine=not self.endpoint.is_sparse
            and (settings.get("similarity") or self._default_similarity()) == "cosine",
        )
        return RemoteEmbedder(
            self.endpoint.inference_id,
            protocol,
            client.post,
            limits,
            client.close,
            retries,
            self.limiter("tokens"),
        )

    def open_client(self) -> tuple[HttpClient, Secrets, RetryCount]:
        """Resolve the secrets and open the connections: the client, the secrets, and the count of its retries.

        Raises:
            InferenceError: a secret is missing.
        """
        secrets = resolve(self.endpoint.secret_references, self.endpoint.folder)
        retries = RetryCount()
        name, limiter = self.endpoint.inference_id, self.limiter("requests")
        return HttpClient(name, secrets, self.policy, limiter, self._on_retry(retries)), secrets, retries

    def with_settings(self, make: Callable[[], Opened]) -> Opened:
        """Make something of the endpoint's settings.

        Raises:
            InferenceError: it needs one that the definition does not have.
        """
        try:
            return make()
        except KeyError as missing:
            name = str(missing).strip("'")
        raise InferenceError(
            f"[service_settings] of endpoint [{self.endpoint.inference_id}] does not contain [{name}],"
            " which requests need",
            status=400,
        )

    def _on_retry(self, retries: RetryCount) -> Callable[[], None]:
        def count() -> None:
            retries.add()
            _log.info("retrying a request of endpoint [%s]", self.endpoint.inference_id)

        return count

    @property
    def _must_ask(self) -> bool:
        is_dense = self.endpoint.embeds and not self.endpoint.is_sparse
        return is_dense and not self.endpoint.service_settings.get("dimensions")

    def _ask(self) -> Revealed:
        """What the service tells of its model with the embedding of a short text, as Elasticsearch asks on PUT."""
        key = self._settings_digest
        if key not in _REVEALED:
            embedder = self.impatient().load()
            try:
                _REVEALED[key] = embedder.ask("how big")
            finally:
                embedder.close()
        return _REVEALED[key]

    def _default_similarity(self) -> str:
        settings = self.endpoint.service_settings
        is_titan = self.endpoint.service == "amazonbedrock" and settings.get("provider") != "cohere"
        default = "cosine" if self.endpoint.service in _COSINE or is_titan else "dot_product"
        return {"bit": "l2_norm", "byte": "cosine"}.get(self.endpoint.element_type, default)

    def _batch(self) -> int:
        settings = self.endpoint.service_settings
        return int(
            settings.get("max_batch_size")
            or settings.get("batch_size")
            or SERVICES[self.endpoint.service].batch
        )

    def most_characters(self) -> int:
        """Most text of one request: no service takes more tokens at once than it takes in a minute."""
        tokens = (self.endpoint.service_settings.get("rate_limit") or {}).get("tokens_per_minute")
        return (
            BATCH_CHARACTERS if tokens is None else min(BATCH_CHARACTERS, int(tokens * CHARACTERS_PER_TOKEN))
        )

    def limiter(self, unit: str) -> Callable[..., None]:
        """What waits for a limit; endpoints of the same account and model share one, as in Elasticsearch.

        Args:
            unit: ``requests``, or ``tokens``, of which Elasticsearch knows no limit.
        """
        settings = dict(self.endpoint.service_settings)
        limit = (settings.pop("rate_limit", None) or {}).get(f"{unit}_per_minute")
        shared = [self.endpoint.service, settings, *([unit] if unit != "requests" else [])]
        return rate_limit(json.dumps(shared, sort_keys=True), limit)

    def _open_protocol(self, secrets: Secrets, client: HttpClient) -> RemoteProtocol:
        service = SERVICES[self.endpoint.service].protocol
        module = import_module(f"models.remote.protocols.{'cluster' if service == 'local' else service}")
        return self.with_settings(lambda: module.open_protocol(self.endpoint, secrets, client.post))


def remote_model(endpoint: Endpoint, policy: Policy | None = None) -> Model:
    """Describe the model of an endpoint that a service runs.

    Args:
        endpoint: its definition.
        policy: how patient requests are; the default suits a batch job.
    """
    return RemoteModel(endpoint, policy or DEFAULT_POLICY)


def _without_secret_parameters(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "secret_parameters"}


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _url_problem(name: str, value: Any) -> str | None:
    if value is None:
        return None
    try:
        parts = urlsplit(str(value))
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username
    except ValueError:
        usable = False
    return None if usable else f"[{name}] is [{value}], which is not an http or https URL that can be called"
