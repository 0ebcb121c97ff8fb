"""The command `infer`: texts in, Elasticsearch's inference response out."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.app import app
from pipeline.commands.arguments import (
    Folder,
    ModelsFrom,
    Target,
    Timeout,
    read_json,
    read_lines,
    registry_of,
    split_target,
)
from pipeline.terminal.output import answers_in_json

if TYPE_CHECKING:
    from models.endpoints.endpoint import Endpoint


@app.command(epilog='Example: semantic-ingest infer .minilm-l6-v2 "the quick brown fox" --input-type search')
@answers_in_json
def infer(
    target: Target,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts; without any, stdin.")
    ] = None,
    file: Annotated[str | None, typer.Option("--file", help="File of texts, one a line.")] = None,
    body: Annotated[str | None, typer.Option("--body", help="File of a whole request body in JSON.")] = None,
    input_type: Annotated[
        str | None, typer.Option("--input-type", help="ingest, search, classification or clustering.")
    ] = None,
    path: Folder = None,
    config: ModelsFrom = None,
    query: Annotated[
        str | None, typer.Option("--query", help="Rank the texts for this query (rerank endpoints).")
    ] = None,
    timeout: Timeout = None,
) -> None:
    """Embed or rank texts and print Elasticsearch's response. An error is its error body and exit code 1."""
    from models.endpoints.inference import body_of, to_bytes

    registry, models = registry_of(path, config)
    task_type, inference_id = split_target(target)
    endpoint = registry.get(inference_id, task_type)
    asked = read_json(body) if body else body_of(texts or read_lines(file), input_type)
    if query is not None:
        asked = {**asked, "query": query}
    ask = _embed if endpoint.embeds else _rank
    sys.stdout.write(to_bytes(ask(endpoint, asked, models, timeout)).decode() + "\n")


def _embed(
    endpoint: "Endpoint", body: Any, models: Mapping[str, Any], timeout: float | None
) -> dict[str, Any]:
    from models.endpoints.inference import answer, parse_request
    from models.open_model import usable_model

    request = parse_request(endpoint, body)
    embedder = usable_model(request.endpoint, models, timeout).load()
    try:
        return answer(request, embedder)
    finally:
        embedder.close()


def _rank(
    endpoint: "Endpoint", body: Any, models: Mapping[str, Any], timeout: float | None
) -> dict[str, Any]:
    from models.endpoints.inference import parse_rerank_request, rerank_response
    from models.open_model import usable_rerank_model

    request = parse_rerank_request(endpoint, body)
    reranker = usable_rerank_model(request.endpoint, models, timeout).load()
    try:
        return rerank_response(request, reranker.rerank(request.query, request.texts))
    finally:
        reranker.close()
