"""What `/metrics` tells Prometheus: requests by kind, batches by endpoint, what waits."""

from collections.abc import Callable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

PREFIX = "semantic_ingest_serve"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{PREFIX}_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"{PREFIX}_{name}", text, labels, buckets=buckets, registry=self.registry)

        self.requests = counter("requests", "Requests answered.", "route", "method", "status")
        self.request_seconds = histogram("request_seconds", "Time to the answer.", _SECONDS, "route")
        self.texts = counter("texts", "Texts embedded.", "inference_id")
        self.batches = counter("batches", "Calls of a model.", "inference_id")
        self.batch_seconds = histogram(
            "batch_seconds", "Time of one call of a model.", _SECONDS, "inference_id"
        )
        self.batch_requests = histogram(
            "batch_requests", "Requests that shared a call.", _SIZES, "inference_id"
        )
        # Kinds of requests are few, since none of their names is free.
        self._of_kind = cache(self._find)
        self.open_models = Gauge(f"{PREFIX}_open_models", "Models in memory.", registry=self.registry)
        self.waiting = Gauge(
            f"{PREFIX}_waiting_requests", "Requests that wait for a model.", registry=self.registry
        )

    def _find(self, route: str, method: str, status: int) -> tuple[Counter, Histogram]:
        return self.requests.labels(route, method, str(status)), self.request_seconds.labels(route)

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request.

        Args:
            route: the function that answered.
            method: the HTTP method.
            status: of the answer.
            seconds: time to the answer.
        """
        requests, request_seconds = self._of_kind(route, method, status)
        requests.inc()
        request_seconds.observe(seconds)

    def observe_batches(self, inference_id: str) -> Callable[[int, int, float], None]:
        """What a batcher calls after each batch: requests, texts, seconds."""
        batches, of_texts = self.batches.labels(inference_id), self.texts.labels(inference_id)
        batch_requests = self.batch_requests.labels(inference_id)
        batch_seconds = self.batch_seconds.labels(inference_id)

        def observe(requests: int, texts: int, seconds: float) -> None:
            batches.inc()
            of_texts.inc(texts)
            batch_requests.observe(requests)
            batch_seconds.observe(seconds)

        return observe

    def text(self) -> bytes:
        """The page in Prometheus' text format."""
        return generate_latest(self.registry)
