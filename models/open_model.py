"""From an endpoint to its model, on this machine or elsewhere."""

from collections.abc import Mapping
from typing import Any

from models.endpoints.endpoint import Endpoint
from models.endpoints.services import SERVICES
from models.errors import bad_request
from models.model import Model


def open_model(endpoint: Endpoint, models: Mapping[str, Any] | None = None) -> Model:
    """Return the description of the model that an endpoint names; nothing is loaded or called.

    Args:
        endpoint: the endpoint.
        models: the run config's ``models`` section: where weights lie, or what stands in for a model.
    """
    if SERVICES[endpoint.service].protocol == "local" and not endpoint.service_settings.get("url"):
        from models.local.model import local_model

        return local_model(endpoint, models or {})
    from models.remote.model import remote_model

    return remote_model(endpoint)


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
    problems = model.problems()
    if problems:
        bad_request("; ".join(problems), "illegal_argument_exception")
    return model.impatient(timeout)
