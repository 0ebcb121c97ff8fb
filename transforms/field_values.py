"""The values that a document holds at a dotted name: as texts to embed, or as they are."""

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
    # Nearly always the field is a string beneath its own name.
    value = source.get(name) if "." not in name else None
    if isinstance(value, str):
        return [value]
    value = _extract(source, name.split("."))
    if value is None:
        return []
    return [_as_text(member, name) for member in (value if isinstance(value, list) else [value])]


def raw_value(source: Mapping[str, Any], name: str) -> Any:
    """What a document holds under a field's full dotted name, as it stands; None where it has nothing."""
    return _extract(source, name.split("."))


def _extract(value: Any, path: list[str]) -> Any:
    """Follow `path` through objects and arrays of objects, to the first way of writing it that leads somewhere.

    So does the field extraction of Elasticsearch that fills semantic_text fields; arrays stay nested as they are.
    """
    if isinstance(value, list):
        members = (_extract(member, path) for member in value)
        return [member for member in members if member is not None]
    if not path:
        return value
    found = (_extract(*step) for step in _steps(value, path))
    return next((one for one in found if one is not None), None)


def _steps(value: Any, path: list[str]) -> Iterator[tuple[Any, list[str]]]:
    """Yield what an object holds on the way along `path`, and the rest of the path.

    A dotted name is written in as many ways as it has dots and one: ``a.b`` as ``{"a": {"b": ...}}`` or as
    ``{"a.b": ...}``.
    """
    if isinstance(value, Mapping):
        for length in range(1, len(path) + 1):
            key = ".".join(path[:length])
            if key in value:
                yield value[key], path[length:]


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


def values_at(source: Mapping[str, Any], name: str, null: Any = None) -> Iterator[Any]:
    """Yield the values of a plain field, whichever ways its name is written in, arrays laid out flat.

    So does Elasticsearch's document parser, which fills all fields but semantic_text ones.

    Args:
        source: the document.
        name: the field's full dotted name.
        null: what a null stands for; None leaves nulls out.
    """
    value = source.get(name) if "." not in name else None
    if isinstance(value, str):  # nearly always
        yield value
    else:
        yield from _leaves(source, name.split("."), null)


def _leaves(value: Any, path: list[str], null: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for member in value:
            yield from _leaves(member, path, null)
    elif path:
        for step in _steps(value, path):
            yield from _leaves(*step, null)
    elif value is not None:
        yield value
    elif null is not None:
        yield null
