"""The commands ``endpoints list|get|put|delete|test`` and ``infer``: requests and answers in Elasticsearch's JSON."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from models.embeddings import Embeddings, SparseEmbeddings
from models.endpoint import Endpoint, bad_request
from models.errors import InferenceError
from models.model import Model
from models.registry import Registry, open_model
from models.services import SERVICES

DEFAULT_PATH = "run_configs/endpoints"
_ALL = ("_all", "*")


def list_endpoints(path: str, task_type: str | None = None, output: str = "table") -> None:
    """Print every endpoint of a folder and the preconfigured ones; exit with 1 when a definition is wrong.

    Args:
        path: folder of the definitions.
        task_type: only those of this task.
        output: ``table`` or ``json``.
    """
    _guard(lambda: _list(path, task_type, output))


def _list(path: str, task_type: str | None, output: str) -> None:
    endpoints, wrong = Registry(path).list_all(task_type)
    if output == "json":
        _print({"endpoints": [endpoint.to_json() for endpoint in endpoints]})
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
    _guard(lambda: _get(target, Registry(path)))


def _get(target: str, registry: Registry) -> None:
    task_type, inference_id = _split(target)
    wrong: Mapping[Path, InferenceError] = {}
    if inference_id in _ALL:
        endpoints, wrong = registry.list_all(task_type)
    else:
        endpoints = [registry.get(inference_id, task_type)]
    _print({"endpoints": [endpoint.to_json() for endpoint in endpoints]})
    _report_wrong(wrong)


def put_endpoint(target: str, path: str, file: str | None = None, *, dry_run: bool = False) -> None:
    """Define an endpoint and print it as it is stored.

    Args:
        target: ``TASK/ID``, or an id where the service has one task or the body names it.
        path: folder of the definitions.
        file: the request body; None or ``-`` reads stdin.
        dry_run: check, and store nothing.
    """
    _guard(lambda: _put(target, path, file, dry_run))


def _put(target: str, path: str, file: str | None, dry_run: bool) -> None:
    task_type, inference_id = _split(target)
    body = _read_json(file)
    endpoint = Registry(path).put(inference_id, body, task_type, dry_run=dry_run)
    note = SERVICES[endpoint.service].note
    if note:
        print(f"warning: {note}", file=sys.stderr)
    if dry_run:
        print("dry run: nothing was stored", file=sys.stderr)
    _print(endpoint.to_json())


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
    _guard(lambda: _delete(target, path, configs, dry_run, force))


def _delete(target: str, path: str, configs: Sequence[str], dry_run: bool, force: bool) -> None:
    from pipeline.endpoint_usage import find_usages

    task_type, inference_id = _split(target)
    registry = Registry(path)
    registry.get(inference_id, task_type)
    usages = find_usages(inference_id, path, configs)
    _print(registry.delete(inference_id, task_type, usages=usages, dry_run=dry_run, force=force))


def try_endpoint(target: str, path: str, config: str | None = None, timeout: float | None = None) -> None:
    """Embed one short text and print what came back: dimensions or tokens, and how long it took.

    Args:
        target: an id or ``TASK/ID``.
        path: folder of the definitions.
        config: run config whose ``models`` section says where weights lie.
        timeout: seconds that a service may take for one attempt.
    """
    _guard(lambda: _test(target, path, config, timeout))


def _test(target: str, path: str, config: str | None, timeout: float | None) -> None:
    registry, models = _context(path, config)
    task_type, inference_id = _split(target)
    endpoint = registry.get(inference_id, task_type)
    model = _open(endpoint, models, timeout)
    started = time.perf_counter()
    embedder = model.load()
    loaded = time.perf_counter()
    try:
        embeddings = embedder.embed(["how much wood would a woodchuck chuck"], "ingest")
    finally:
        embedder.close()
    finished = time.perf_counter()
    size = _size(embeddings, _element_type(model))
    milliseconds = [round(1000 * seconds, 1) for seconds in (loaded - started, finished - loaded)]
    _print(
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


def _element_type(model: Model) -> str:
    """Element type of dense embeddings; of a remote model, without asking the service for its dimensions."""
    from models.remote.model import RemoteModel

    if isinstance(model, RemoteModel):
        return model.element_type
    return str(model.model_settings.get("element_type", "float"))


def _size(embeddings: Embeddings, element_type: str) -> dict[str, int]:
    if isinstance(embeddings, SparseEmbeddings):
        return {"tokens": len(embeddings.row(0))}
    return {"dimensions": embeddings.values.shape[1] * (8 if element_type == "bit" else 1)}


def infer(
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
    _guard(lambda: _infer(target, texts, path, file, body, input_type, config, timeout))


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
    from models.inference import answer, body_of, parse_request, to_bytes

    registry, models = _context(path, config)
    task_type, inference_id = _split(target)
    endpoint = registry.get(inference_id, task_type)
    body = _read_json(body_file) if body_file else body_of(texts or _read_lines(file), input_type)
    request = parse_request(endpoint, body)
    model = _open(request.endpoint, models, timeout)
    embedder = model.load()
    try:
        answered = answer(request, embedder, _element_type(model))
    finally:
        embedder.close()
    sys.stdout.write(to_bytes(answered).decode() + "\n")


def _open(endpoint: Endpoint, models: Mapping[str, Any], timeout: float | None) -> Model:
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


def _context(path: str, config: str | None) -> tuple[Registry, Mapping[str, Any]]:
    """The registry and the ``models`` section: of a run config, or of a folder alone."""
    if config is None:
        return Registry(path), {}
    from pipeline.config import load_config

    loaded = load_config(config)
    return Registry(loaded.endpoints.path if path == DEFAULT_PATH else path), loaded.models


def _split(target: str) -> tuple[str | None, str]:
    """Split ``TASK/ID``; an id has no slash."""
    task_type, slash, inference_id = target.removeprefix("_inference/").partition("/")
    return (task_type, inference_id) if slash else (None, target)


def _read_json(file: str | None) -> Any:
    try:
        return json.loads(_read_text(file, "the request body is missing; name it with --file, or pipe it in"))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        problem = f"the request body is not JSON: {error.msg} at {place}"
    bad_request(problem, "x_content_parse_exception")


def _read_lines(file: str | None) -> list[str]:
    """Texts, one a line. Only line feeds end a line; a text may hold other separators."""
    lines = _read_text(file, "Field [input] cannot be null").split("\n")
    texts = [line.removesuffix("\r") for line in lines]
    return texts[:-1] if texts[-1] == "" else texts


def _read_text(file: str | None, nothing: str) -> str:
    if file in (None, "-"):
        if sys.stdin is None or sys.stdin.isatty():
            bad_request(nothing, "action_request_validation_exception")
        return sys.stdin.buffer.read().decode("utf-8", "replace").removeprefix("\ufeff")
    try:
        return Path(str(file)).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        problem = f"[{file}] is not UTF-8 text"
    except OSError as error:
        problem = f"[{file}] cannot be read: {error.strerror}"
    bad_request(problem, "illegal_argument_exception")


def _print(body: Any) -> None:
    sys.stdout.write(json.dumps(body, indent=2, ensure_ascii=False) + "\n")


def _guard(command: Callable[[], None]) -> None:
    """Run a command; print the error body that Elasticsearch would answer, and exit with 1, when it fails."""
    try:
        command()
        return
    except InferenceError as error:
        failure = error
    _fail(failure)


def _fail(error: InferenceError) -> NoReturn:
    _print(error.to_json())
    print(f"error: {error.reason}", file=sys.stderr)
    raise SystemExit(1)
