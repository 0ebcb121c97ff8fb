"""`/api`: what the page asks. Everything is looked up in threads, since it reads files."""

import asyncio
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from models.errors import InferenceError, bad_request
from pipeline.serve.answers import Route, as_json, read_json
from pipeline.serve.corpus import Corpus
from pipeline.serve.open_models import OpenModels
from pipeline.serve.page import documents, endpoints, runs, search
from pipeline.serve.page.parameters import whole_number
from pipeline.serve.security import REPORT_POLICY

Query = Mapping[str, str]


def page_routes(corpus: Corpus, open_models: OpenModels) -> list[Route]:
    """The paths below `/api`."""
    questions: dict[str, Callable[[Query], Any]] = {
        "overview": lambda _: _overview(corpus),
        "search": lambda query: search.search_hits(corpus, query),
        "suggestions": lambda query: search.suggestions(corpus.index, query),
        "documents": lambda query: _browse(corpus, query),
        "document": lambda query: documents.document(corpus.index, _needed(query, "id")),
        "endpoints": lambda _: endpoints.overview(corpus, open_models),
        "services": lambda _: endpoints.services(),
        "runs": lambda _: runs.overview(corpus),
    }

    async def attempt(request: Request) -> Response:
        return as_json(request, await endpoints.attempt(corpus, open_models, await read_json(request)))

    async def report(request: Request) -> Response:
        content = await asyncio.to_thread(runs.report, corpus, _needed(request.query_params, "id"))
        headers = {"Content-Security-Policy": REPORT_POLICY}
        return Response(content, media_type="text/html", headers=headers)

    return [
        *(Route(f"/api/{name}", _answer(name, question)) for name, question in questions.items()),
        Route("/api/try", attempt, methods=["POST"]),
        Route("/api/report", report, methods=["GET"]),
    ]


def _answer(name: str, question: Callable[[Query], Any]) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        return as_json(request, await asyncio.to_thread(question, request.query_params))

    answer.__name__ = f"api_{name}"
    return answer


def _needed(query: Query, name: str) -> str:
    if name not in query:
        bad_request(f"[{name}] is missing", "illegal_argument_exception")
    return query[name]


def _overview(corpus: Corpus) -> dict[str, Any]:
    """What the server has; without an index, why there is none."""
    config = corpus.config_paths[0] if corpus.config_paths else None
    about: dict[str, Any] = {
        "version": version("semantic-ingest"),
        "config": config,
        "index": None,
        "problem": None,
    }
    try:
        return {**about, "index": search.overview(corpus)}
    except InferenceError as error:
        return {**about, "problem": error.reason}


def _browse(corpus: Corpus, query: Query) -> dict[str, Any]:
    index = corpus.index
    _, allowed = search.filter_of(index, query)
    start = whole_number(query, "from", 0, 0, 10**9)
    size = whole_number(query, "size", 25, 1, 200)
    return documents.browse(index, query.get("text", ""), allowed, start, size)
