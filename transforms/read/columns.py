"""The value that a plain mapped field has in its column of the table."""

from collections.abc import Mapping
from typing import Any

from models.text import java_string
from transforms.field_values import values_at
from transforms.read.readers import BadDocumentError

_INTEGER_BITS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}


def plain_value(source: Mapping[str, Any], name: str, type_: str) -> Any:
    """The value of a plain field's column: the field's first value, in the column's type; None where it has none.

    Numbers and booleans may be written as strings, as in Elasticsearch; ``_source`` keeps all values as they were.

    Raises:
        BadDocumentError: the value does not fit the type.
    """
    first = next(values_at(source, name), None)
    if first is None:
        return None
    try:
        return _converted(first, type_)
    except (ValueError, TypeError, OverflowError):
        kind = type(first).__name__
        raise BadDocumentError(f"field [{name}] holds a {kind} that is no {type_}") from None


def _converted(value: Any, type_: str) -> Any:
    if type_ == "string":
        if isinstance(value, Mapping):
            raise TypeError
        return value if isinstance(value, str) else java_string(value)
    if type_ == "bool":
        if value is True or value == "true":
            return True
        if value is False or value in ("false", ""):
            return False
        raise ValueError
    if isinstance(value, str) and not value.strip():
        return None
    if isinstance(value, bool):
        raise TypeError
    if type_ in _INTEGER_BITS:
        number = value if isinstance(value, int) else int(float(value)) if "." in str(value) else int(value)
        if not -(2 ** (_INTEGER_BITS[type_] - 1)) <= number < 2 ** (_INTEGER_BITS[type_] - 1):
            raise OverflowError
        return number
    return float(value)
