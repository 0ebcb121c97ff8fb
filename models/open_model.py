"""From an endpoint to its model, on this machine or elsewhere."""

from collections.abc import Mapping
from typing import Any

from models.endpoints.endpoint import Endpoint
from models.errors import bad_request
from models.model import Model, RerankModel


def open_model(endpoint: Endpoint, models: Mapping[str, Any] | None = None) -> Model:
    """Return the description of the model that an endpoint names; nothing is loaded or called.

    Args:
        endpoint: the endpoint.
        models: the run config's ``models`` section: where weights lie, or what stands in for a model.

    Raises:
        InferenceError: the endpoint does not embed.
    """
    if not endpoint.embeds:
        bad_request(
            f"[{endpoint.inference_id}] is an endpoint of task type [{endpoint.task_type}]: it makes no embeddings",
            "illegal_argument_exception",
        )
    if _is_local(endpoint):
        from models.local.model import local_model

        return local_model(endpoint, models or {})
    from models.remote.model import remote_model

    return remote_model(endpoint)


def open_rerank_model(endpoint: Endpoint, models: Mapping[str, Any] | None = None) -> RerankModel:
    """Return the description of the reranking model that an endpoint names; nothing is loaded or called.

    Args:
        endpoint: the endpoint.
        models: the run config's ``models`` section.

    Raises:
        InferenceError: the endpoint does not rerank.
    """
    if endpoint.task_type != "rerank":
        bad_request(
            f"[{endpoint.inference_id}] is an endpoint of task type [{endpoint.task_type}]: it does not rerank",
            "illegal_argument_exception",
        )
    if _is_local(endpoint):
        from models.local.rerank.model import local_rerank_model

        return local_rerank_model(endpoint, models or {})
    from models.remote.rerank import remote_rerank_model

    return remote_rerank_model(endpoint)


def entry_names(endpoint: Endpoint) -> set[str]:
    """The names under which the ``models`` section says where the weights of an endpoint's model lie."""
    model_id = endpoint.service_settings.get("model_id")
    if not isinstance(model_id, str) or not _is_local(endpoint):
        return set()
    from models.local.catalog import keys_of

    return set(keys_of(model_id))


def _is_local(endpoint: Endpoint) -> bool:
    return endpoint.known.protocol == "local" and not endpoint.service_settings.get("url")


def usable_model(endpoint: Endpoint, models: Mapping[str, Any], timeout: float | None = None) -> Model:
    """Open an endpoint's model for people who wait: a service that does not answer is given up sooner than in a job.

    Args:
        endpoint: the endpoint.
        models: the run config's ``models`` section.
        timeout: seconds that a service may take for one attempt; None takes the usual ones.

    Raises:
        InferenceError: the model cannot be used, and why.
    """
    model = open_model(endpoint, models)
    _check(model.problems())
    return model.impatient(timeout)


def usable_rerank_model(
    endpoint: Endpoint, models: Mapping[str, Any], timeout: float | None = None
) -> RerankModel:
    """Open an endpoint's reranking model for people who wait; see `usable_model`."""
    model = open_rerank_model(endpoint, models)
    _check(model.problems())
    return model.impatient(timeout)


def _check(problems: list[str]) -> None:
    if problems:
        bad_request("; ".join(problems), "illegal_argument_exception")
