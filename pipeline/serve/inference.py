"""`/_inference` as Elasticsearch has it: define, show, change, delete and ask endpoints; and `GET /`."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from models.endpoints.endpoint import Endpoint, check_inference_id, find_service
from models.endpoints.inference import (
    InferenceRequest,
    RerankRequest,
    parse_request,
    parse_rerank_request,
    rerank_response,
    response,
    to_bytes,
)
from models.endpoints.preconfigured import PRECONFIGURED
from models.endpoints.registry import Registry, Usage
from models.endpoints.secrets import is_reference, secret_paths
from models.errors import InferenceError, bad_request
from models.local.catalog import catalog, catalog_id
from pipeline.logs import log
from pipeline.search import loaded
from pipeline.serve.answers import Route, as_json, flag, parameter, read_json, seconds
from pipeline.serve.corpus import Corpus
from pipeline.serve.open_models import OpenModels
from pipeline.serve.rerankers import OpenRerankers
from pipeline.table.endpoint_usage import find_usages

API_VERSION = "9.5.0"
"""The version of Elasticsearch whose inference API this is; its clients look at the first number."""

TIMEOUT = 30.0
"""Seconds that a request may take, where it does not say: as in Elasticsearch."""

MAX_TEXTS = 2048
"""Texts of one request."""

_ALL = (None, "_all", "*")


class InferenceApi:
    """The handlers of `/_inference`."""

    def __init__(self, corpus: Corpus, open_models: OpenModels, rerankers: OpenRerankers) -> None:
        """Serve endpoints.

        Args:
            corpus: where their definitions are, and what uses them.
            open_models: the models in memory.
            rerankers: those that rank.
        """
        self._corpus = corpus
        self._open_models = open_models
        self._rerankers = rerankers
        self._registry = Registry(corpus.endpoints)

    def routes(self) -> list[Route]:
        """The paths, the longer ones first."""
        routes = []
        for path in ("/_inference/{task}/{id}", "/_inference/{id}"):
            routes += [
                Route(f"{path}/_update", self.update, methods=["PUT"]),
                Route(path, self.get, methods=["GET"]),
                Route(path, self.put, methods=["PUT"]),
                Route(path, self.infer, methods=["POST"]),
                Route(path, self.delete, methods=["DELETE"]),
            ]
        # What is asked most is tried first: `POST _inference/<id>`; and `PUT _inference/<id>/_update`, which has the
        # form of `<task>/<id>`, before that.
        routes.sort(key=lambda route: (route.endpoint != self.infer, not route.path.endswith("_update")))
        routes.sort(key=lambda route: (route.endpoint, route.path) != (self.infer, "/_inference/{id}"))
        return [*routes, Route("/_inference", self.get, methods=["GET"])]

    async def get(self, request: Request) -> Response:
        """One endpoint, those of a task, or all."""
        task, inference_id = request.path_params.get("task"), request.path_params.get("id")
        if inference_id not in _ALL:
            found: Sequence[Endpoint] = [self._registry.get(known_form(inference_id), task)]
        else:
            found, wrong = await asyncio.to_thread(self._registry.list_all, task)
            for file, error in wrong.items():
                log.warning("%s defines no endpoint: %s", file, error.reason)
        return as_json(request, {"endpoints": [endpoint.to_json() for endpoint in found]})

    async def put(self, request: Request) -> Response:
        """Define a new endpoint."""
        body = await read_json(request)
        task, inference_id = request.path_params.get("task"), request.path_params["id"]
        self._registry.check_new(inference_id)
        self._check_from_outside(body, task)
        endpoint = await asyncio.to_thread(self._registry.put, inference_id, body, task)
        return as_json(request, endpoint.to_json())

    async def update(self, request: Request) -> Response:
        """Change the task settings, secrets or allocations of an endpoint."""
        task, inference_id = request.path_params.get("task"), known_form(request.path_params["id"])
        before = self._registry.get(inference_id, task)
        body = await read_json(request)
        if isinstance(body, dict):
            self._check_from_outside({**body, "service": before.service}, before.task_type)
        endpoint = await asyncio.to_thread(self._registry.update, inference_id, body, task)
        self._forget(inference_id)
        return as_json(request, endpoint.to_json())

    async def delete(self, request: Request) -> Response:
        """Delete an endpoint, unless something uses it."""
        task, inference_id = request.path_params.get("task"), known_form(request.path_params["id"])
        dry_run, force = flag(request, "dry_run"), flag(request, "force")
        self._registry.get(inference_id, task)
        usages = await asyncio.to_thread(self.usages, inference_id)
        answer = self._registry.delete(inference_id, task, usages=usages, dry_run=dry_run, force=force)
        if not dry_run:
            self._forget(inference_id)
        return as_json(request, answer)

    def _forget(self, inference_id: str) -> None:
        self._open_models.forget(inference_id)
        self._rerankers.forget(inference_id)
        loaded.forget(inference_id)

    def usages(self, inference_id: str) -> list[Usage]:
        """What uses an endpoint."""
        return find_usages(inference_id, self._corpus.endpoints, self._corpus.config_paths)

    async def infer(self, request: Request) -> Response:
        """Embed the texts of a request, or rank them."""
        task, inference_id = request.path_params.get("task"), known_form(request.path_params["id"])
        endpoint = self._registry.get(inference_id, task)
        body = await read_json(request)
        timeout = seconds(parameter(request, "timeout") or _timeout_of(body), TIMEOUT)
        if not endpoint.embeds:
            return as_json(request, to_bytes(await self._rank(parse_rerank_request(endpoint, body), timeout)))
        asked = parse_request(endpoint, body)
        check_texts(asked)
        opened = await self._open_models.get(asked.endpoint)
        embeddings = await opened.embed(asked.texts, asked.input_type, timeout)
        return as_json(request, to_bytes(response(endpoint.task_type, embeddings, endpoint.element_type)))

    async def _rank(self, asked: RerankRequest, timeout: float) -> dict[str, Any]:
        check_texts(asked)
        relevance = await self._rerankers.rerank(asked.endpoint, asked.query, asked.texts, timeout)
        return rerank_response(asked, relevance)

    def _check_from_outside(self, body: Any, task: str | None) -> None:
        """Refuse a body that names a file or a variable of this machine: what comes over HTTP never reaches a path.

        Raises:
            InferenceError: 400, and what the body names.
        """
        _, _, service = find_service(body, task)
        for scope, known in (
            ("service_settings", service.settings),
            ("task_settings", service.task_settings),
        ):
            settings = body.get(scope)
            for path, value in secret_paths(settings, known).items() if isinstance(settings, dict) else ():
                if is_reference(value):
                    bad_request(
                        f"[{scope}.{path}] refers to a secret of this machine, which a request cannot; send the secret"
                        " itself, or define the endpoint with `semantic-ingest endpoints put`",
                        "illegal_argument_exception",
                    )
        settings = body.get("service_settings")
        if service.protocol == "local" and isinstance(settings, Mapping) and not settings.get("url"):
            self._check_model(settings)

    def _check_model(self, settings: Mapping[str, Any]) -> None:
        for key in ("model_id", "deployment_id"):
            named = settings.get(key)
            if isinstance(named, str) and named and not self._is_known_model(named):
                known = ", ".join(sorted(catalog()))
                bad_request(
                    f"[service_settings.{key}] is no model that this server knows; it knows {known} and those of the"
                    " run config's [models] section. Name a folder of weights there, or define the endpoint with"
                    " `semantic-ingest endpoints put`",
                    "illegal_argument_exception",
                )

    def _is_known_model(self, model_id: str) -> bool:
        name = catalog_id(model_id)
        return name in catalog() or bool({model_id, name, f".{name}"} & set(self._corpus.models))


def check_texts(asked: InferenceRequest | RerankRequest) -> None:
    """Raise InferenceError (400) when a request holds more texts than one may."""
    if len(asked.texts) > MAX_TEXTS:
        bad_request(
            f"Field [input] has {len(asked.texts)} texts; at most {MAX_TEXTS} are taken in one request",
            "illegal_argument_exception",
        )


def known_form(inference_id: str) -> str:
    """An id that may name a definition; another one is that of no endpoint, and no file is looked for.

    Raises:
        InferenceError: 404, there is none.
    """
    if inference_id not in PRECONFIGURED:
        try:
            check_inference_id(inference_id)
        except InferenceError:
            reason = f"Inference endpoint not found [{inference_id}]"
            raise InferenceError(reason, status=404, type="resource_not_found_exception") from None
    return inference_id


def _timeout_of(body: Any) -> Any:
    return body.get("timeout") if isinstance(body, dict) else None


def cluster_info() -> dict[str, Any]:
    """What `GET /` answers to Elasticsearch's clients."""
    from importlib.metadata import version

    return {
        "name": "semantic-ingest",
        "cluster_name": "semantic-ingest",
        "cluster_uuid": "_na_",
        "version": {
            "number": API_VERSION,
            "build_flavor": "default",
            "build_type": "semantic-ingest",
            "build_hash": version("semantic-ingest"),
            "build_snapshot": False,
            "minimum_wire_compatibility_version": "8.19.0",
            "minimum_index_compatibility_version": "8.0.0",
        },
        "tagline": "You Know, for Search",
    }
