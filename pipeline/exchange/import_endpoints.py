"""The inference endpoints of a cluster as definitions, and by name those that have no place here."""

import re
from dataclasses import dataclass, field
from typing import Any

from models.endpoints.registry import Registry
from models.endpoints.rerank_services import RERANK_SERVICES
from models.endpoints.services import SERVICES
from models.errors import InferenceError
from pipeline.errors import PipelineError


@dataclass
class ImportedEndpoints:
    """What came of a cluster's endpoints.

    Attributes:
        defined: endpoints that are defined now.
        known: endpoints that were defined already, or are built in.
        secrets: endpoint -> environment variables that its definition reads secrets from; clusters never tell them.
        left_out: endpoint -> why it is not defined.
    """

    defined: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    secrets: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def import_endpoints(answer: Any, folder: str, *, dry_run: bool = False) -> ImportedEndpoints:
    """Define the endpoints of `GET _inference/_all`.

    Args:
        answer: the cluster's.
        folder: folder of the definitions.
        dry_run: write nothing.

    Raises:
        PipelineError: it is no such answer.
    """
    endpoints = answer.get("endpoints") if isinstance(answer, dict) else None
    if not isinstance(endpoints, list):
        raise PipelineError("there is no list of [endpoints], as GET _inference/_all answers")
    registry = Registry(folder)
    known = {endpoint.inference_id for endpoint in registry.list()}
    imported = ImportedEndpoints()
    for definition in endpoints:
        name = str(definition.get("inference_id"))
        if name in known:
            imported.known.append(name)
            continue
        body = {key: value for key, value in definition.items() if key not in ("inference_id", "endpoint_id")}
        variables = _ask_for_secrets(name, body)
        try:
            registry.put(name, body, body.pop("task_type", None), dry_run=dry_run)
        except InferenceError as error:
            imported.left_out[name] = error.reason
            continue
        imported.defined.append(name)
        if variables:
            imported.secrets[name] = variables
    return imported


def _ask_for_secrets(name: str, body: dict[str, Any]) -> list[str]:
    """Let required secrets come from environment variables; returns the variables."""
    known = RERANK_SERVICES if body.get("task_type") == "rerank" else SERVICES
    service = known.get(str(body.get("service")))
    if service is None:
        return []
    settings = dict(body.get("service_settings") or {})
    secret = {key for key, setting in service.settings.items() if setting.kind == "secret"}
    needed = [key for key in secret if service.settings[key].required and key not in settings]
    for group in service.one_of:
        if not settings.keys() & set(group):
            needed += [key for key in group if key in secret][:1]
    variables = []
    for key in sorted(set(needed)):
        variable = re.sub(r"\W+", "_", f"{name}_{key}").strip("_").upper()
        settings[key] = f"env:{variable}"
        variables.append(variable)
    body["service_settings"] = settings
    return variables
