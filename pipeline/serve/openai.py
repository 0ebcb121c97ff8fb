"""`/v1/embeddings` and `/v1/models` in OpenAI's protocol, so that anything that speaks it can use the models here.

Elasticsearch's `openai` service is one that does. Who asks here mostly has a query: texts are embedded for `search`,
unless the request says otherwise in `input_type`. `/v1/sparse_embeddings` is the same for sparse models, which OpenAI
does not have; Elasticsearch's `custom` service reads its answers.
"""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from starlette.requests import Request
from starlette.responses import Response

from models.embeddings import DenseEmbeddings, Embeddings, SparseEmbeddings
from models.endpoints.endpoint import Endpoint, parse_endpoint
from models.endpoints.inference import parse_request
from models.endpoints.registry import Registry
from models.errors import ValidationError, bad_request
from pipeline.serve.answers import Route, as_json, read_json
from pipeline.serve.corpus import Corpus
from pipeline.serve.inference import TIMEOUT, check_texts, known_form
from pipeline.serve.open_models import OpenModels

_KNOWN = ("input", "model", "encoding_format", "dimensions", "user", "input_type")


class OpenAiApi:
    """The handlers of `/v1`."""

    def __init__(self, corpus: Corpus, open_models: OpenModels) -> None:
        """Serve endpoints.

        Args:
            corpus: where their definitions are.
            open_models: the models in memory.
        """
        self._corpus = corpus
        self._open_models = open_models
        self._registry = Registry(corpus.endpoints)

    def routes(self) -> list[Route]:
        """The paths."""
        return [
            Route("/v1/embeddings", self.dense, methods=["POST"]),
            Route("/v1/sparse_embeddings", self.sparse, methods=["POST"]),
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{id}", self.model, methods=["GET"]),
        ]

    async def models(self, request: Request) -> Response:
        """Every endpoint, as a model."""
        found = await asyncio.to_thread(self._registry.list)
        models = [_model(endpoint) for endpoint in found if endpoint.embeds]
        return as_json(request, {"object": "list", "data": models})

    async def model(self, request: Request) -> Response:
        """One endpoint, as a model."""
        endpoint = self._registry.get(known_form(request.path_params["id"]))
        if not endpoint.embeds:
            bad_request(f"[{endpoint.inference_id}] makes no embeddings", status=404)
        return as_json(request, _model(endpoint))

    async def dense(self, request: Request) -> Response:
        """Dense embeddings of texts, as numbers or in base64."""
        body = await read_json(request)
        endpoint = self._endpoint(body, is_sparse=False)
        embeddings = await self._embed(endpoint, body)
        assert isinstance(embeddings, DenseEmbeddings)
        encoded = _encoded(embeddings, body.get("encoding_format") or "float")
        return _answer(request, "embedding", encoded, body["model"], embeddings)

    async def sparse(self, request: Request) -> Response:
        """Sparse embeddings of texts, as lists of tokens with weights."""
        body = await read_json(request)
        embeddings = await self._embed(self._endpoint(body, is_sparse=True), body)
        assert isinstance(embeddings, SparseEmbeddings)
        rows = [
            [{"token": token, "weight": np.float32(weight)} for token, weight in embeddings.row(at).items()]
            for at in range(len(embeddings))
        ]
        return _answer(request, "sparse_embedding", rows, body["model"], embeddings)

    def _endpoint(self, body: Any, *, is_sparse: bool) -> Endpoint:
        """The endpoint that a request names as its model, with the dimensions that it wants."""
        _check(body)
        endpoint = self._registry.get(known_form(body["model"]))
        if endpoint.is_sparse != is_sparse:
            path = "/v1/sparse_embeddings" if endpoint.is_sparse else "/v1/embeddings"
            bad_request(f"[{body['model']}] is for [{endpoint.task_type}]; ask it at {path}")
        dimensions = body.get("dimensions")
        if dimensions is None or dimensions == endpoint.service_settings.get("dimensions"):
            return endpoint
        changed = endpoint.to_json()
        changed["service_settings"]["dimensions"] = dimensions
        # Its own checks say which lengths a model has; the shortened one is loaded as a model of its own.
        return parse_endpoint(endpoint.inference_id, changed, folder=endpoint.folder)

    async def _embed(self, endpoint: Endpoint, body: Mapping[str, Any]) -> Embeddings:
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        kind = None if endpoint.is_sparse else (body.get("input_type") or "search")
        asked = parse_request(endpoint, {"input": texts, **({"input_type": kind} if kind else {})})
        check_texts(asked)
        opened = await self._open_models.get(asked.endpoint)
        input_type = "search" if endpoint.is_sparse else asked.input_type
        return await opened.embed(asked.texts, input_type, TIMEOUT)


def _check(body: Any) -> None:
    """Raise ValidationError with everything that is wrong with a request."""
    if not isinstance(body, dict):
        bad_request(f"the body must be a JSON object, not {type(body).__name__}")
    problems = [f"unknown field [{name}]" for name in sorted(body.keys() - set(_KNOWN))]
    if not isinstance(body.get("model"), str):
        problems.append("[model] must be the id of an endpoint; GET /v1/models lists them")
    if body.get("encoding_format") not in (None, "float", "base64"):
        problems.append(f"[encoding_format] must be float or base64, not [{body['encoding_format']}]")
    texts = body.get("input")
    if isinstance(texts, list) and texts and isinstance(texts[0], int | list):
        problems.append("[input] holds token ids; send texts, each model here has its own tokenizer")
    elif not isinstance(texts, str) and not (
        isinstance(texts, list) and all(isinstance(t, str) for t in texts)
    ):
        problems.append("[input] must be a string or an array of strings")
    elif not texts:
        problems.append("[input] must not be empty")
    if problems:
        raise ValidationError(problems)


def _encoded(embeddings: DenseEmbeddings, encoding: str) -> Sequence[Any]:
    if encoding == "float":
        return list(np.ascontiguousarray(embeddings.values))
    little = embeddings.values.astype("<f4")
    return [base64.b64encode(row.tobytes()).decode() for row in little]


def _answer(request: Request, kind: str, rows: Sequence[Any], model: str, embeddings: Embeddings) -> Response:
    tokens = int(embeddings.tokens.sum())
    body = {
        "object": "list",
        "data": [{"object": kind, "index": at, "embedding": row} for at, row in enumerate(rows)],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return as_json(request, orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY))


def _model(endpoint: Endpoint) -> dict[str, Any]:
    return {"id": endpoint.inference_id, "object": "model", "created": 0, "owned_by": endpoint.service}
