"""Elasticsearch's rules for filters in plain Python, one document and one clause at a time.

Written from its documentation and from answers of a real Elasticsearch 9.5.3, not from the code that is tested with it:
no columns, no arrays, each value compared by itself.
"""

import calendar
import ipaddress
import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

Properties = Mapping[str, Mapping[str, Any]]
INTEGERS = ("byte", "short", "integer", "long", "unsigned_long")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def matches(properties: Properties, document: Mapping[str, Any], query: Mapping[str, Any]) -> bool:
    """Whether a filter finds a document.

    Args:
        properties: full dotted name -> its parameters in the mapping; `sources` names the fields whose values it has.
        document: its source, with ``_id``.
        query: the filter.
    """
    ((kind, body),) = query.items()
    if kind == "match_all" or kind == "match_none":
        return kind == "match_all"
    if kind == "ids":
        return document["_id"] in body["values"]
    if kind == "constant_score":
        return matches(properties, document, body["filter"])
    if kind == "bool":
        return _bool(properties, document, body)
    if kind == "exists":
        return any(True for _ in _indexed(properties, document, body["field"]))
    ((name, asked),) = body.items()
    compare = _Comparison(properties.get(name, {"type": "keyword"}))
    values = list(_indexed(properties, document, name))
    if kind == "range":
        return any(
            all(compare.bound(value, side, bound) for side, bound in asked.items()) for value in values
        )
    wanted = asked if kind == "terms" else [asked["value"] if isinstance(asked, Mapping) else asked]
    return any(compare.equal(value, one) for value in values for one in wanted)


def _bool(properties: Properties, document: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    def found(clause: str) -> list[bool]:
        return [matches(properties, document, one) for one in body.get(clause, [])]

    required, should = found("must") + found("filter"), found("should")
    asked = str(body.get("minimum_should_match", 0))
    if asked.endswith("%"):
        share = len(should) * int(asked[:-1]) / 100
        least = len(should) + math.trunc(share) if share < 0 else math.trunc(share)
    else:
        least = len(should) + int(asked) if int(asked) < 0 else int(asked)
    if should and not required:
        least = max(least, 1)  # without other clauses one of these has to match, whatever is asked for
    enough = sum(should) >= max(least, 0) or not (should or required)
    return all(required) and not any(found("must_not")) and enough


def _indexed(properties: Properties, document: Mapping[str, Any], name: str) -> Iterator[Any]:
    """The values that Elasticsearch indexes for a field."""
    if name == "_id":
        yield document["_id"]
        return
    field = properties[name]
    if field["type"] == "constant_keyword":
        yield field["value"]
        return
    for source in field.get("sources", [name]):
        for value in _leaves(document, source.split(".")):
            value = field.get("null_value") if value is None else value
            indexed = None if value is None else _converted(field, value)
            if indexed is not None:
                yield indexed


def _leaves(value: Any, path: list[str]) -> Iterator[Any]:
    if isinstance(value, list):
        for member in value:
            yield from _leaves(member, path)
    elif not path:
        yield value
    elif isinstance(value, Mapping) and path[0] in value:
        yield from _leaves(value[path[0]], path[1:])


def _converted(field: Mapping[str, Any], value: Any) -> Any:
    type_ = field["type"]
    try:
        if type_ in INTEGERS:
            return math.trunc(Decimal(str(value)))
        if type_ in _ROUND:
            return _ROUND[type_](float(value))
    except (ValueError, ArithmeticError):
        return None  # ignore_malformed
    if type_ == "scaled_float":
        return math.floor(float(value) * field["scaling_factor"] + 0.5)
    if type_ == "boolean":
        return value in (True, "true")
    if type_ in ("date", "date_nanos"):
        return _date(str(value), field)[0]
    if type_ == "ip":
        return _address(value)
    text = _text(value)
    return None if len(text) > field.get("ignore_above", 2**31) else text


def _text(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


_ROUND: dict[str, Callable[[float], float]] = {
    "double": float,
    "float": lambda number: struct.unpack("f", struct.pack("f", number))[0],
    "half_float": lambda number: struct.unpack("e", struct.pack("e", number))[0],
}


class _Comparison:
    """How a field's values compare with what a query asks."""

    def __init__(self, field: Mapping[str, Any]) -> None:
        self.field, self.type = field, field["type"]

    def equal(self, value: Any, wanted: Any) -> bool:
        if self.type in INTEGERS:
            return Decimal(value) == Decimal(str(wanted))
        if self.type == "ip" and "/" in wanted:
            first, last = _network(wanted)
            return first <= value <= last
        if self.type in ("date", "date_nanos"):
            first, last = _date(str(wanted), self.field)
            return first <= value <= last
        if self.type == "scaled_float":
            return bool(value == math.floor(self._scaled(wanted) + 0.5))
        return bool(value == _converted({**self.field, "ignore_above": 2**31}, wanted))

    def bound(self, value: Any, side: str, bound: Any) -> bool:
        limit: Any
        if self.type == "scaled_float":
            limit = self._scaled(bound)
            if side in ("gt", "gte"):
                return bool(value >= math.ceil(math.nextafter(limit, math.inf) if side == "gt" else limit))
            return bool(value <= math.floor(math.nextafter(limit, -math.inf) if side == "lt" else limit))
        if self.type in INTEGERS:
            value, limit = Decimal(value), Decimal(str(bound))
        elif self.type in ("date", "date_nanos"):
            limit = _date(str(bound), self.field)[side in ("gt", "lte")]
        elif self.type in ("keyword", "wildcard", "constant_keyword"):
            value, limit = value.encode(), _text(bound).encode()
        else:
            limit = _converted(self.field, bound)
        order = {"gt": value > limit, "gte": value >= limit, "lt": value < limit, "lte": value <= limit}
        return bool(order[side])

    def _scaled(self, number: Any) -> float:
        return float(Decimal(repr(float(number))) * Decimal(repr(self.field["scaling_factor"])))


def _address(text: str) -> int:
    address = ipaddress.ip_address(text)
    return int(address) if address.version == 6 else int(address) + (0xFFFF << 32)


def _network(text: str) -> tuple[int, int]:
    network = ipaddress.ip_network(text, strict=False)
    return _address(str(network[0])), _address(str(network[-1]))


_DATE = re.compile(r"(\d{4})(?:[-/](\d\d))?(?:[-/](\d\d))?(?:T(\d\d))?(?::(\d\d))?(?::(\d\d))?(?:\.(\d+))?Z?")


def _date(text: str, field: Mapping[str, Any]) -> tuple[int, int]:
    """First and last moment of what is written, in the field's resolution."""
    unit = 10**6 if field["type"] == "date" else 1
    match = _DATE.fullmatch(text)
    if re.fullmatch(r"-?\d{5,}", text) or match is None:
        moment = int(text) * 10**6 // unit
        return moment, moment
    year, month, day, hour, minute, second, fraction = match.groups()
    start = datetime(*(int(part or 1) for part in (year, month, day)), tzinfo=UTC) + timedelta(
        hours=int(hour or 0), minutes=int(minute or 0), seconds=int(second or 0)
    )
    nanos = (start - EPOCH) // timedelta(seconds=1) * 10**9 + int((fraction or "0").ljust(9, "0"))
    days = (
        1
        if day
        else calendar.monthrange(start.year, start.month)[1]
        if month
        else 365 + calendar.isleap(start.year)
    )
    lengths = ((fraction, 1), (second, 10**9), (minute, 60 * 10**9), (hour, 3600 * 10**9))
    length = next((length for part, length in lengths if part), days * 86_400 * 10**9)
    return nanos // unit, (nanos + length - 1) // unit
