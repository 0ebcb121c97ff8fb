"""Embed queries for an index, with the model that embedded its chunks and no other."""

from collections.abc import Sequence
from typing import Any

from models.embeddings import Embedder, Embeddings
from models.endpoints.endpoint import Endpoint, parse_endpoint
from models.endpoints.registry import Registry
from models.model import Model
from models.open_model import open_model
from pipeline.errors import PipelineError
from pipeline.search.loaded import loaded
from transforms.index.state import IndexState
from transforms.table.fingerprint import embedding_fingerprint

_COMPARED = ("task_type", "dimensions", "similarity", "element_type")


def embed_queries(state: IndexState, field: str, queries: Sequence[str]) -> Embeddings:
    """Embed queries for one semantic field.

    Raises:
        PipelineError: the endpoint has another model now than the one that embedded the chunks.
        InferenceError: the model cannot be loaded, or the request failed.
    """
    return query_embedder(state, field).embed(list(queries), "search")


def query_embedder(state: IndexState, field: str) -> Embedder:
    """The loaded model for a field's queries; loaded once a process."""
    definition = state.fields[field].definition
    models = state.metadata.get("models") or {}
    searched_by = definition.get("search_inference_id") or definition["inference_id"]
    if searched_by == definition["inference_id"]:
        body = {name: value for name, value in definition["endpoint"].items() if name != "inference_id"}
        folder = state.metadata.get("endpoints_path")
        model = open_model(parse_endpoint(searched_by, body, folder=folder), models)
        _check_same(model, field, definition)
    else:
        model = open_model(_search_endpoint(state, searched_by), models)
        _check_fits(model, field, definition, searched_by)
    problems = model.problems()
    if problems:
        raise PipelineError(f"queries for [{field}] cannot be embedded: {'; '.join(problems)}")
    return loaded(model)


def _search_endpoint(state: IndexState, inference_id: str) -> Endpoint:
    return Registry(state.metadata.get("endpoints_path")).get(inference_id)


def _check_same(model: Model, field: str, definition: dict[str, Any]) -> None:
    indexed = definition["embedding_fingerprint"]
    now = embedding_fingerprint(
        model.fingerprint,
        definition.get("context"),
        late_chunking=definition.get("late_chunking", False),
    )
    if now != indexed:
        before, after = definition.get("model", {}), model.describe()
        raise PipelineError(
            f"[{field}] was embedded by {before.get('model_id')} (fingerprint {indexed}), but its endpoint"
            f" [{definition['inference_id']}] is {after.get('model_id')} now (fingerprint {now}): their"
            " embeddings cannot be compared. Use the same weights again, or run the job so that it embeds anew."
        )


def _check_fits(model: Model, field: str, definition: dict[str, Any], searched_by: str) -> None:
    indexed, now = definition["model_settings"], model.model_settings
    for name in _COMPARED:
        if indexed.get(name) != now.get(name):
            raise PipelineError(
                f"[{field}] has {name} [{indexed.get(name)}], but its search_inference_id [{searched_by}] has"
                f" [{now.get(name)}]: queries and chunks cannot be compared. Name an endpoint of the same model."
            )
