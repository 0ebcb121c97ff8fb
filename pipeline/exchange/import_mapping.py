"""An Elasticsearch mapping as the `mappings` of a run config, and by name what of it has no place there."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.config.mapping import Mappings, Property
from pipeline.errors import PipelineError
from pipeline.exchange.elasticsearch.load import asked, connect


@dataclass
class ImportedMapping:
    """What came of a mapping.

    Attributes:
        mappings: for a run config.
        left_out: field or part of the mapping -> why it is not in `mappings`.
    """

    mappings: dict[str, Any]
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def embeds(self) -> bool:
        """Whether there is a semantic_text field; a run config needs one."""
        return "semantic_text" in _types(self.mappings["properties"])


def _types(properties: Mapping[str, Any]) -> set[str]:
    inner = (_types(one["properties"]) for one in properties.values() if "properties" in one)
    return {str(one.get("type")) for one in properties.values()}.union(*inner)


def read_answer(source: str, path: str, api_key: str | None = None) -> Any:
    """Read a JSON file, or what a cluster answers.

    Args:
        source: a file, or the URL of a cluster.
        path: what to ask the cluster for.
        api_key: ``env:NAME`` or ``file:PATH`` of an API key.

    Raises:
        PipelineError: there is no such file, it is no JSON, or the cluster does not answer.
    """
    if "://" in source:
        client = connect(source, api_key)
        return asked(lambda: client.perform_request("GET", path, headers={"accept": "application/json"})).body
    try:
        return json.loads(Path(source).read_text("utf-8"))
    except FileNotFoundError:
        raise PipelineError(f"there is no file [{source}]") from None
    except ValueError as error:
        raise PipelineError(f"[{source}] is no JSON: {error}") from None


def import_mapping(answer: Any) -> ImportedMapping:
    """Take a mapping, as `GET INDEX/_mapping` answers or as it stands in a request.

    Raises:
        PipelineError: there is none, or it contradicts itself.
    """
    found = _mapping_of(answer)
    imported = ImportedMapping({})
    for name in found.keys() - {"properties"}:
        imported.left_out[name] = "a setting of the whole mapping, which changes nothing here"
    properties = _properties(found["properties"], "", imported.left_out)
    _drop_dangling(properties, properties, imported.left_out)
    imported.mappings = {"properties": properties}
    if not imported.embeds:
        return imported
    try:
        Mappings.model_validate(imported.mappings)
    except ValidationError as error:
        raise PipelineError(f"the mapping cannot be used: {_reason(error)}") from None
    return imported


def _mapping_of(answer: Any) -> dict[str, Any]:
    if isinstance(answer, dict):
        if "properties" in answer and isinstance(answer["properties"], dict):
            return answer
        if isinstance(answer.get("mappings"), dict):
            return _mapping_of(answer["mappings"])
        if len(answer) == 1:
            return _mapping_of(next(iter(answer.values())))
        if len(answer) > 1 and all(isinstance(one, dict) and "mappings" in one for one in answer.values()):
            raise PipelineError(f"there are several indices: {', '.join(answer)}; name one of them")
    raise PipelineError("there is no mapping with [properties] in it")


def _properties(properties: Mapping[str, Any], prefix: str, left_out: dict[str, str]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, definition in properties.items():
        full = f"{prefix}{name}"
        if not isinstance(definition, dict):
            left_out[full] = "is not an object"
        elif isinstance(definition.get("properties"), dict) and definition.get("type", "object") == "object":
            inner = _properties(definition["properties"], f"{full}.", left_out)
            if inner:
                kept[name] = {"properties": inner}
        else:
            try:
                Property.model_validate(definition)
            except ValidationError as error:
                left_out[full] = f"{definition.get('type')}: {_reason(error)}"
                continue
            kept[name] = definition
    return kept


def _drop_dangling(
    properties: dict[str, Any], whole: Mapping[str, Any], left_out: dict[str, str], at: str = ""
) -> None:
    """Take targets of `copy_to` away that are not in the mapping any more, or embed nothing."""
    for name, definition in properties.items():
        if "properties" in definition:
            _drop_dangling(definition["properties"], whole, left_out, f"{at}{name}.")
            continue
        targets = definition.get("copy_to", [])
        targets = [targets] if isinstance(targets, str) else targets
        kept = [target for target in targets if _type_of(whole, target) == "semantic_text"]
        if kept != targets:
            left_out[f"{at}{name}.copy_to"] = (
                f"copies to {', '.join(set(targets) - set(kept))}, which embeds nothing"
            )
            properties[name] = {key: value for key, value in definition.items() if key != "copy_to"}
            if kept:
                properties[name]["copy_to"] = kept


def _type_of(properties: Mapping[str, Any], path: str) -> str | None:
    first, _, rest = path.partition(".")
    definition = properties.get(path) or properties.get(first) or {}
    if rest and "properties" in definition:
        return _type_of(definition["properties"], rest)
    kind: str | None = definition.get("type")
    return kind


def _reason(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(step) for step in first["loc"])
    return f"{where}: {first['msg']}".lstrip(": ").removeprefix("Value error, ")
