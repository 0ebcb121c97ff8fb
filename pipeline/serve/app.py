"""The web application: which path is answered by whom, and what becomes of errors."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from importlib.resources import files

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.serve.answers import Route, as_json
from pipeline.serve.corpus import Corpus
from pipeline.serve.inference import InferenceApi, cluster_info
from pipeline.serve.metrics import Metrics
from pipeline.serve.open_models import OpenModels
from pipeline.serve.openai import OpenAiApi
from pipeline.serve.page.api import page_routes
from pipeline.serve.rerankers import OpenRerankers
from pipeline.serve.security import Door, Guard

_PAGE = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
"""Ending of a file of the page -> its media type."""


def create_app(corpus: Corpus, door: Door | None = None) -> ASGIApp:
    """Put the application together.

    Args:
        corpus: what is served.
        door: who is let in; by default whoever names this server by its loopback address.
    """
    door = door or Door()
    metrics = Metrics()
    open_models, rerankers = OpenModels(corpus.models, metrics), OpenRerankers(corpus.models)
    page = _read_page()

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        yield
        await open_models.close()
        await rerankers.close()

    async def root(request: Request) -> Response:
        # A browser gets the page, a client of Elasticsearch what it asks a cluster first.
        if "text/html" in request.headers.get("accept", "") and "index.html" in page:
            return _page_file(*page["index.html"])
        return as_json(request, cluster_info())

    async def page_file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in page:
            raise HTTPException(404, f"no such file [{name}]")
        return _page_file(*page[name])

    async def health(request: Request) -> Response:
        state = {"status": "stopping" if door.is_closing else "ok", "version": version("semantic-ingest")}
        return as_json(request, state, 503 if door.is_closing else 200)

    async def metrics_page(_: Request) -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    routes = [
        *InferenceApi(corpus, open_models, rerankers).routes(),
        *OpenAiApi(corpus, open_models).routes(),
        Route("/", root, methods=["GET"]),
        Route("/page/{name}", page_file, methods=["GET"]),
        Route("/health", health, methods=["GET"]),
        Route("/metrics", metrics_page, methods=["GET"]),
        *page_routes(corpus, open_models),
    ]
    public = {"/", "/health", *(f"/page/{name}" for name in page)}
    # A router alone, and not `Starlette`, whose own layers around it would do again what the guard does.
    return Measured(Guard(Router(routes, lifespan=lifespan), door, public), metrics)


def _read_page() -> dict[str, tuple[bytes, str]]:
    """The page's files by name: content and media type. Only these names are ever served."""
    found = {}
    for entry in files("pipeline.serve.page").joinpath("files").iterdir():
        ending = entry.name.rpartition(".")[2]
        if ending in _PAGE:
            found[entry.name] = (entry.read_bytes(), _PAGE[ending])
    return found


def _page_file(content: bytes, kind: str) -> Response:
    return Response(content, media_type=kind, headers={"Vary": "Accept", "Cache-Control": "no-cache"})


class Measured:
    """Counts requests and the time that they take, by the function that answered."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Stand before an application.

        Args:
            app: the application.
            metrics: the server's counters.
        """
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        try:
            await self._app(scope, receive, send)
        finally:
            # The function's name, and not the path, which anyone can make up.
            route = getattr(scope.get("endpoint"), "__name__", "none")
            method = (
                scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "PUT", "DELETE") else "other"
            )
            status, seconds = scope.get("status", 500), time.perf_counter() - started
            self._metrics.observe_request(route, method, status, seconds)
