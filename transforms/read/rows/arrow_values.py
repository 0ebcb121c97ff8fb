"""Arrow columns as JSON values: the one place where the types of Parquet become those of a document.

Text, booleans and numbers stay. Dates, times and timestamps become ISO 8601 with all their digits, durations ISO 8601
durations, bytes base64, decimals numbers with all their digits, maps objects. NaN is how pandas writes that there is
no value, and becomes null.
"""

import base64
import re
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from transforms.exact_json import plain_number

Values = list[Any]


def json_values(array: pa.Array) -> Values:
    """The values of a column.

    Raises:
        ValueError: some value, or the column's type, has no form in JSON.
        pyarrow.ArrowException: some value cannot be shown.
    """
    for fits, convert in _CONVERSIONS:
        if fits(array.type):
            return convert(array)
    raise ValueError(f"a value of type {array.type} has no JSON form")


def _plain(array: pa.Array) -> Values:
    values: Values = array.to_pylist()
    return values


def _floats(array: pa.Array) -> Values:
    array = array.cast(pa.float64())
    if pc.any(pc.is_inf(array)).as_py():
        raise ValueError("an infinite number has no JSON form")
    # A mask, not `if_else`: there NaN would count as a number.
    return _plain(pc.if_else(pc.is_nan(array), pa.scalar(None, pa.float64()), array))


def _decimals(array: pa.Array) -> Values:
    return [None if value is None else plain_number(value) for value in array.to_pylist()]


def _moments(array: pa.Array) -> Values:
    return [_iso_moment(text) for text in _plain(array.cast(pa.string()))]


_MOMENT = re.compile(r"([-+]?)(\d{4,})(-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[-+]\d{4})?")


def _iso_moment(text: str | None) -> str | None:
    """A timestamp as Arrow prints it in ISO 8601; a year of five digits has a sign there."""
    if text is None:
        return None
    parts = _MOMENT.fullmatch(text)
    if parts is None:
        raise ValueError(f"the timestamp is {text.strip('<>+')}")
    sign, year, day, time, digits, zone = parts.groups("")
    digits = digits.rstrip("0")
    # Like Java: milli-, micro- or nanoseconds, whatever the column could hold.
    fraction = f".{digits.ljust(-(-len(digits) // 3) * 3, '0')}" if digits else ""
    offset = f"{zone[:3]}:{zone[3:]}" if len(zone) == 5 else zone
    return f"{sign or '+' * (len(year) > 4)}{year}{day}T{time}{fraction}{offset}"


def _as_text(array: pa.Array) -> Values:
    return _plain(array.cast(pa.string()))


_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def _durations(array: pa.Array) -> Values:
    per_second = _UNITS[array.type.unit]
    return [_iso_duration(value, per_second) for value in _plain(array.cast(pa.int64()))]


def _iso_duration(value: int | None, per_second: int) -> str | None:
    if value is None:
        return None
    seconds, parts = divmod(abs(value), per_second)
    digits = str(parts).rjust(len(str(per_second)) - 1, "0").rstrip("0") if parts else ""
    hours, minutes = divmod(seconds // 60, 60)
    shown = [f"{hours}H"] * bool(hours) + [f"{minutes}M"] * bool(minutes)
    if seconds % 60 or digits or not shown:
        shown.append(f"{seconds % 60}{'.' if digits else ''}{digits}S")
    return f"{'-' if value < 0 else ''}PT{''.join(shown)}"


def _intervals(array: pa.Array) -> Values:
    return [
        None if value is None else f"P{value[0]}M{value[1]}D" + (_iso_duration(value[2], 10**9) or "")[1:]
        for value in array.to_pylist()
    ]


def _bytes(array: pa.Array) -> Values:
    return [None if value is None else base64.b64encode(value).decode() for value in array.to_pylist()]


def _lists(array: pa.Array) -> Values:
    lengths = pc.list_value_length(array).to_pylist()
    members, at = json_values(array.flatten()), 0
    found: Values = []
    for length in lengths:
        found.append(None if length is None else members[at : at + length])
        at += length or 0
    return found


def _objects(array: pa.StructArray) -> Values:
    names = [field.name for field in array.type]
    if len(set(names)) < len(names):
        raise ValueError(f"a struct has a field twice: {', '.join(names)}")
    columns = [json_values(column) for column in array.flatten()]
    rows = zip(*columns, strict=True) if columns else [()] * len(array)
    return [
        dict(zip(names, row, strict=True)) if valid else None
        for row, valid in zip(rows, array.is_valid().to_pylist(), strict=True)
    ]


def _maps(array: pa.MapArray) -> Values:
    lists = array.cast(pa.list_(pa.struct([("key", array.type.key_type), ("value", array.type.item_type)])))
    return [None if pairs is None else _object(pairs) for pairs in _lists(lists)]


def _object(pairs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = {_key(pair["key"]): pair["value"] for pair in pairs}
    if len(found) < len(pairs):
        raise ValueError("a map has a key twice")
    return found


def _key(key: Any) -> str:
    if isinstance(key, dict | list):
        raise ValueError("a key of a map is no text or number")
    return str(key) if not isinstance(key, bool) else str(key).lower()


def _decoded(array: pa.Array) -> Values:
    return json_values(array.dictionary_decode())


def _is_list(type_: pa.DataType) -> bool:
    return any(
        test(type_) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    )


def _is_bytes(type_: pa.DataType) -> bool:
    return any(
        test(type_)
        for test in (
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_fixed_size_binary,
            pa.types.is_binary_view,
        )
    )


def _is_plain(type_: pa.DataType) -> bool:
    return any(
        test(type_)
        for test in (
            pa.types.is_null,
            pa.types.is_boolean,
            pa.types.is_integer,
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
        )
    )


_CONVERSIONS: list[tuple[Callable[[pa.DataType], bool], Callable[[Any], Values]]] = [
    (_is_plain, _plain),
    (pa.types.is_floating, _floats),
    (pa.types.is_decimal, _decimals),
    (pa.types.is_timestamp, _moments),
    (pa.types.is_date, _as_text),
    (pa.types.is_time, _as_text),
    (pa.types.is_duration, _durations),
    (lambda type_: type_ == pa.month_day_nano_interval(), _intervals),
    (_is_bytes, _bytes),
    (pa.types.is_map, _maps),
    (_is_list, _lists),
    (pa.types.is_struct, _objects),
    (pa.types.is_dictionary, _decoded),
    (
        lambda type_: isinstance(type_, pa.UuidType),
        lambda array: [value and str(value) for value in array.to_pylist()],
    ),
    (lambda type_: isinstance(type_, pa.BaseExtensionType), lambda array: json_values(array.storage)),
]
