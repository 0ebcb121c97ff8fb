"""One ``POST _inference/<inference_id>``: its body, checked as Elasticsearch does, and its answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

import numpy as np
import orjson

from models.embeddings import Embedder, Embeddings, InputType, SparseEmbeddings
from models.endpoints.endpoint import Endpoint, parse_endpoint
from models.errors import ValidationError, bad_request
from models.reranker import Relevance

_KNOWN = {"input", "input_type", "query", "task_settings", "return_documents", "top_n", "timeout"}
_ONLY_RERANK = ("query", "return_documents", "top_n")


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """What is asked of an endpoint.

    Attributes:
        endpoint: the endpoint, with the task settings of this request.
        texts: the texts to embed.
        input_type: what they are for.
    """

    endpoint: Endpoint
    texts: tuple[str, ...]
    input_type: InputType


def parse_request(endpoint: Endpoint, body: Any) -> InferenceRequest:
    """Check the body of an inference request.

    Args:
        endpoint: the endpoint that is asked.
        body: the request body: ``input``, ``input_type``, ``task_settings``.

    Raises:
        ValidationError: what is wrong, every problem at once.
        InferenceError: the body is no JSON object, or has unknown keys.
    """
    _check_keys(body)
    task = endpoint.task_type
    problems = _input_problems(body.get("input"))
    problems += [
        f"Field [{field}] cannot be specified for task type [{task}]"
        for field in _ONLY_RERANK
        if body.get(field) is not None
    ]
    input_type = body.get("input_type")
    if input_type is not None and endpoint.is_sparse:
        problems.append(f"Field [input_type] cannot be specified for task type [{task}]")
    elif input_type is not None and str(input_type).lower() not in get_args(InputType):
        problems.append(
            f"Invalid value [{input_type}] received. [input_type] must be one of"
            f" [{', '.join(sorted(get_args(InputType)))}]"
        )
    if problems:
        raise ValidationError(problems)
    endpoint = _with_task_settings(endpoint, body.get("task_settings"))
    settings = endpoint.task_settings
    chosen = input_type or settings.get("input_type") or settings.get("task") or "ingest"
    return InferenceRequest(endpoint, tuple(_texts(body)), cast(InputType, str(chosen).lower()))


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """What is asked of an endpoint that reranks.

    Attributes:
        endpoint: the endpoint, with the task settings of this request.
        query: what is looked for.
        texts: the texts to rank.
        return_documents: whether the answer repeats the texts.
        top_n: the best texts that the answer holds; None for all.
    """

    endpoint: Endpoint
    query: str
    texts: tuple[str, ...]
    return_documents: bool
    top_n: int | None


def parse_rerank_request(endpoint: Endpoint, body: Any) -> RerankRequest:
    """Check the body of a request to an endpoint that reranks; see `parse_request`."""
    _check_keys(body)
    problems = _input_problems(body.get("input"))
    query, top_n, shown = body.get("query"), body.get("top_n"), body.get("return_documents")
    if not isinstance(query, str) or not query.strip():
        problems.append(f"Field [query] cannot be null or empty for task type [{endpoint.task_type}]")
    if body.get("input_type") is not None:
        problems.append(f"Field [input_type] cannot be specified for task type [{endpoint.task_type}]")
    if top_n is not None and (not isinstance(top_n, int) or isinstance(top_n, bool) or top_n < 1):
        problems.append(f"Invalid value [{top_n}]. [top_n] must be a positive integer")
    if shown is not None and not isinstance(shown, bool):
        problems.append(f"Invalid value [{shown}]. [return_documents] must be true or false")
    if problems:
        raise ValidationError(problems)
    endpoint = _with_task_settings(endpoint, body.get("task_settings"))
    settings = endpoint.task_settings
    return RerankRequest(
        endpoint,
        str(query),
        tuple(_texts(body)),
        bool(settings.get("return_documents", True) if shown is None else shown),
        top_n or settings.get("top_n") or settings.get("top_k"),
    )


def rerank_response(request: RerankRequest, relevance: Relevance) -> dict[str, Any]:
    """Return a ranking the way Elasticsearch answers it: the best text first."""
    rows = []
    for at in relevance.order()[: request.top_n].tolist():
        row: dict[str, Any] = {"index": at, "relevance_score": relevance.scores[at]}
        rows.append({**row, "text": request.texts[at]} if request.return_documents else row)
    return {"rerank": rows}


def _check_keys(body: Any) -> None:
    if not isinstance(body, dict):
        bad_request(f"the body must be a JSON object, not {type(body).__name__}", "x_content_parse_exception")
    if not body.keys() <= _KNOWN:
        unknown = sorted(body.keys() - _KNOWN)
        bad_request(f"[inference_request] unknown field [{', '.join(unknown)}]", "x_content_parse_exception")


def _texts(body: Mapping[str, Any]) -> list[str]:
    return body["input"] if isinstance(body["input"], list) else [body["input"]]


def _input_problems(value: Any) -> list[str]:
    if value is None:
        return ["Field [input] cannot be null"]
    if value == []:
        return ["Field [input] cannot be an empty array"]
    if isinstance(value, str) or (isinstance(value, list) and all(isinstance(text, str) for text in value)):
        return []
    return ["Field [input] must be a string or an array of strings"]


def _with_task_settings(endpoint: Endpoint, overrides: Any) -> Endpoint:
    """Let a request's task settings win over the endpoint's, by the same rules."""
    if not overrides:
        return endpoint
    if not isinstance(overrides, dict):
        bad_request("[task_settings] must be a JSON object", "x_content_parse_exception")
    body = endpoint.to_json()
    body["task_settings"] = {**endpoint.task_settings, **overrides}
    checked = parse_endpoint(endpoint.inference_id, body, folder=endpoint.folder)
    return replace(endpoint, task_settings=checked.task_settings)


def answer(request: InferenceRequest, embedder: Embedder) -> dict[str, Any]:
    """Embed the texts of a request and return Elasticsearch's response body.

    Args:
        request: what is asked.
        embedder: the endpoint's loaded model.
    """
    embeddings = embedder.embed(list(request.texts), request.input_type)
    return response(request.endpoint.task_type, embeddings, request.endpoint.element_type)


def response(task_type: str, embeddings: Embeddings, element_type: str = "float") -> dict[str, Any]:
    """Return embeddings the way Elasticsearch answers them; `orjson` with numpy support writes the arrays."""
    if isinstance(embeddings, SparseEmbeddings):
        rows = [
            {
                "is_truncated": bool(embeddings.is_truncated[index]),
                "embedding": _shortest(embeddings.row(index)),
            }
            for index in range(len(embeddings))
        ]
        return {"sparse_embedding": rows}
    name = "embeddings" if task_type == "embedding" else task_type
    suffix = {"byte": "_bytes", "bit": "_bits"}.get(element_type, "")
    return {name + suffix: [{"embedding": np.ascontiguousarray(values)} for values in embeddings.values]}


def to_bytes(body: Mapping[str, Any], *, indent: bool = False) -> bytes:
    """Write a response as JSON; a float32 gets the fewest digits that tell it from its neighbours."""
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY | (orjson.OPT_INDENT_2 if indent else 0))


def _shortest(row: Mapping[str, float]) -> dict[str, np.float32]:
    return {token: np.float32(weight) for token, weight in row.items()}


def body_of(texts: Sequence[str], input_type: str | None) -> dict[str, Any]:
    """Return the request body for some texts."""
    return {"input": list(texts), **({} if input_type is None else {"input_type": input_type})}
