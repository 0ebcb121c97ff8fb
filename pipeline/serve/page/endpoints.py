"""The page's endpoints: each with its model and what uses it, the services that there are, and a test of one."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from models.embeddings import Embeddings, SparseEmbeddings
from models.endpoints.endpoint import Endpoint
from models.endpoints.inference import parse_request
from models.endpoints.preconfigured import PRECONFIGURED
from models.endpoints.registry import Registry
from models.endpoints.services import SERVICES, Setting
from models.errors import InferenceError
from models.local.catalog import catalog
from models.open_model import open_model, open_rerank_model
from pipeline.serve.corpus import Corpus
from pipeline.serve.inference import TIMEOUT, known_form
from pipeline.serve.open_models import OpenModels
from pipeline.table.endpoint_usage import find_all_usages

SHOWN_TOKENS, SHOWN_VALUES = 40, 64
_MODEL_NAMES = ("model_id", "model", "deployment_id", "service_id", "endpoint_name", "inference_id", "url")


def overview(corpus: Corpus, open_models: OpenModels) -> dict[str, Any]:
    """Every endpoint, and the files that define none."""
    found, wrong = Registry(corpus.endpoints).list_all()
    usages = find_all_usages(corpus.endpoints, corpus.config_paths)
    loaded = open_models.loaded()
    return {
        "folder": corpus.endpoints,
        "endpoints": [
            {
                "definition": endpoint.to_json(),
                "is_preconfigured": endpoint.inference_id in PRECONFIGURED,
                "is_loaded": endpoint.inference_id in loaded,
                "used_by": [
                    {"kind": one.kind, "name": one.name} for one in usages.get(endpoint.inference_id, [])
                ],
                **_model(endpoint, corpus.models),
            }
            for endpoint in found
        ],
        "wrong": [{"file": str(file), "reason": error.reason} for file, error in wrong.items()],
    }


def _model(endpoint: Endpoint, models: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of an endpoint's model without loading it."""
    settings = endpoint.service_settings
    name = next((str(settings[key]) for key in _MODEL_NAMES if settings.get(key)), None)
    known: dict[str, Any] = {"model": name, "dimensions": settings.get("dimensions"), "window": None}
    try:
        if not endpoint.embeds:
            ranking = open_rerank_model(endpoint, models)
            return {**known, "describes": ranking.describe(), "problems": ranking.problems()}
        model = open_model(endpoint, models)
        return {
            **known,
            "dimensions": model.model_settings.get("dimensions") or known["dimensions"],
            "window": model.max_tokens,
            "describes": model.describe(),
            "problems": model.problems(),
        }
    except InferenceError as error:
        return {**known, "describes": {}, "problems": [error.reason]}


def services() -> dict[str, Any]:
    """The services that embed, with their settings: what the form for a new endpoint asks."""
    found = [
        {
            "name": name,
            "tasks": list(service.tasks),
            "is_local": service.protocol == "local",
            "settings": [_setting(key, setting) for key, setting in service.settings.items()],
            "note": service.note,
        }
        for name, service in SERVICES.items()
        if service.tasks
    ]
    models = [{"id": name, "task_type": entry["task_type"]} for name, entry in catalog().items()]
    return {"services": found, "models": models}


def _setting(name: str, setting: Setting) -> dict[str, Any]:
    return {
        "name": name,
        "kind": setting.kind,
        "required": setting.required,
        "default": setting.default,
        "choices": list(setting.choices),
    }


async def attempt(corpus: Corpus, open_models: OpenModels, body: Any) -> dict[str, Any]:
    """Embed one text with an endpoint, and say what came of it.

    Args:
        corpus: where the definitions are.
        open_models: the models in memory.
        body: ``inference_id``, ``input`` and where wanted ``input_type``.

    Raises:
        InferenceError: the endpoint cannot be used, or the request is wrong.
    """
    values = body if isinstance(body, dict) else {}
    endpoint = Registry(corpus.endpoints).get(known_form(str(values.get("inference_id"))))
    kept = ("input",) if endpoint.is_sparse else ("input", "input_type")
    asked = parse_request(endpoint, {name: values[name] for name in kept if name in values})
    was_loaded = endpoint.inference_id in open_models.loaded()
    opened = await open_models.get(asked.endpoint)
    started = time.perf_counter()
    embeddings = await opened.embed(asked.texts[:1], asked.input_type, TIMEOUT)
    return {
        "inference_id": endpoint.inference_id,
        "task_type": endpoint.task_type,
        "latency_ms": round(1000 * (time.perf_counter() - started), 1),
        "load_ms": None if was_loaded else round(1000 * opened.load_seconds),
        "tokens_seen": int(embeddings.tokens[0]) or None,
        "is_truncated": bool(embeddings.is_truncated[0]),
        **_shown(embeddings),
    }


def _shown(embeddings: Embeddings) -> dict[str, Any]:
    if isinstance(embeddings, SparseEmbeddings):
        row = list(embeddings.row(0).items())
        return {"size": len(row), "weights": row[:SHOWN_TOKENS]}
    values = embeddings.values[0].astype(np.float64)
    return {
        "size": len(values),
        "values": values[:SHOWN_VALUES].tolist(),
        "norm": float(np.linalg.norm(values)),
    }
