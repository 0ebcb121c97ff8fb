"""A local web page to look at an index: search modes side by side, documents with their chunks drawn, statistics.

Needs the extra `serve` (Starlette and uvicorn). The page is one HTML file without a build step. It listens on the
loopback address unless told otherwise, and answers only requests that name the host it was started for, so that a web
page elsewhere cannot read the index through the user's browser.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from pipeline.errors import PipelineError
from pipeline.logs import log
from pipeline.search.filters import parse_filters
from pipeline.search.open_index import OpenUnit, SearchIndex
from pipeline.search.retrievers import available_modes
from pipeline.search.search import Hit, search
from transforms import exact_json
from transforms.field_values import joined_values
from transforms.index.state import STATE
from transforms.table.parts import open_part

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SHOWN_TOKENS = 24


def explore(path: str, host: str, port: int) -> None:
    """Serve the page until interrupted.

    Args:
        path: the index.
        host: address to listen on.
        port: its port; 0 takes a free one.

    Raises:
        PipelineError: there is no index, or the extra is not installed.
    """
    try:
        import uvicorn
    except ImportError:
        raise PipelineError("explore needs an extra: pip install 'semantic-ingest[serve]'") from None
    app = create_app(path, [*LOOPBACK, "[::1]"] if host in LOOPBACK else ["*"])
    config = uvicorn.Config(app, host=host, port=port, log_level="warning")
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    log.info("exploring %s at http://%s:%s/ (Ctrl-C ends it)", path, host, socket.getsockname()[1])
    server.run(sockets=[socket])


class CurrentIndex:
    """The index at its newest state: opened again when an update has replaced it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = Lock()
        self._seen = 0
        self._index = SearchIndex(path)

    def get(self) -> SearchIndex:
        """The open index."""
        changed = (Path(self._path) / STATE).stat().st_mtime_ns
        with self._lock:
            if changed != self._seen:
                self._index, self._seen = SearchIndex(self._path), changed
            return self._index


def create_app(path: str, hosts: Sequence[str] = LOOPBACK) -> Any:
    """The web application.

    Args:
        path: the index.
        hosts: names of this host that requests may use; ``*`` for any.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, Response
    from starlette.routing import Route

    current = CurrentIndex(path)

    def page(_: Request) -> Response:
        return HTMLResponse(files("pipeline.search").joinpath("explore.html").read_text(encoding="utf-8"))

    def answer(function: Any) -> Any:
        def respond(request: Request) -> Response:
            try:
                status, body = 200, function(current.get(), request.query_params)
            except (PipelineError, KeyError, ValueError, OSError) as error:
                status, body = 400, {"error": str(error)}
            return Response(exact_json.dumps(body), status, media_type="application/json")

        return respond

    names = {"info": info, "search": search_modes, "document": document, "statistics": statistics}
    routes = [
        Route("/", page),
        *(Route(f"/api/{name}", answer(function)) for name, function in names.items()),
    ]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))])


def info(index: SearchIndex, _: Mapping[str, str]) -> dict[str, Any]:
    """What the index holds."""
    return {
        "table": index.state.table,
        "documents": index.state.documents,
        "chunks": index.state.chunks,
        "fields": [_describe(index, name) for name in index.text_fields()],
        "filters": {name: field["type"] for name, field in index.state.plain.items()},
    }


def _describe(index: SearchIndex, name: str) -> dict[str, Any]:
    described: dict[str, Any] = {"name": name, "modes": available_modes(index, name)}
    if name in index.fields:
        definition = index.fields[name].definition
        described["inference_id"] = definition["inference_id"]
        described["model"] = definition.get("model", {})
        described["chunking_settings"] = definition.get("chunking_settings")
    return described


def search_modes(index: SearchIndex, query: Mapping[str, str]) -> dict[str, Any]:
    """Search in every mode that the field has."""
    field = query.get("field") or None
    k = min(max(int(query.get("k", "10")), 1), 100)
    filters = parse_filters([query["filter"]] if query.get("filter", "").strip() else [])
    found = {}
    for mode in available_modes(index, field):
        started = time.perf_counter()
        hits = search(index, query["q"], mode=mode, field=field, k=k, filter=filters, explain=True)
        found[mode] = {
            "hits": [_shown(hit) for hit in hits],
            "ms": round((time.perf_counter() - started) * 1000, 1),
        }
    return {"modes": found}


def _shown(hit: Hit) -> dict[str, Any]:
    shown = hit.to_json()
    tokens = {name: found[:SHOWN_TOKENS] for name, found in hit.explanation.items()}
    shown["explanation"] = {
        name: [asdict(match) for match in found] for name, found in tokens.items() if found
    }
    return shown


def document(index: SearchIndex, query: Mapping[str, str]) -> dict[str, Any]:
    """A document with its chunks, read from the table.

    Raises:
        KeyError: the index has no such document.
    """
    wanted = query["id"]
    number = next((at for at in np.flatnonzero(index.alive).tolist() if index.ids[at] == wanted), None)
    if number is None:
        raise KeyError(f"no document [{wanted}]")
    row = _row(index, number)
    source = exact_json.loads(row["_source"])
    fields = {}
    for name in index.fields:
        chunks = (row.get(name) or {"chunks": []})["chunks"]
        texts = {chunk["source_field"]: joined_values(source, chunk["source_field"]) for chunk in chunks}
        fields[name] = {"texts": texts, "chunks": [_chunk(chunk) for chunk in chunks]}
    return {"_id": wanted, "_source": source, "fields": fields}


def _row(index: SearchIndex, number: int) -> dict[str, Any]:
    """A document's row in the table."""
    parts = {number: name for name, number in index.state.parts.items()}
    file = open_part(index.state.table["path"], parts[int(index.documents["part"][number].as_py())])
    for group in range(file.num_row_groups):
        ids = file.read_row_group(group, columns=["_id"])["_id"].to_pylist()
        if index.ids[number] in ids:
            found: dict[str, Any] = (
                file.read_row_group(group).slice(ids.index(index.ids[number]), 1).to_pylist()[0]
            )
            return found
    raise KeyError(
        f"the table no longer holds [{index.ids[number]}]; bring the index up to date with `index`"
    )


def _chunk(chunk: Mapping[str, Any]) -> dict[str, Any]:
    """A chunk without its embedding: the heaviest tokens of a sparse one, nothing of a dense one."""
    shown = {name: chunk[name] for name in ("source_field", "start_offset", "end_offset", "is_truncated")}
    embedding = chunk["embeddings"]
    if embedding and isinstance(embedding[0], tuple):
        shown["tokens"] = sorted(embedding, key=lambda pair: -pair[1])[:SHOWN_TOKENS]
    return shown


def statistics(index: SearchIndex, _: Mapping[str, str]) -> dict[str, Any]:
    """How long chunks are, how many a document has, which tokens are frequent."""
    units = []
    for unit in index.units.values():
        alive = index.alive[unit.documents]
        lengths = (unit.chunks["end_offset"].to_numpy() - unit.chunks["start_offset"].to_numpy())[alive]
        per_document = np.unique(unit.documents[alive], return_counts=True)[1]
        units.append(
            {
                "fields": unit.state.fields or unit.state.sources,
                "chunks": int(alive.sum()),
                "length": _histogram(lengths),
                "chunks_per_document": _histogram(per_document),
                "frequent_tokens": _frequent(index, unit),
            }
        )
    return {"units": units}


def _histogram(values: Any) -> dict[str, Any]:
    if not len(values):
        return {"counts": [], "edges": [], "median": 0, "maximum": 0}
    counts, edges = np.histogram(values, bins=min(20, int(np.ptp(values)) + 1))
    return {
        "counts": counts.tolist(),
        "edges": edges.round(1).tolist(),
        "median": float(np.median(values)),
        "maximum": int(values.max()),
    }


def _frequent(index: SearchIndex, unit: OpenUnit) -> dict[str, list[tuple[str, int]]]:
    sparse = [name for name in unit.state.fields if index.fields[name].task_type == "sparse_embedding"]
    return {
        name: sorted(index.token_counts(name).items(), key=lambda pair: -pair[1])[:SHOWN_TOKENS]
        for name in sparse
    }
