"""What the tokens of an endpoint cost, where a run config's ``models`` section says so."""

from collections.abc import Mapping
from typing import Any

from models.endpoints.endpoint import Endpoint

PRICE = "price_per_million_tokens"
"""The setting of a model in the ``models`` section: a number in any currency."""

_MODEL_NAMES = ("model_id", "model", "deployment_id", "service_id", "endpoint_name")


def price_problems(models: Mapping[str, Any]) -> list[str]:
    """Say which prices of a ``models`` section are none."""
    prices = {
        name: entry[PRICE] for name, entry in models.items() if isinstance(entry, dict) and PRICE in entry
    }
    return [
        f"[{name}.{PRICE}] must be a number from 0 on, got [{price}]"
        for name, price in prices.items()
        if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price < float("inf")
    ]


def price_of(endpoint: Endpoint, models: Mapping[str, Any]) -> float | None:
    """The price of a million tokens; None where the section names none for the endpoint or its model.

    Args:
        endpoint: the endpoint.
        models: the run config's ``models`` section; its keys are inference ids or model ids.
    """
    entries = [models[name] for name in priced_names(endpoint) if name in models]
    found = [entry[PRICE] for entry in entries if isinstance(entry, dict) and PRICE in entry]
    return float(found[0]) if found else None


def priced_names(endpoint: Endpoint) -> list[str]:
    """The names under which the section may have the price of an endpoint, the best one first."""
    names = (endpoint.inference_id, *(endpoint.service_settings.get(name) for name in _MODEL_NAMES))
    return [name for name in names if isinstance(name, str)]


def without_prices(models: Mapping[str, Any]) -> dict[str, Any]:
    """A ``models`` section as far as it says which weights to load: what a model costs changes no embedding."""
    rest: dict[str, Any] = {}
    for name, entry in models.items():
        if not isinstance(entry, dict) or PRICE not in entry:
            rest[name] = entry
        elif len(entry) > 1:
            rest[name] = {key: value for key, value in entry.items() if key != PRICE}
    return rest
