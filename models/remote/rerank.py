"""Reranking by a service: the description of its model, and the open connection."""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from models.endpoints.endpoint import Endpoint
from models.errors import InferenceError
from models.remote.embedder import BATCH_CHARACTERS, SHAPE_ERRORS, words_of
from models.remote.model import RemoteModel
from models.remote.protocol import Call, RerankProtocol
from models.remote.protocols.rerank import open_protocol
from models.remote.text import batches, estimate_tokens
from models.reranker import Relevance, Reranker
from models.text import utf16_length


@dataclass(frozen=True)
class RemoteRerankModel:
    """A reranking model behind an HTTP API.

    Attributes:
        service: how its service is called.
    """

    service: RemoteModel

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint that names it."""
        return self.service.endpoint

    @property
    def fingerprint(self) -> str:
        """See `models.model.RerankModel`."""
        return self.service.fingerprint

    def describe(self) -> dict[str, Any]:
        """See `models.model.RerankModel`."""
        return self.service.describe()

    def problems(self) -> list[str]:
        """See `models.model.RerankModel`; nothing is called."""
        return self.service.problems()

    def impatient(self, timeout: float | None = None) -> "RemoteRerankModel":
        """See `models.model.RerankModel`."""
        return replace(self, service=self.service.impatient(timeout))

    def load(self, device: str | None = None) -> "RemoteReranker":
        """Resolve the secrets and open the connections; `device` has no meaning here.

        Raises:
            InferenceError: a secret is missing, or a setting cannot be used; nothing is called yet.
        """
        client, secrets, _ = self.service.open_client()
        protocol = self.service.with_settings(lambda: open_protocol(self.endpoint, secrets, client.post))
        batch = int(self.endpoint.service_settings.get("batch_size") or self.endpoint.known.batch)
        spend = self.service.limiter("tokens")
        return RemoteReranker(self.endpoint.inference_id, protocol, client.post, batch, client.close, spend)


def remote_rerank_model(endpoint: Endpoint) -> RemoteRerankModel:
    """Describe the reranking model of an endpoint that a service runs."""
    return RemoteRerankModel(RemoteModel(endpoint))


class RemoteReranker(Reranker):
    """An open connection to a service that ranks. Safe to call from several threads."""

    def __init__(
        self,
        name: str,
        protocol: RerankProtocol,
        post: Callable[[Call, int], Any],
        batch: int,
        close: Callable[[], None],
        spend: Callable[[int], None],
    ) -> None:
        """Put the parts together.

        Args:
            name: the endpoint's id, for messages.
            protocol: builds requests and reads answers.
            post: sends a call and returns the JSON of an answer of at most so many bytes.
            batch: most texts of one request.
            close: closes the connections.
            spend: waits until a request of so many tokens may be sent.
        """
        self._name, self._protocol, self._post, self._batch = name, protocol, post, batch
        self._spend = spend
        self._close = weakref.finalize(self, close)

    def rerank(self, query: str, texts: Sequence[str]) -> Relevance:
        """See `models.reranker.Reranker`."""
        scores = np.zeros(len(texts), np.float32)
        for batch in batches(texts, self._batch, BATCH_CHARACTERS):
            for at, score in self._request(query, texts[batch]):
                scores[batch.start + at] = score
        return Relevance(scores)

    def close(self) -> None:
        """See `models.reranker.Reranker`."""
        self._close()

    def _request(self, query: str, texts: Sequence[str]) -> Sequence[tuple[int, float]]:
        """Send one request and take the scores out of the answer: one for each text."""
        largest = (1 << 20) + sum(4 * utf16_length(text) + 1024 for text in texts)  # it may repeat the texts
        # A service reads the query once with each text.
        self._spend(sum(map(estimate_tokens, texts)) + len(texts) * estimate_tokens(query))
        answer = self._post(self._protocol.call(query, texts), largest)
        problem = None
        found: Sequence[tuple[int, float]] = ()
        try:
            found = self._protocol.parse(answer)
        except SHAPE_ERRORS as error:
            problem = words_of(answer) or f"{type(error).__name__}: {error}"[:200]
        if problem is None and sorted(at for at, _ in found) != list(range(len(texts))):
            problem = f"it ranks {len(found)} texts of {len(texts)}, or one of them twice"
        if problem is None and not np.isfinite([score for _, score in found]).all():
            problem = "a score is not a finite number"
        if problem is not None:
            raise InferenceError(
                f"The answer to inference entity id [{self._name}] has not the shape of a ranking ({problem})",
                status=502,
            )
        return found
