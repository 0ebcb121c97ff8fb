"""The values of a document's field as the texts that are embedded."""

from collections.abc import Mapping
from typing import Any

from models.chunking_settings import java_string
from models.errors import InferenceError

# What Java's Character.isWhitespace accepts: no-break spaces and U+0085 are not among them.
_JAVA_WHITESPACE = (
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2008\u2009\u200a"
    "\u2028\u2029\u205f\u3000"
)


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


def is_blank(text: str) -> bool:
    """Tell whether a text is empty or white space only, as Java's ``isBlank``."""
    return not text.strip(_JAVA_WHITESPACE)


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
