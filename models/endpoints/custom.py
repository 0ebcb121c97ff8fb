"""What is checked of a definition of the service `custom`."""

from collections.abc import Mapping
from typing import Any

from models.endpoints.jsonpath import parse_path

_PATHS = {
    "text_embedding": ("text_embeddings",),
    "sparse_embedding": ("token_path", "weight_path"),
    "rerank": ("relevance_score",),
}
_OPTIONAL = {"text_embedding": {"embedding_type"}, "rerank": {"reranked_index", "document_text"}}
_INPUT_TYPES = ("ingest", "search", "classification", "clustering")
_EMBEDDING_TYPES = ("float", "byte", "bit", "binary", "int8")


def problems_of(task: str, settings: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with the request, the response and the translations of a definition."""
    scope, problems = "service_settings", []
    content = content_of(settings.get("request"))
    if "request" in settings and content is None:
        problems.append(
            f"[{scope}] [request] must be the body's template, a string, or an object with [content]"
        )
    elif content is not None and "${input}" not in content:
        problems.append(
            f"[{scope}] [request] must hold the template ${{input}}, which the texts take the place of"
        )
    if task == "rerank" and content is not None and "${query}" not in content:
        problems.append(
            f"[{scope}] [request] must hold the template ${{query}}, which the query takes the place of"
        )
    response = settings.get("response")
    if response is not None:
        problems += _response_problems(task, response)
    problems += _translation_problems(settings.get("input_type"))
    return problems


def content_of(request: Any) -> str | None:
    """The body's template; Elasticsearch's documentation shows it bare and inside an object."""
    content = request.get("content") if isinstance(request, dict) and set(request) == {"content"} else request
    return content if isinstance(content, str) and content else None


def _response_problems(task: str, response: Any) -> list[str]:
    parser = response.get("json_parser") if isinstance(response, dict) else None
    if not isinstance(parser, dict):
        return ["[service_settings.response] does not contain the required setting [json_parser]"]
    scope, needed = "[service_settings.response.json_parser]", _PATHS[task]
    known = {*needed, *_OPTIONAL.get(task, ())}
    problems = [
        f"{scope} does not contain the required setting [{name}]" for name in needed if name not in parser
    ]
    unknown = sorted(parser.keys() - known)
    if unknown:
        problems.append(f"{scope} contains settings [{', '.join(unknown)}] unknown for task type [{task}]")
    if parser.get("embedding_type", "float") not in _EMBEDDING_TYPES:
        problems.append(
            f"{scope} Invalid value [{parser['embedding_type']}] received. [embedding_type] must be one of"
            f" [{', '.join(sorted(_EMBEDDING_TYPES))}]"
        )
    for name in (*needed, "reranked_index"):
        try:
            parse_path(str(parser.get(name, "$")))
        except ValueError as error:
            problems.append(f"{scope} [{name}]: {error}")
    return problems


def _translation_problems(input_type: Any) -> list[str]:
    if input_type is None:
        return []
    translation = input_type.get("translation", {}) if isinstance(input_type, dict) else None
    if not isinstance(translation, dict) or input_type.keys() - {"translation", "default"}:
        return ["[service_settings] [input_type] takes an object [translation] and a string [default]"]
    unknown = sorted(translation.keys() - set(_INPUT_TYPES))
    if unknown:
        return [
            f"[service_settings.input_type.translation] Invalid value [{', '.join(unknown)}] received."
            f" [translation] must be one of [{', '.join(_INPUT_TYPES)}]"
        ]
    return []
