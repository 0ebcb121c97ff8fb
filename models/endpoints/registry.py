"""Inference endpoints by id: the preconfigured ones and a folder of user-defined ones, one file each."""

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from models.endpoints.endpoint import Endpoint, check_inference_id, find_service, parse_endpoint
from models.endpoints.preconfigured import PRECONFIGURED, preconfigured
from models.endpoints.secret_files import changing, clear_leftovers, made_files, store, write_aside
from models.endpoints.secrets import split
from models.endpoints.services import TASKS
from models.errors import InferenceError, bad_request
from models.json_text import parse_json

_MAX_DEFINITION = 1 << 20
_SETTLED = 1_000_000_000  # nanoseconds
_log = logging.getLogger(__name__)

_UPDATABLE = ("num_threads", "num_allocations", "adaptive_allocations", "rate_limit", "max_batch_size")
"""Service settings that change no embedding."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Something that would break if an endpoint were gone.

    Attributes:
        kind: ``pipelines`` for a run config that names the endpoint, ``indexes`` for a table or index mapping.
        name: which one.
    """

    kind: str
    name: str


class Registry:
    """The endpoints of one folder, and the preconfigured ones.

    Every change is one atomic step: a definition is there as a whole or not at all, and none is ever
    overwritten.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """Open a folder of definitions.

        Args:
            path: the folder; it need not exist. None has only the preconfigured endpoints.
        """
        self._folder = None if path is None else Path(path)
        self._known: dict[str, tuple[tuple[int, ...], Endpoint]] = {}

    def get(self, inference_id: str, task_type: str | None = None) -> Endpoint:
        """Return the endpoint with this id.

        Args:
            inference_id: its id.
            task_type: the task that it must have; None takes any.

        Raises:
            InferenceError: 404, there is none; 400, it has another task type or its file is wrong.
        """
        endpoint = preconfigured(inference_id) or self._read(inference_id)
        if endpoint is None:
            bad_request(
                f"Inference endpoint not found [{inference_id}]{_hosted(inference_id)}",
                "resource_not_found_exception",
                404,
            )
        _check_task(endpoint, task_type)
        return endpoint

    def list(self, task_type: str | None = None) -> Sequence[Endpoint]:
        """Return all endpoints that can be used, sorted by id.

        Args:
            task_type: only those of this task; the list may be empty.
        """
        return self.list_all(task_type)[0]

    def list_all(
        self, task_type: str | None = None
    ) -> tuple[Sequence[Endpoint], Mapping[Path, InferenceError]]:
        """Return all endpoints sorted by id, and the files whose definition is wrong, with what is wrong.

        Args:
            task_type: only endpoints of this task; of a wrong definition it is not known.
        """
        if self._folder is not None:
            clear_leftovers(self._folder)
        found, wrong = [], {}
        files = {file.stem: file for file in self._files()}
        for inference_id in sorted({*PRECONFIGURED, *files}):
            try:
                found.append(self.get(inference_id))
            except InferenceError as error:
                wrong[files[inference_id]] = error
        return [endpoint for endpoint in found if task_type in (None, endpoint.task_type)], wrong

    def put(
        self, inference_id: str, body: Any, task_type: str | None = None, *, dry_run: bool = False
    ) -> Endpoint:
        """Define a new endpoint.

        Args:
            inference_id: its id; must be new.
            body: the request body that Elasticsearch takes. Literal secrets go to files of their own.
            task_type: the task type; None takes the body's, or the only one of the service.
            dry_run: validate and write nothing.

        Raises:
            InferenceError: the definition is wrong, or the id is taken.
        """
        self.check_new(inference_id)
        referenced, literals = _split_secrets(inference_id, body, task_type)
        folder = self._folder or Path()
        endpoint = parse_endpoint(inference_id, referenced, task_type, folder=str(folder))
        if endpoint.known.note:
            _log.warning(endpoint.known.note)
        if not dry_run:
            if self._folder is None:
                bad_request("there is no folder for user-defined endpoints; name one with endpoints.path")
            self._store(self._folder, endpoint, literals, replaces=False)
        return endpoint

    def update(
        self, inference_id: str, body: Any, task_type: str | None = None, *, dry_run: bool = False
    ) -> Endpoint:
        """Change an endpoint as ``PUT _inference/<id>/_update`` does: task settings, secrets, allocations, limits.

        What decides its embeddings cannot be changed: rows that it embedded would not fit those to come.

        Args:
            inference_id: its id.
            body: ``task_settings`` and ``service_settings`` with what changes.
            task_type: the task that it must have; None takes any.
            dry_run: validate and write nothing.

        Raises:
            InferenceError: 404, there is none; 400, it is preconfigured, or the change cannot be.
        """
        before = self.get(inference_id, task_type)
        if inference_id in PRECONFIGURED:
            bad_request(f"[{inference_id}] is a reserved inference endpoint and cannot be updated")
        changed, literals = _split_secrets(inference_id, _updated(before, body))
        assert self._folder is not None
        endpoint = parse_endpoint(inference_id, changed, folder=str(self._folder))
        if dry_run:
            return endpoint
        self._store(self._folder, endpoint, literals, replaces=True)
        return endpoint

    def delete(
        self,
        inference_id: str,
        task_type: str | None = None,
        *,
        usages: Sequence[Usage] = (),
        dry_run: bool = False,
        force: bool = False,
    ) -> dict[str, Any]:
        """Delete an endpoint, and the secret files that `put` made for it.

        Args:
            inference_id: its id.
            task_type: the task that it must have; None takes any.
            usages: what uses it.
            dry_run: delete nothing and say what uses it.
            force: delete it although something uses it.

        Raises:
            InferenceError: 409, something uses it; 404, there is none; 400, it is preconfigured.
        """
        endpoint = self.get(inference_id, task_type)
        if inference_id in PRECONFIGURED:
            bad_request(f"[{inference_id}] is a reserved inference endpoint and cannot be deleted")
        names = {
            kind: sorted({u.name for u in usages if u.kind == kind}) for kind in ("pipelines", "indexes")
        }
        message = _in_use(inference_id, **names)
        if dry_run:
            return {"acknowledged": False, **names, "error_message": message}
        if message and not force:
            bad_request(message, status=409)
        assert self._folder is not None
        service = endpoint.known
        made = made_files(endpoint.service_settings, service.settings)
        made += made_files(endpoint.task_settings, service.task_settings)
        with changing(self._folder, inference_id, made):
            (self._folder / f"{inference_id}.json").unlink(missing_ok=True)
        return {"acknowledged": True, **names, "error_message": message}

    def _store(
        self, folder: Path, endpoint: Endpoint, literals: Mapping[str, str], *, replaces: bool
    ) -> None:
        """Write the definition and its secrets, or neither."""
        file = folder / f"{endpoint.inference_id}.json"
        try:
            with changing(folder, endpoint.inference_id, list(literals)):
                if (
                    file.exists() and not replaces
                ):  # since it was looked for, by a writer with secrets of its own
                    _refuse_existing(endpoint.inference_id)
                store(folder, literals)
                _write(file, endpoint)
            return
        except OSError as error:
            problem = f"{error.filename or folder} cannot be written: {error.strerror}"
        bad_request(problem, status=500)

    def check_new(self, inference_id: str) -> None:
        """Raise InferenceError when an endpoint with this id cannot be defined: it is taken, reserved or no id."""
        if inference_id in PRECONFIGURED:
            bad_request(
                f"[{inference_id}] is a reserved inference Id. Cannot create a new inference endpoint with"
                " a reserved Id"
            )
        check_inference_id(inference_id)
        if inference_id in _model_ids():
            bad_request(
                f"Inference endpoint IDs must be unique. Requested inference endpoint ID [{inference_id}]"
                " matches existing trained model ID(s) but must not."
            )
        if self._folder is not None and (self._folder / f"{inference_id}.json").exists():
            _refuse_existing(inference_id)

    def _files(self) -> Sequence[Path]:
        if self._folder is None or not self._folder.is_dir():
            return []
        return [file for file in self._folder.glob("*.json") if not file.name.startswith(".")]

    def _read(self, inference_id: str) -> Endpoint | None:
        """Read one definition; a literal secret in a file that a person wrote moves to a secret file."""
        if self._folder is None or "/" in inference_id or inference_id.startswith("."):
            return None
        file = self._folder / f"{inference_id}.json"
        if not os.path.lexists(file):
            return None
        seen = _version(file)
        known = self._known.get(inference_id)
        if known is not None and known[0] == seen:
            return known[1]
        try:
            body = parse_json(_content(file))
        except (OSError, ValueError) as error:
            problem = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            bad_request(f"{file} is not a readable JSON file: {problem}", "x_content_parse_exception")
        check_inference_id(inference_id)
        referenced, literals = _split_secrets(inference_id, body)
        endpoint = parse_endpoint(inference_id, referenced, folder=str(self._folder))
        if literals:
            self._move_secrets(file, endpoint, literals)
        elif seen:
            self._known[inference_id] = (seen, endpoint)
        return endpoint

    def _move_secrets(self, file: Path, endpoint: Endpoint, literals: Mapping[str, str]) -> None:
        try:
            with changing(file.parent, endpoint.inference_id, list(literals)):
                store(file.parent, literals)
                _write(file, endpoint)
        except OSError as error:
            bad_request(
                f"{file} holds a literal secret and could not be rewritten ({error.strerror}); write"
                " env:NAME or file:PATH instead"
            )
        _log.warning("%s held a literal secret; it is now in %s", file, ", ".join(literals))


def _hosted(inference_id: str) -> str:
    """What to do where Elastic hosts an endpoint of this name, and nothing here stands for it; else empty."""
    from models.endpoints.lifetime import hosted_endpoints

    if inference_id not in hosted_endpoints():
        return ""
    return (
        ": Elastic's inference service hosts it, for clusters only; define an endpoint of the service [elastic] with"
        " the [url] of a cluster and this [inference_id], or one of the model's own service"
    )


def _model_ids() -> frozenset[str]:
    """Ids of the models of the catalogue: an endpoint named like one of them would be ambiguous."""
    return frozenset(json.loads((files("models.local") / "catalog.json").read_text(encoding="utf-8")))


def _check_task(endpoint: Endpoint, task_type: str | None) -> None:
    if task_type is not None and task_type not in TASKS:
        bad_request(f"Unknown task_type [{task_type}]", "illegal_argument_exception")
    if task_type not in (None, endpoint.task_type):
        bad_request(
            f"Requested task type [{task_type}] does not match the inference endpoint's task type"
            f" [{endpoint.task_type}]"
        )


def _split_secrets(inference_id: str, body: Any, task_type: str | None = None) -> tuple[Any, dict[str, str]]:
    """Split the secrets off both settings objects of a request body."""
    _, _, service = find_service(body, task_type)
    body, literals = dict(body), dict[str, str]()
    for scope, known, prefix in (
        ("service_settings", service.settings, ""),
        ("task_settings", service.task_settings, "task."),
    ):
        if isinstance(body.get(scope), dict):
            body[scope], found = split(inference_id, body[scope], known, prefix)
            literals |= found
    return body, literals


def _updated(endpoint: Endpoint, body: Any) -> dict[str, Any]:
    """The body of a definition with the changes of an update in it."""
    if not isinstance(body, dict):
        bad_request(f"the body must be a JSON object, not {type(body).__name__}", "x_content_parse_exception")
    changes = {scope: body.get(scope) or {} for scope in ("service_settings", "task_settings")}
    unknown = sorted(body.keys() - changes.keys() - {"service", "task_type", "inference_id"})
    wrong = [scope for scope, value in changes.items() if not isinstance(value, dict)]
    if unknown or wrong or not any(changes.values()):
        bad_request(
            "an update takes [service_settings] and [task_settings], objects with what changes"
            + (f"; not [{', '.join(unknown)}]" if unknown else "")
        )
    known = endpoint.known.settings
    fixed = sorted(
        name
        for name, value in changes["service_settings"].items()
        if name in known
        and name not in _UPDATABLE
        and known[name].kind not in ("secret", "secrets", "headers")
        and value != endpoint.service_settings.get(name)
    )
    if fixed:
        bad_request(f"[service_settings] cannot change [{', '.join(fixed)}]: define another endpoint instead")
    updated = endpoint.to_json()
    for scope, change in changes.items():
        updated[scope] = {**updated.get(scope, {}), **change}
    for name in ("service", "task_type"):
        if body.get(name, updated[name]) != updated[name]:
            bad_request(f"[{name}] of an endpoint cannot be changed")
    return updated


def _in_use(inference_id: str, pipelines: Sequence[str], indexes: Sequence[str]) -> str:
    """Elasticsearch's message about what uses an endpoint; empty when nothing does."""
    sentences = []
    if pipelines:
        sentences.append(
            f"Inference endpoint {inference_id} is referenced by pipelines: [{', '.join(pipelines)}]."
            " Ensure that no pipelines are using this inference endpoint, or use force to ignore this"
            " warning and delete the inference endpoint."
        )
    if indexes:
        sentences.append(
            f"Inference endpoint {inference_id} is being used in the mapping for indexes:"
            f" [{', '.join(indexes)}]. Ensure that no index mappings are using this inference endpoint, or"
            " use force to ignore this warning and delete the inference endpoint."
        )
    return " ".join(sentences)


def _refuse_existing(inference_id: str) -> None:
    bad_request(f"Inference endpoint [{inference_id}] already exists", "resource_already_exists_exception")


def _write(file: Path, endpoint: Endpoint) -> None:
    write_aside(file, json.dumps(endpoint.to_json(), indent=2, ensure_ascii=False) + "\n", 0o644)


def _version(file: Path) -> tuple[int, ...]:
    """What changes with a file's content; empty where it cannot be told.

    Two changes within a tick of the file system's clock have the same time, so that a file that has just changed is not
    known yet.
    """
    try:
        found = file.stat()
    except OSError:
        return ()
    if time.time_ns() - found.st_ctime_ns < _SETTLED:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _content(file: Path) -> str:
    """What is in a definition, which must be an ordinary file of an ordinary size."""
    if file.exists() and not file.is_file():
        raise ValueError("it is no file")
    with file.open("rb") as stream:
        content = stream.read(_MAX_DEFINITION + 1)
    if len(content) > _MAX_DEFINITION:
        raise ValueError(f"it is larger than {_MAX_DEFINITION:,} bytes")
    return content.decode("utf-8-sig")
