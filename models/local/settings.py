"""What the models on this machine share: their settings, dimensions and digest."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from models.endpoints.endpoint import Endpoint


def model_settings(endpoint: Endpoint, dimensions: int | None) -> dict[str, Any]:
    """Return an endpoint's ``model_settings`` as Elasticsearch keeps them in a mapping."""
    settings = {"task_type": endpoint.task_type, "service": endpoint.service}
    if endpoint.is_sparse:
        return settings
    return {
        **settings,
        "dimensions": dimensions,
        "similarity": similarity_of(endpoint),
        "element_type": endpoint.element_type,
    }


def similarity_of(endpoint: Endpoint) -> str:
    """Return the similarity of an endpoint; bits are compared by Hamming distance, as ``l2_norm``."""
    default = "l2_norm" if endpoint.element_type == "bit" else "cosine"
    return str(endpoint.service_settings.get("similarity") or default)


def dimensions_of(endpoint: Endpoint, native: int | None) -> int | None:
    """Return the length of an endpoint's dense embeddings: its own, or else the model's; None for sparse ones."""
    return None if endpoint.is_sparse else endpoint.service_settings.get("dimensions") or native


def dimension_problems(endpoint: Endpoint, native: int | None, matryoshka: Sequence[int]) -> list[str]:
    """Say what is wrong with the number of dimensions that an endpoint wants."""
    wanted = dimensions_of(endpoint, native)
    if wanted is None:
        return []
    problems = []
    if endpoint.service != "hashing" and native and wanted > native:
        problems.append(f"[dimensions] is [{wanted}], but the model's embeddings have only [{native}]")
    elif endpoint.service != "hashing" and matryoshka and wanted != native and wanted not in matryoshka:
        problems.append(
            f"[dimensions] is [{wanted}], but the model can only be cut to one of {list(matryoshka)}"
        )
    if endpoint.element_type == "bit" and wanted % 8:
        problems.append(f"[dimensions] is [{wanted}]; with [element_type] [bit] it must be a multiple of 8")
    return problems


def digest(content: Mapping[str, Any]) -> str:
    """Return 32 hexadecimal digits that stand for `content`."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]
