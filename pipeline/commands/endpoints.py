"""The commands of `endpoints`: define, list, print, delete and try inference endpoints."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.app import app
from pipeline.commands.arguments import (
    Folder,
    Format,
    ModelsFrom,
    Target,
    Timeout,
    read_json,
    registry_of,
    split_target,
)
from pipeline.config.defaults import DEFAULT_ENDPOINTS
from pipeline.terminal.output import answers_in_json, print_json, print_table
from pipeline.terminal.text import one_line, show_error

if TYPE_CHECKING:
    from models.embeddings import Embeddings
    from models.endpoints.endpoint import Endpoint
    from models.errors import InferenceError
    from models.model import Model, RerankModel

endpoints = typer.Typer(
    help="Inference endpoints, defined as in Elasticsearch.",
    epilog="Example: semantic-ingest endpoints test .minilm-l6-v2",
    no_args_is_help=True,
)
app.add_typer(endpoints, name="endpoints")

_ALL = ("_all", "*")
_MODEL_NAMES = ("model_id", "model", "deployment_id", "service_id", "endpoint_name", "inference_id", "url")


@endpoints.command("list", epilog="Example: semantic-ingest endpoints list --format json")
@answers_in_json
def list_endpoints(
    task_type: Annotated[
        str | None, typer.Argument(metavar="[TASK]", help="Only endpoints of this task.")
    ] = None,
    path: Folder = None,
    output: Format = "table",
) -> None:
    """List the preconfigured endpoints and those of a folder."""
    registry, _ = registry_of(path)
    found, wrong = registry.list_all(task_type)
    if output == "json":
        print_json({"endpoints": [endpoint.to_json() for endpoint in found]})
    else:
        print_table(("inference id", "task type", "service", "model", "end of life"), map(_row, found))
    _report_endings(found, path or DEFAULT_ENDPOINTS)
    _report_wrong(wrong)


def _row(endpoint: "Endpoint") -> tuple[str, str, str, str, str]:
    from models.endpoints.lifetime import last_day

    settings, last = endpoint.service_settings, last_day(endpoint)
    model = next((str(settings[name]) for name in _MODEL_NAMES if settings.get(name)), "")
    return endpoint.inference_id, endpoint.task_type, endpoint.service, model, str(last or "")


def _report_endings(found: "Sequence[Endpoint]", path: str) -> None:
    """Warn of endpoints that will stop to answer, with the fields of run configs that they embed."""
    from models.endpoints.lifetime import ending

    ends = [end for endpoint in found if (end := ending(endpoint)) is not None]
    if not ends:
        return
    from pipeline.config.endings import move_commands
    from pipeline.table.endpoint_usage import find_all_usages

    usages = find_all_usages(path)
    for end in ends:
        used = [usage.name for usage in usages.get(end.inference_id, []) if usage.kind == "pipelines"]
        told = ". ".join([end.told(), *move_commands(end.inference_id, used)])
        typer.secho(f"warning: {one_line(told)}", err=True, fg="yellow")


def _report_wrong(wrong: "Mapping[Path, InferenceError]") -> None:
    """Name the definitions that are wrong; the others have been shown."""
    for file, error in wrong.items():
        show_error(f"{file} defines no endpoint: {error.reason}")
    if wrong:
        raise SystemExit(1)


@endpoints.command("get", epilog="Example: semantic-ingest endpoints get .minilm-l6-v2")
@answers_in_json
def get_endpoint(target: Target, path: Folder = None) -> None:
    """Print an endpoint as GET _inference does. `_all` and `TASK/_all` print many."""
    registry, _ = registry_of(path)
    task_type, inference_id = split_target(target)
    wrong: Mapping[Path, InferenceError] = {}
    if inference_id in _ALL:
        found, wrong = registry.list_all(task_type)
    else:
        found = [registry.get(inference_id, task_type)]
    print_json({"endpoints": [endpoint.to_json() for endpoint in found]})
    _report_wrong(wrong)


@endpoints.command(
    "put",
    epilog="Example: semantic-ingest endpoints put text_embedding/my-endpoint --file body.json --dry-run",
)
@answers_in_json
def put_endpoint(
    target: Target,
    file: Annotated[
        str | None, typer.Option("--file", help="Request body in JSON; without it, stdin.")
    ] = None,
    path: Folder = None,
    update: Annotated[
        bool,
        typer.Option(
            "--update",
            help="Change an endpoint as PUT _inference/ID/_update does: task settings, secrets, allocations, limits.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, and store nothing.")] = False,
) -> None:
    """Define an endpoint with the body of PUT _inference. Literal secrets move to files of their own."""
    registry, _ = registry_of(path)
    task_type, inference_id = split_target(target)
    store = registry.update if update else registry.put
    endpoint = store(inference_id, read_json(file), task_type, dry_run=dry_run)
    note = endpoint.known.note
    if note:
        print(f"warning: {note}", file=sys.stderr)
    if dry_run:
        print("dry run: nothing was stored", file=sys.stderr)
    print_json(endpoint.to_json())


@endpoints.command("delete", epilog="Example: semantic-ingest endpoints delete my-endpoint --dry-run")
@answers_in_json
def delete_endpoint(
    target: Target,
    path: Folder = None,
    configs: Annotated[
        list[str] | None,
        typer.Option("--config", metavar="CONFIG", help="A run config to look into as well."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing, print what uses it.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Delete it although something uses it.")] = False,
) -> None:
    """Delete an endpoint, unless a run config or a table uses it."""
    from pipeline.table.endpoint_usage import find_usages

    registry, _ = registry_of(path)
    task_type, inference_id = split_target(target)
    registry.get(inference_id, task_type)  # one that is not there is said before anything is looked for
    usages = find_usages(inference_id, path or DEFAULT_ENDPOINTS, configs or [])
    print_json(registry.delete(inference_id, task_type, usages=usages, dry_run=dry_run, force=force))


@endpoints.command("test", epilog="Example: semantic-ingest endpoints test .minilm-l6-v2")
@answers_in_json
def try_endpoint(
    target: Target, path: Folder = None, config: ModelsFrom = None, timeout: Timeout = None
) -> None:
    """Embed or rank one short text. Does the endpoint work, how long are its embeddings, how fast is it?"""
    registry, models = registry_of(path, config)
    task_type, inference_id = split_target(target)
    endpoint = registry.get(inference_id, task_type)
    attempt = _try_embedding if endpoint.embeds else _try_ranking
    model, found, started, loaded = attempt(endpoint, models, timeout)
    finished = time.perf_counter()
    print_json(
        {
            "inference_id": endpoint.inference_id,
            "task_type": endpoint.task_type,
            "service": endpoint.service,
            "model": model.describe(),
            **found,
            "load_ms": round(1000 * (loaded - started), 1),
            "latency_ms": round(1000 * (finished - loaded), 1),
        }
    )


_TEXT = "how much wood would a woodchuck chuck"
Attempt = tuple["Model | RerankModel", dict[str, Any], float, float]
"""A model, what came of it, and the moments before and after it was loaded."""


def _try_embedding(endpoint: "Endpoint", models: "Mapping[str, Any]", timeout: float | None) -> Attempt:
    from models.open_model import usable_model

    model = usable_model(endpoint, models, timeout)
    started = time.perf_counter()
    embedder = model.load()
    loaded = time.perf_counter()
    try:
        return model, _size(embedder.embed([_TEXT], "ingest"), endpoint.element_type), started, loaded
    finally:
        embedder.close()


def _try_ranking(endpoint: "Endpoint", models: "Mapping[str, Any]", timeout: float | None) -> Attempt:
    from models.open_model import usable_rerank_model

    model = usable_rerank_model(endpoint, models, timeout)
    started = time.perf_counter()
    reranker = model.load()
    loaded = time.perf_counter()
    try:
        score = float(reranker.rerank("woodchucks", [_TEXT]).scores[0])
        return model, {"relevance_score": score}, started, loaded
    finally:
        reranker.close()


def _size(embeddings: "Embeddings", element_type: str) -> dict[str, int]:
    """How large one embedding is: its dimensions, or its tokens."""
    from models.embeddings import SparseEmbeddings

    if isinstance(embeddings, SparseEmbeddings):
        return {"tokens": len(embeddings.row(0))}
    # Bits are packed eight to a number.
    return {"dimensions": embeddings.values.shape[1] * (8 if element_type == "bit" else 1)}
