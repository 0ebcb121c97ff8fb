"""The definition of an inference endpoint in Elasticsearch's shape, checked in Elasticsearch's words."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson

from models.chunking_settings import ChunkingSettings, check_elser_chunk_size, parse_chunking_settings
from models.endpoints.rerank_services import RERANK_SERVICES, service_of
from models.endpoints.secrets import secret_paths
from models.endpoints.services import EMBEDDING_TASKS, OTHER_TASKS, SERVICES, TASKS, Service
from models.endpoints.setting_checks import check_deployment, check_metadata, check_one_of, check_settings
from models.errors import ValidationError, bad_request
from models.text import java_string

ELSER_MODELS = (".elser_model_1", ".elser_model_2", ".elser_model_2_linux-x86_64")
RERANK_MODELS = (".rerank-v1", ".rerank-v1_linux-x86_64")
_ID = re.compile(r"[a-z0-9](?:[a-z0-9_\-.]*[a-z0-9])?")
_TOP_LEVEL = (
    "inference_id",
    "task_type",
    "service",
    "service_settings",
    "task_settings",
    "chunking_settings",
    "metadata",
)


@dataclass(frozen=True)
class Endpoint:
    """An inference endpoint: a service, a model and how to call it. Holds references to secrets, no secrets.

    Attributes:
        inference_id: its id.
        task_type: ``sparse_embedding``, ``text_embedding``, ``embedding`` or ``rerank``.
        service: a key of `SERVICES`.
        service_settings: settings of the service, defaults filled in.
        task_settings: settings of the task.
        chunking_settings: how a ``semantic_text`` field without settings of its own is chunked.
        folder: the folder that ``file:`` references are relative to.
        metadata: what a cluster tells of the model: ``heuristics`` (status, release and end-of-life dates) and
            ``display``. Changes no embedding, and is no part of what a table keeps.
    """

    inference_id: str
    task_type: str
    service: str
    service_settings: Mapping[str, Any]
    task_settings: Mapping[str, Any]
    chunking_settings: ChunkingSettings
    folder: str | None = field(default=None, repr=False, compare=False)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def embeds(self) -> bool:
        """Whether it embeds texts, rather than ranks them."""
        return self.task_type in EMBEDDING_TASKS

    @property
    def is_sparse(self) -> bool:
        """Whether its embeddings are sparse."""
        return self.task_type == "sparse_embedding"

    @property
    def known(self) -> Service:
        """What its service is like for its task."""
        return service_of(self.service, self.task_type)

    @property
    def element_type(self) -> str:
        """Element type of its dense embeddings: ``float``, ``byte`` or ``bit``; ``float`` where it names none."""
        settings = self.service_settings
        if self.service == "custom":
            settings = settings["response"]["json_parser"]
        named = settings.get("element_type") or settings.get("embedding_type") or "float"
        return {"int8": "byte", "binary": "bit"}.get(named, str(named))

    @property
    def secret_references(self) -> dict[str, str]:
        """Path of each secret -> its reference."""
        known = self.known
        return {
            **secret_paths(self.service_settings, known.settings),
            **secret_paths(self.task_settings, known.task_settings),
        }

    @cached_property
    def key(self) -> bytes:
        """All of the definition, to tell endpoints apart: their settings are mappings, which have no hash."""
        return orjson.dumps(self.to_json(), option=orjson.OPT_SORT_KEYS)

    def to_json(self) -> dict[str, Any]:
        """Return the definition as Elasticsearch answers a GET; secrets show as their references."""
        return {**self.definition(), **({"metadata": dict(self.metadata)} if self.metadata else {})}

    def definition(self) -> dict[str, Any]:
        """Return what defines the endpoint, without what is told of its model."""
        return {
            "inference_id": self.inference_id,
            "task_type": self.task_type,
            "service": self.service,
            "service_settings": dict(self.service_settings),
            **({"task_settings": dict(self.task_settings)} if self.task_settings else {}),
            **({"chunking_settings": self.chunking_settings.to_json()} if self.embeds else {}),
        }


def check_inference_id(inference_id: str) -> None:
    """Raise InferenceError (400) when `inference_id` is not one that a user may give."""
    if _ID.fullmatch(inference_id) is None:
        bad_request(
            f"Invalid inference_id; '{inference_id}' can contain lowercase alphanumeric (a-z and 0-9),"
            " hyphens or underscores; must start and end with alphanumeric",
            "action_request_validation_exception",
        )


def parse_endpoint(
    inference_id: str, body: Any, task_type: str | None = None, *, folder: str | None = None
) -> Endpoint:
    """Validate the body of ``PUT _inference/<task_type>/<inference_id>``.

    Args:
        inference_id: the endpoint's id; its form is not checked here.
        body: the request body; secrets must be references (`models.endpoints.secrets.split` makes them so).
        task_type: the task type in the path; None takes the body's, or the only one of the service that embeds.
        folder: the folder that ``file:`` references are relative to.

    Raises:
        ValidationError: several problems, or one of a setting.
        InferenceError: the one problem found.
    """
    name, task, service = find_service(body, task_type)
    settings, problems = check_settings("service_settings", body, service.settings)
    task_settings, task_problems = check_settings("task_settings", body, service.task_settings)
    problems += task_problems
    problems += check_one_of(settings, service)
    if service.protocol == "local" and not settings.get("url"):
        problems += check_deployment(name, settings, body.get("service_settings"))
        problems += _check_rerank_model(task, settings)
    problems += _check_custom(task, settings) if name == "custom" else []
    problems += check_metadata(body.get("metadata"))
    unknown = _unknown_keys(inference_id, body, service, name, task)
    model_missing = _misses_model(name, settings)
    if unknown and not problems and not model_missing:
        bad_request(unknown)
    if model_missing and not problems and not unknown:
        bad_request(model_missing, "illegal_argument_exception")
    if problems or unknown:
        raise ValidationError([*problems, *filter(None, (model_missing, unknown))])
    chunking = parse_chunking_settings(body.get("chunking_settings") or {})
    assert chunking is not None
    if name in ("elasticsearch", "elser") and settings.get("model_id") in ELSER_MODELS:
        check_elser_chunk_size(chunking)
    if service.rate is not None:
        settings["rate_limit"] = {"requests_per_minute": service.rate, **(settings.get("rate_limit") or {})}
    metadata = dict(body.get("metadata") or {})
    return Endpoint(inference_id, task, name, settings, task_settings, chunking, folder, metadata)


def find_service(body: Any, task_type: str | None = None) -> tuple[str, str, Service]:
    """Return the service that a request body names, its task type, and what that service is like for the task.

    Args:
        body: the request body.
        task_type: the task type in the path; None takes the body's, or the only one of the service that embeds.

    Raises:
        InferenceError: there is none, it is unknown, or it has neither an embedding task nor `rerank`.
    """
    if not isinstance(body, dict):
        bad_request(f"the body must be a JSON object, not {type(body).__name__}", "x_content_parse_exception")
    name = body.get("service")
    if name is None:
        bad_request("Inference endpoint configuration is missing a service")
    if not isinstance(name, str) or name not in SERVICES:
        bad_request(f"Unknown service [{java_string(name)}]")
    if not SERVICES[name].tasks and name not in RERANK_SERVICES:
        bad_request(
            f"The [{name}] service has no embedding task and does not rerank (it has"
            f" {', '.join(SERVICES[name].other_tasks)}); only endpoints that do can be defined here"
        )
    task = _find_task_type(body, name, task_type)
    return name, task, service_of(name, task)


def _find_task_type(body: Mapping[str, Any], name: str, in_path: str | None) -> str:
    """Return the task type of a definition: the path's, the body's, or the only one of the service that embeds.

    Raises:
        InferenceError: there is none, it is unknown, the service lacks it, or it is for something else.
    """
    in_body = body.get("task_type")
    if in_path and in_body and in_path != in_body:
        bad_request(
            f"Cannot resolve conflicting task_type parameter in the request URL [{in_path}] and the"
            f" request body [{in_body}]"
        )
    task = in_path or in_body
    if task is not None and not isinstance(task, str):
        bad_request(f"Unknown task_type [{java_string(task)}]", "illegal_argument_exception")
    tasks = (*SERVICES[name].tasks, *(["rerank"] if name in RERANK_SERVICES else []))
    if task is None:
        likely = SERVICES[name].tasks or tasks
        if len(likely) > 1:
            bad_request(
                f"Service [{name}] supports several task types [{', '.join(tasks)}]; name one in"
                " the path, for example text_embedding/my-endpoint"
            )
        return likely[0]
    if task in OTHER_TASKS:
        bad_request(
            f"[{task}] is neither an embedding task nor rerank; only endpoints of the tasks {', '.join(TASKS)}"
            " can be defined here"
        )
    if task not in TASKS:
        bad_request(f"Unknown task_type [{task}]", "illegal_argument_exception")
    if task not in tasks:
        bad_request(f"The [{name}] service does not support task type [{task}]")
    return str(task)


def _check_rerank_model(task: str, settings: Mapping[str, Any]) -> list[str]:
    """Refuse Elastic's model that ranks and makes no embeddings where embeddings are wanted, and the reverse."""
    model_id = settings.get("model_id") or settings.get("deployment_id")
    if not isinstance(model_id, str):
        return []
    if task != "rerank" and model_id in RERANK_MODELS:
        return [f"[{model_id}] is a rerank model and makes no embeddings; its task type is [rerank]"]
    if task == "rerank" and model_id in ELSER_MODELS:
        return [f"[{model_id}] makes sparse embeddings and does not rerank"]
    return []


def _check_custom(task: str, settings: dict[str, Any]) -> list[str]:
    """Check the parts of a `custom` definition that its protocol needs."""
    from models.endpoints.custom import problems_of

    return problems_of(task, settings)


def _misses_model(name: str, settings: Mapping[str, Any]) -> str | None:
    """The `elasticsearch` service runs a model or asks an endpoint of a remote cluster; it must say which."""
    if name == "elasticsearch" and not any(
        settings.get(key) for key in ("model_id", "deployment_id", "inference_id")
    ):
        return "Error parsing service settings, model_id must be provided"
    return None


def _unknown_keys(
    inference_id: str, body: Mapping[str, Any], service: Service, name: str, task: str
) -> str | None:
    """Name the keys that nothing knows, and not their values, since one may be a misspelt secret."""
    chunks = {"chunking_settings"} if task == "rerank" else set()  # what is ranked is not chunked
    unknown = sorted(body.keys() - (set(_TOP_LEVEL) - chunks))
    for scope, known in (("service_settings", service.settings), ("task_settings", service.task_settings)):
        if isinstance(body.get(scope), dict):
            unknown += [f"{scope}.{key}" for key in sorted(body[scope].keys() - known.keys())]
    if body.get("inference_id", inference_id) != inference_id:
        bad_request(
            f"the body is of endpoint [{body['inference_id']}], but the request is about [{inference_id}]"
        )
    return (
        f"Configuration contains settings [{', '.join(unknown)}] unknown to the [{name}] service"
        if unknown
        else None
    )
