"""The commands ``endpoints list|get|put|delete|test`` and ``infer``: requests and answers in Elasticsearch's JSON."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer

from models.embeddings import Embeddings, SparseEmbeddings
from models.endpoints.endpoint import Endpoint
from models.endpoints.registry import Registry
from models.errors import bad_request
from models.model import Model
from models.open_model import open_model
from pipeline.commands.app import app
from pipeline.commands.arguments import Folder, ModelsFrom, Target, Timeout
from pipeline.commands.requests import guard, read_json, read_lines, split_target
from pipeline.config.run_config import DEFAULT_PATH


def element_type_of(model: Model) -> str:
    """Element type of dense embeddings; of a remote model, without asking the service for its dimensions."""
    from models.remote.model import RemoteModel

    if isinstance(model, RemoteModel):
        return model.element_type
    return str(model.model_settings.get("element_type", "float"))


def embedding_size(embeddings: Embeddings, element_type: str) -> dict[str, int]:
    """Return how large one embedding is: its dimensions, or its tokens."""
    if isinstance(embeddings, SparseEmbeddings):
        return {"tokens": len(embeddings.row(0))}
    return {"dimensions": embeddings.values.shape[1] * (8 if element_type == "bit" else 1)}


def infer_texts(
    target: str,
    texts: Sequence[str],
    path: str,
    *,
    file: str | None = None,
    body: str | None = None,
    input_type: str | None = None,
    config: str | None = None,
    timeout: float | None = None,
) -> None:
    """Embed texts and print Elasticsearch's response, or its error.

    Args:
        target: an id or ``TASK/ID``.
        texts: the texts; without any, they come from `file`, or from stdin, one a line.
        path: folder of the definitions.
        file: file of texts, one a line; ``-`` is stdin.
        body: file of a whole request body in JSON; ``-`` is stdin.
        input_type: ``ingest``, ``search``, ``classification`` or ``clustering``.
        config: run config whose ``endpoints`` and ``models`` sections hold.
        timeout: seconds that a service may take for one attempt.
    """
    guard(lambda: _infer(target, texts, path, file, body, input_type, config, timeout))


def _infer(
    target: str,
    texts: Sequence[str],
    path: str,
    file: str | None,
    body_file: str | None,
    input_type: str | None,
    config: str | None,
    timeout: float | None,
) -> None:
    from models.endpoints.inference import answer, body_of, parse_request, to_bytes

    registry, models = context_of(path, config)
    task_type, inference_id = split_target(target)
    endpoint = registry.get(inference_id, task_type)
    body = read_json(body_file) if body_file else body_of(texts or read_lines(file), input_type)
    request = parse_request(endpoint, body)
    model = open_endpoint(request.endpoint, models, timeout)
    embedder = model.load()
    try:
        answered = answer(request, embedder, element_type_of(model))
    finally:
        embedder.close()
    sys.stdout.write(to_bytes(answered).decode() + "\n")


def open_endpoint(endpoint: Endpoint, models: Mapping[str, Any], timeout: float | None) -> Model:
    """Open an endpoint's model; a person who waits gets an answer sooner than a batch job would."""
    model = open_model(endpoint, models)
    problems = model.problems()
    if problems:
        bad_request("; ".join(problems), "illegal_argument_exception")
    from models.remote.http import INTERACTIVE_POLICY
    from models.remote.model import RemoteModel

    if isinstance(model, RemoteModel):
        policy = INTERACTIVE_POLICY if timeout is None else replace(INTERACTIVE_POLICY, timeout=timeout)
        return replace(model, policy=policy)
    return model


def context_of(path: str, config: str | None) -> tuple[Registry, Mapping[str, Any]]:
    """The registry and the ``models`` section: of a run config, or of a folder alone."""
    if config is None:
        return Registry(path), {}
    from pipeline.config.load import load_config

    loaded = load_config(config)
    return Registry(loaded.endpoints.path if path == DEFAULT_PATH else path), loaded.models


@app.command(
    epilog='Example: python -m pipeline infer .minilm-l6-v2 "the quick brown fox" --input-type search'
)
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
    path: Folder = "run_configs/endpoints",
    config: ModelsFrom = None,
    timeout: Timeout = None,
) -> None:
    """Embed texts and print Elasticsearch's response, or its error body and exit code 1."""
    infer_texts(
        target, texts or [], path, file=file, body=body, input_type=input_type, config=config, timeout=timeout
    )
