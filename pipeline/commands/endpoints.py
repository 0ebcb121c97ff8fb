"""The commands of `endpoints`, and `infer`: each calls a function of `pipeline.endpoints_command`."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from models.endpoints.endpoint import Endpoint
from models.endpoints.registry import Registry
from models.endpoints.services import SERVICES
from models.errors import InferenceError
from pipeline.commands.arguments import Folder, FormatOption, ModelsFrom, Target, Timeout
from pipeline.commands.infer import context_of, element_type_of, embedding_size, open_endpoint
from pipeline.commands.requests import guard, print_json, read_json, split_target

app = typer.Typer(
    help="Inference endpoints, defined as in Elasticsearch.",
    epilog="Example: python -m pipeline endpoints test .minilm-l6-v2",
    no_args_is_help=True,
)


@app.command("list", epilog="Example: python -m pipeline endpoints list --format json")
def endpoints_list(
    task_type: Annotated[
        str | None, typer.Argument(metavar="[TASK]", help="Only endpoints of this task.")
    ] = None,
    path: Folder = "run_configs/endpoints",
    output: FormatOption = "table",
) -> None:
    """List the preconfigured endpoints and those of a folder."""
    list_endpoints(path, task_type, output)


@app.command("get", epilog="Example: python -m pipeline endpoints get .minilm-l6-v2")
def endpoints_get(target: Target, path: Folder = "run_configs/endpoints") -> None:
    """Print an endpoint as GET _inference does; `_all` and `TASK/_all` print many."""
    get_endpoint(target, path)


@app.command(
    "put",
    epilog="Example: python -m pipeline endpoints put text_embedding/my-endpoint --file body.json --dry-run",
)
def endpoints_put(
    target: Target,
    file: Annotated[
        str | None, typer.Option("--file", help="Request body in JSON; without it, stdin.")
    ] = None,
    path: Folder = "run_configs/endpoints",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, and store nothing.")] = False,
) -> None:
    """Define an endpoint with the body of PUT _inference; literal secrets move to files of their own."""
    put_endpoint(target, path, file, dry_run=dry_run)


@app.command("delete", epilog="Example: python -m pipeline endpoints delete my-endpoint --dry-run")
def endpoints_delete(
    target: Target,
    path: Folder = "run_configs/endpoints",
    configs: Annotated[
        list[str] | None,
        typer.Option("--config", metavar="CONFIG", help="A run config to look into as well."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing, print what uses it.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Delete it although something uses it.")] = False,
) -> None:
    """Delete an endpoint, unless a run config or a table uses it."""
    delete_endpoint(target, path, configs or [], dry_run=dry_run, force=force)


@app.command("test", epilog="Example: python -m pipeline endpoints test .minilm-l6-v2")
def endpoints_test(
    target: Target, path: Folder = "run_configs/endpoints", config: ModelsFrom = None, timeout: Timeout = None
) -> None:
    """Embed one short text: does the endpoint work, how long are its embeddings, how fast is it?"""
    try_endpoint(target, path, config, timeout)


_ALL = ("_all", "*")


def list_endpoints(path: str, task_type: str | None = None, output: str = "table") -> None:
    """Print every endpoint of a folder and the preconfigured ones; exit with 1 when a definition is wrong.

    Args:
        path: folder of the definitions.
        task_type: only those of this task.
        output: ``table`` or ``json``.
    """
    guard(lambda: _list(path, task_type, output))


def _list(path: str, task_type: str | None, output: str) -> None:
    endpoints, wrong = Registry(path).list_all(task_type)
    if output == "json":
        print_json({"endpoints": [endpoint.to_json() for endpoint in endpoints]})
    else:
        _print_table(endpoints)
    _report_wrong(wrong)


def _print_table(endpoints: Sequence[Endpoint]) -> None:
    rows = [("INFERENCE ID", "TASK TYPE", "SERVICE", "MODEL"), *map(_row, endpoints)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _report_wrong(wrong: Mapping[Path, InferenceError]) -> None:
    """Name the definitions that are wrong; the others have been shown."""
    for file, error in wrong.items():
        print(f"error: {file} defines no endpoint: {error.reason}", file=sys.stderr)
    if wrong:
        raise SystemExit(1)


def _row(endpoint: Endpoint) -> tuple[str, str, str, str]:
    settings = endpoint.service_settings
    names = ("model_id", "model", "deployment_id", "service_id", "endpoint_name", "inference_id", "url")
    model = next((str(settings[name]) for name in names if settings.get(name)), "")
    return endpoint.inference_id, endpoint.task_type, endpoint.service, model


def get_endpoint(target: str, path: str) -> None:
    """Print one endpoint, or all of a task, as ``GET _inference/…`` answers.

    Args:
        target: an id, ``TASK/ID``, ``_all``, ``*`` or ``TASK/_all``.
        path: folder of the definitions.
    """
    guard(lambda: _get(target, Registry(path)))


def _get(target: str, registry: Registry) -> None:
    task_type, inference_id = split_target(target)
    wrong: Mapping[Path, InferenceError] = {}
    if inference_id in _ALL:
        endpoints, wrong = registry.list_all(task_type)
    else:
        endpoints = [registry.get(inference_id, task_type)]
    print_json({"endpoints": [endpoint.to_json() for endpoint in endpoints]})
    _report_wrong(wrong)


def put_endpoint(target: str, path: str, file: str | None = None, *, dry_run: bool = False) -> None:
    """Define an endpoint and print it as it is stored.

    Args:
        target: ``TASK/ID``, or an id where the service has one task or the body names it.
        path: folder of the definitions.
        file: the request body; None or ``-`` reads stdin.
        dry_run: check, and store nothing.
    """
    guard(lambda: _put(target, path, file, dry_run))


def _put(target: str, path: str, file: str | None, dry_run: bool) -> None:
    task_type, inference_id = split_target(target)
    body = read_json(file)
    endpoint = Registry(path).put(inference_id, body, task_type, dry_run=dry_run)
    note = SERVICES[endpoint.service].note
    if note:
        print(f"warning: {note}", file=sys.stderr)
    if dry_run:
        print("dry run: nothing was stored", file=sys.stderr)
    print_json(endpoint.to_json())


def delete_endpoint(
    target: str, path: str, configs: Sequence[str] = (), *, dry_run: bool = False, force: bool = False
) -> None:
    """Delete an endpoint, unless a run config or a table uses it.

    Args:
        target: an id or ``TASK/ID``.
        path: folder of the definitions.
        configs: run configs to look into, besides those in ``run_configs/`` and beside the folder.
        dry_run: delete nothing, print what uses it.
        force: delete it although something uses it.
    """
    guard(lambda: _delete(target, path, configs, dry_run, force))


def _delete(target: str, path: str, configs: Sequence[str], dry_run: bool, force: bool) -> None:
    from pipeline.commands.endpoint_usage import find_usages

    task_type, inference_id = split_target(target)
    registry = Registry(path)
    registry.get(inference_id, task_type)
    usages = find_usages(inference_id, path, configs)
    print_json(registry.delete(inference_id, task_type, usages=usages, dry_run=dry_run, force=force))


def try_endpoint(target: str, path: str, config: str | None = None, timeout: float | None = None) -> None:
    """Embed one short text and print what came back: dimensions or tokens, and how long it took.

    Args:
        target: an id or ``TASK/ID``.
        path: folder of the definitions.
        config: run config whose ``models`` section says where weights lie.
        timeout: seconds that a service may take for one attempt.
    """
    guard(lambda: _test(target, path, config, timeout))


def _test(target: str, path: str, config: str | None, timeout: float | None) -> None:
    registry, models = context_of(path, config)
    task_type, inference_id = split_target(target)
    endpoint = registry.get(inference_id, task_type)
    model = open_endpoint(endpoint, models, timeout)
    started = time.perf_counter()
    embedder = model.load()
    loaded = time.perf_counter()
    try:
        embeddings = embedder.embed(["how much wood would a woodchuck chuck"], "ingest")
    finally:
        embedder.close()
    finished = time.perf_counter()
    size = embedding_size(embeddings, element_type_of(model))
    milliseconds = [round(1000 * seconds, 1) for seconds in (loaded - started, finished - loaded)]
    print_json(
        {
            "inference_id": endpoint.inference_id,
            "task_type": endpoint.task_type,
            "service": endpoint.service,
            "model": model.describe(),
            **size,
            "load_ms": milliseconds[0],
            "latency_ms": milliseconds[1],
        }
    )
