"""Endpoints of a run config that will stop to answer, and how to move the fields that they embed."""

from collections.abc import Iterable
from datetime import date

from models.endpoints.endpoint import Endpoint
from models.endpoints.lifetime import ending
from models.endpoints.registry import Registry
from models.errors import InferenceError
from pipeline.config.load import load_config
from pipeline.config.run_config import RunConfig
from pipeline.errors import ConfigError


def ending_warnings(config: RunConfig, today: date | None = None) -> list[str]:
    """Say which semantic fields have an endpoint that ends within half a year, a sentence each.

    Args:
        config: the run config.
        today: the day to count from; None is today.
    """
    registry = Registry(config.endpoints.path)
    warnings = []
    for name, mapped in config.mappings.semantic().items():
        asked = (mapped.inference_id or config.endpoints.default, mapped.search_inference_id)
        for endpoint in _found(registry, dict.fromkeys(filter(None, asked))):
            found = ending(endpoint, today)
            if found is not None:
                warnings.append(f"{found.told()}. {move_command(name)}")
    return warnings


def move_command(field: str, config: str = "CONFIG") -> str:
    """How to move a field to another endpoint, as a sentence."""
    return f"Move [{field}] to another endpoint: `semantic-ingest migrate {config} --field {field} --to ENDPOINT`"


def move_commands(inference_id: str, configs: Iterable[str]) -> list[str]:
    """How to move every field that an endpoint embeds in some run configs; one that cannot be read has none."""
    found = []
    for path in configs:
        try:
            mapped = load_config(path).mappings.semantic()
        except ConfigError:
            continue
        found += [
            move_command(name, path)
            for name, field in mapped.items()
            if inference_id in (field.inference_id, field.search_inference_id)
        ]
    return found


def _found(registry: Registry, inference_ids: Iterable[str]) -> list[Endpoint]:
    """Those endpoints that there are; what is wrong with others is said where they are used."""
    found = []
    for inference_id in inference_ids:
        try:
            found.append(registry.get(inference_id))
        except InferenceError:
            continue
    return found
