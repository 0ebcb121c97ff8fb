"""The command `infer`: texts in, Elasticsearch's inference response out."""

import sys
from typing import Annotated

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
    timeout: Timeout = None,
) -> None:
    """Embed texts and print Elasticsearch's response. An error is its error body and exit code 1."""
    from models.endpoints.inference import answer, body_of, parse_request, to_bytes
    from models.open_model import usable_model

    registry, models = registry_of(path, config)
    task_type, inference_id = split_target(target)
    endpoint = registry.get(inference_id, task_type)
    asked = read_json(body) if body else body_of(texts or read_lines(file), input_type)
    request = parse_request(endpoint, asked)
    model = usable_model(request.endpoint, models, timeout)
    embedder = model.load()
    try:
        answered = answer(request, embedder)
    finally:
        embedder.close()
    sys.stdout.write(to_bytes(answered).decode() + "\n")
