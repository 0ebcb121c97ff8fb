"""From an endpoint to its model, on this machine or elsewhere."""

from collections.abc import Mapping
from typing import Any

from models.endpoints.endpoint import Endpoint
from models.endpoints.services import SERVICES
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
