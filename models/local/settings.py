"""What the models on this machine share: their settings, dimensions and digest."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from models.endpoints.endpoint import element_type, similarity_of
from models.model import EndpointDefinition


def model_settings(endpoint: EndpointDefinition, dimensions: int | None) -> dict[str, Any]:
    """Return an endpoint's ``model_settings`` as Elasticsearch keeps them in a mapping."""
    settings = {"task_type": endpoint.task_type, "service": endpoint.service}
    if endpoint.task_type == "sparse_embedding":
        return settings
    return {
        **settings,
        "dimensions": dimensions,
        "similarity": similarity_of(endpoint),
        "element_type": element_type(endpoint),
    }


def dimension_problems(
    endpoint: EndpointDefinition, native: int | None, matryoshka: Sequence[int]
) -> list[str]:
    """Say what is wrong with the number of dimensions that an endpoint wants."""
    wanted = endpoint.service_settings.get("dimensions") or native
    if endpoint.task_type == "sparse_embedding" or wanted is None:
        return []
    problems = []
    if endpoint.service != "hashing" and native and wanted > native:
        problems.append(f"[dimensions] is [{wanted}], but the model's embeddings have only [{native}]")
    elif endpoint.service != "hashing" and matryoshka and wanted != native and wanted not in matryoshka:
        problems.append(
            f"[dimensions] is [{wanted}], but the model can only be cut to one of {list(matryoshka)}"
        )
    if element_type(endpoint) == "bit" and wanted % 8:
        problems.append(f"[dimensions] is [{wanted}]; with [element_type] [bit] it must be a multiple of 8")
    return problems


def digest(content: Mapping[str, Any]) -> str:
    """Return 32 hexadecimal digits that stand for `content`."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]
