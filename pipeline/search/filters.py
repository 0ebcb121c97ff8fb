"""Filters on plain fields: which documents a search may find.

A filter is written as in Elasticsearch's query language (``term``, ``terms``, ``range``, ``exists``,
``bool``), or in short as ``field=value``, ``field!=value``, ``field>=value`` and so on, joined by ``AND``. A value with
spaces around an ``AND`` of its own stands in double quotes.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import PipelineError
from pipeline.search.open_index import Bools, SearchIndex

Filter = Mapping[str, Any]
_SHORT = re.compile(r'\s*([\w.@-]+)\s*(!=|>=|<=|=|>|<)\s*("[^"]*"|.*?)\s*', re.DOTALL)
_AND = re.compile(r'\s+AND\s+(?=(?:[^"]*"[^"]*")*[^"]*$)')  # with an even number of quotes behind it
_RANGES = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_COMPARE = {"gt": pc.greater, "gte": pc.greater_equal, "lt": pc.less, "lte": pc.less_equal}
_INTEGERS = ("long", "integer", "short", "byte")


def parse_filters(filters: Sequence[str]) -> Filter | None:
    """Parse filters as they stand on a command line; all of them must hold.

    Raises:
        PipelineError: one of them is not understood.
    """
    parsed = [one for text in filters for one in _parse_all(text)]
    return {"bool": {"filter": parsed}} if parsed else None


def _parse_all(text: str) -> list[Filter]:
    """The clauses of one filter; JSON is one clause, whatever its texts hold."""
    if text.lstrip().startswith("{"):
        return [_parse(text)]
    return [_parse(clause) for clause in _AND.split(text)]


def _parse(text: str) -> Filter:
    if text.lstrip().startswith("{"):
        try:
            return dict(json.loads(text))
        except ValueError as error:
            raise PipelineError(f"--filter {text!r} is not JSON: {error}") from None
    match = _SHORT.fullmatch(text)
    if match is None:
        raise PipelineError(
            f"--filter {text!r} is not understood; write field=value, year>=1970 AND kind=report, or a query in JSON"
        )
    field, operator, value = match.groups()
    value = value[1:-1] if value[:1] == value[-1:] == '"' and len(value) > 1 else value
    if operator in _RANGES:
        return {"range": {field: {_RANGES[operator]: value}}}
    term: Filter = {"term": {field: value}}
    return term if operator == "=" else {"bool": {"must_not": [term]}}


def matching(index: SearchIndex, query: Filter) -> Bools:
    """Which documents match a filter, by number.

    Raises:
        PipelineError: the filter is not understood, or names a field that is no plain field.
    """
    if len(query) != 1:
        raise PipelineError(f"a filter has one kind, this one has {len(query)}: {json.dumps(query)[:200]}")
    ((kind, body),) = query.items()
    if kind == "bool":
        return _bool(index, body)
    if kind == "exists":
        return _mask(pc.is_valid(_column(index, body["field"])[0]))
    if kind not in ("term", "terms", "range") or not isinstance(body, Mapping) or len(body) != 1:
        raise PipelineError(
            f"filter [{kind}] is not understood; there are term, terms, range, exists and bool"
        )
    ((field, wanted),) = body.items()
    column, type_ = _column(index, field)
    if kind == "range":
        return _range(column, type_, field, wanted)
    if isinstance(wanted, Mapping):
        wanted = wanted.get("value")
    values = [_value(value, type_, field) for value in (wanted if kind == "terms" else [wanted])]
    return _mask(pc.is_in(column, value_set=pa.array(values, column.type)))


def _bool(index: SearchIndex, body: Filter) -> Bools:
    def masks(name: str) -> list[Bools]:
        clauses = body.get(name, [])
        return [
            matching(index, clause) for clause in ([clauses] if isinstance(clauses, Mapping) else clauses)
        ]

    unknown = set(body) - {"must", "filter", "should", "must_not"}
    if unknown:
        raise PipelineError(f"bool has no [{sorted(unknown)[0]}]; it has must, filter, should and must_not")
    result = np.ones(len(index.alive), np.bool_)
    required = masks("must") + masks("filter")
    for mask in required:
        result &= mask
    for mask in masks("must_not"):
        result &= ~mask
    should = masks("should")
    # As in Elasticsearch: beside other clauses, `should` only adds to a score, and a filter has none.
    if should and not required:
        result &= np.logical_or.reduce(should)
    return result


def _column(index: SearchIndex, field: str) -> tuple[Any, str]:
    """A plain field's column, dates as milliseconds, and its type in the mapping."""
    type_ = index.state.plain.get(field)
    if type_ is None:
        known = ", ".join(index.state.plain) or "none"
        raise PipelineError(
            f"[{field}] is no field that a filter can use; there are: {known} (fields of type text are for searching)"
        )
    column = index.documents[field]
    if type_ == "date":
        column = pa.array([_milliseconds(value, field) for value in column.to_pylist()], pa.int64())
    return column, type_


def _range(column: Any, type_: str, field: str, bounds: Filter) -> Bools:
    if not isinstance(bounds, Mapping) or not set(bounds) <= set(_COMPARE):
        raise PipelineError(f"range of [{field}] takes gt, gte, lt and lte, not {json.dumps(bounds)[:100]}")
    result = np.ones(len(column), np.bool_)
    for name, bound in bounds.items():
        result &= _mask(_COMPARE[name](column, pa.scalar(_value(bound, type_, field), column.type)))
    return result


def _mask(values: Any) -> Bools:
    mask: Bools = (
        pc.fill_null(values, False).to_numpy(zero_copy_only=False)
        if isinstance(values, pa.Array)
        else (pc.fill_null(values, False).to_numpy())
    )
    return mask.astype(np.bool_)


def _value(value: Any, type_: str, field: str) -> Any:
    """A value of a filter in the type of the field's column."""
    try:
        if type_ == "date":
            return _milliseconds(value, field)
        if type_ == "boolean":
            return {"true": True, "false": False}[str(value).lower()]
        if type_ in _INTEGERS:
            return int(value)
        return float(value) if type_ in ("double", "float") else str(value)
    except (ValueError, KeyError, TypeError):
        raise PipelineError(f"[{field}] is of type [{type_}], and {value!r} is none") from None


def _milliseconds(value: Any, field: str) -> int | None:
    """A date, ISO 8601 or milliseconds since 1970, in milliseconds; without a zone it is UTC."""
    if value is None:
        return None
    text = str(value)
    if re.fullmatch(r"-?\d{5,}", text):
        return int(text)
    try:
        parsed = (
            datetime.fromisoformat(text)
            if len(text) > 10
            else datetime.combine(
                date.fromisoformat(f"{text}-01-01"[:10] if len(text) == 4 else f"{text}-01"[:10]),
                datetime.min.time(),
            )
        )
    except ValueError:
        raise PipelineError(
            f"[{field}] has the date {text!r}, which is neither ISO 8601 nor milliseconds"
        ) from None
    zoned = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return round(zoned.timestamp() * 1000)
