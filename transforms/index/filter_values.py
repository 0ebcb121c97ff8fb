"""What an index holds of the fields that filters use: all values of a document, in a form that compares."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from transforms.dates import parse_date
from transforms.plain_values import PlainField, plain_address

_TYPES = {
    "boolean": pa.bool_(),
    **dict.fromkeys(("long", "integer", "short", "byte", "date", "date_nanos"), pa.int64()),
    "unsigned_long": pa.uint64(),
    **dict.fromkeys(("double", "float", "half_float", "scaled_float"), pa.float64()),
}

MILLISECOND = 10**6


def filter_type(type_: str) -> pa.DataType:
    """Arrow type of a value; dates are milliseconds since 1970, ``date_nanos`` nanoseconds."""
    return _TYPES.get(type_, pa.large_string())


def filter_values(field: PlainField, source: Mapping[str, Any]) -> list[Any]:
    """All values of a field in a document; what does not fit was left out when the document was read."""
    if field.constant is not None:
        return [field.constant]
    found = []
    for name in field.sources or (field.name,):
        try:
            found += [filter_value(field, value) for value in field.values(source, name, field.null_value)]
        except ValueError:
            continue
    if field.ignore_above is not None:
        found = [value for value in found if not isinstance(value, str) or len(value) <= field.ignore_above]
    return found


def filter_value(field: PlainField, value: Any) -> Any:
    """A value in the form that is compared."""
    if field.type == "date":
        return parse_date(value, field.formats).first // MILLISECOND
    if field.type == "date_nanos":
        return parse_date(value, field.formats).first
    if field.type == "ip":
        return plain_address(value)
    if field.type == "scaled_float":
        factor = field.scaling_factor
        return value if factor is None else math.floor(value * factor + 0.5) / factor
    if field.type in ("float", "half_float"):
        return float(np.float32(value) if field.type == "float" else np.float16(value))
    return value
