"""The JSON Schema of a run config, with what the docstrings say of each key."""

import inspect
import re
from typing import Any, get_args

from pydantic import BaseModel

from pipeline.config.run_config import RunConfig

_ATTRIBUTE = re.compile(r"^(\w+): (.*(?:\n {4,}.*)*)", re.MULTILINE)


def config_schema() -> dict[str, Any]:
    """The schema that editors complete and check a config by."""
    schema = RunConfig.model_json_schema()
    schema["title"] = "Run config of semantic-ingest"
    for model in _models(RunConfig):
        place = schema if model is RunConfig else schema["$defs"].get(model.__name__)
        if place is None:
            continue
        place["description"] = inspect.cleandoc(model.__doc__ or "").partition("\n\n")[0]
        for name, text in attribute_texts(model).items():
            if name in place["properties"]:
                place["properties"][name]["description"] = text
    return schema


def attribute_texts(model: type[BaseModel]) -> dict[str, str]:
    """What the docstring of a class says of each of its attributes."""
    _, _, attributes = inspect.cleandoc(model.__doc__ or "").partition("Attributes:\n")
    return {name: " ".join(text.split()) for name, text in _ATTRIBUTE.findall(inspect.cleandoc(attributes))}


def _models(model: type[BaseModel], found: dict[str, type[BaseModel]] | None = None) -> list[type[BaseModel]]:
    """A model and all that its fields are made of."""
    found = {} if found is None else found
    found[model.__name__] = model
    for field in model.model_fields.values():
        for kind in _classes(field.annotation):
            if kind.__name__ not in found:
                _models(kind, found)
    return list(found.values())


def _classes(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [kind for inner in get_args(annotation) for kind in _classes(inner)]
