"""The values of a document's field as the texts that are embedded."""

from collections.abc import Iterator, Mapping
from typing import Any

from models.errors import InferenceError
from models.text import java_string


def field_values(source: Mapping[str, Any], name: str) -> list[str]:
    """Return the values of a field as strings, in order; none where the field is absent or null.

    Nulls in arrays are left out. Numbers and booleans are printed the Java way, as Elasticsearch embeds them.

    Args:
        source: the document.
        name: the field's full dotted name. Its parts may be nested objects or keys that hold a dot.

    Raises:
        InferenceError: a value is an object or an array of arrays (status 400).
    """
    value = _extract(source, name.split("."))
    if value is None:
        return []
    return [_as_text(member, name) for member in (value if isinstance(value, list) else [value])]


def _extract(value: Any, path: list[str]) -> Any:
    """Follow `path` through objects and arrays of objects."""
    if isinstance(value, list):
        members = (_extract(member, path) for member in value)
        return [member for member in members if member is not None]
    if not path:
        return value
    if not isinstance(value, Mapping):
        return None
    for length in range(1, len(path) + 1):
        found = _extract(value.get(".".join(path[:length])), path[length:])
        if found is not None:
            return found
    return None


def _as_text(value: Any, name: str) -> str:
    if isinstance(value, Mapping):
        raise InferenceError(
            f"[semantic_text] field [{name}] does not support object values",
            status=400,
            type="document_parsing_exception",
        )
    if isinstance(value, list):
        raise InferenceError(
            f"Invalid format for field [{name}], expected [String|Number|Boolean] got [ArrayList]", status=400
        )
    return value if isinstance(value, str) else java_string(value)


def joined_values(source: Mapping[str, Any], name: str) -> str:
    """The text that chunk offsets point into: the field's values, one separator character between them."""
    return "\n".join(field_values(source, name))


def values_at(value: Any, name: str) -> Iterator[Any]:
    """Yield the values that lie at the dotted path `name` of a JSON object."""
    if isinstance(value, list):
        for member in value:
            yield from values_at(member, name)
    elif not name:
        if value is not None:
            yield value
    elif isinstance(value, Mapping):
        steps = name.split(".")
        for length in range(1, len(steps) + 1):
            key = ".".join(steps[:length])
            if key in value:
                yield from values_at(value[key], ".".join(steps[length:]))
