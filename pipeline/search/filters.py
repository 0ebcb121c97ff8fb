"""Filters: which documents a search may find.

A filter is written as in Elasticsearch's query language (``term``, ``terms``, ``range``, ``exists``, ``ids``,
``match_all``, ``bool``), or in short as ``field=value``, ``field!=value``, ``field>=value`` and so on, joined by
``AND``. A value with spaces around an ``AND`` of its own stands in double quotes. A field may have several values; a
filter matches a document when any of them does.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.json_text import parse_json
from pipeline.errors import PipelineError
from pipeline.search.filter_columns import FilterColumn, open_column
from pipeline.search.filter_shape import check_filter
from pipeline.search.open_index import Bools, SearchIndex

Filter = Mapping[str, Any]
_SHORT = re.compile(r'\s*([\w.@-]+)\s*(!=|>=|<=|=|>|<)\s*("[^"]*"|.*?)\s*', re.DOTALL)
_AND = re.compile(r'\s+AND\s+(?=(?:[^"]*"[^"]*")*[^"]*$)')  # with an even number of quotes behind it
_RANGES = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}


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
            query: Filter = parse_json(text)
            check_filter(query)
            return query
        except ValueError as error:
            raise PipelineError(f"--filter {text[:200]!r} is not JSON: {error}") from None
    match = _SHORT.fullmatch(text)
    if match is None:
        raise PipelineError(
            f"--filter {text!r:.200} is not understood; write field=value, year>=1970 AND kind=report, or JSON"
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
        PipelineError: the filter is not understood, or names a field that no filter can use.
    """
    if not isinstance(query, Mapping) or len(query) != 1:
        raise PipelineError(f"a filter is an object with one kind of query in it, not {_shown(query)}")
    ((kind, body),) = query.items()
    known = _KINDS.get(kind)
    if known is None:
        raise PipelineError(f"filter [{kind}] is not understood; there are {', '.join(_KINDS)}")
    if not isinstance(body, Mapping):
        raise PipelineError(f"[{kind}] takes an object, not {_shown(body)}")
    return known(index, {name: value for name, value in body.items() if name not in ("boost", "_name")})


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)[:200]


def _bool(index: SearchIndex, body: Filter) -> Bools:
    def masks(name: str) -> list[Bools]:
        clauses = body.get(name, [])
        listed = clauses if isinstance(clauses, list | tuple) else [clauses]
        return [matching(index, clause) for clause in listed]

    unknown = set(body) - {"must", "filter", "should", "must_not", "minimum_should_match"}
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
    least = _least(body.get("minimum_should_match", 1 if should and not required else 0), len(should))
    result &= np.sum(should, axis=0, initial=0) >= least if should else least == 0
    return result


def _least(asked: Any, clauses: int) -> int:
    """How many clauses must match: a number, a share in percent, or, where it is negative, how many need not."""
    match = re.fullmatch(r"(-?\d{1,9})(%?)", str(asked))
    if match is None:
        raise PipelineError(f"[minimum_should_match] takes a number or a percentage, not {_shown(asked)}")
    count = int(match[1])
    if match[2]:
        count = int(clauses * abs(count) / 100) * (-1 if count < 0 else 1)
    return max(0, clauses + count if match[1].startswith("-") else count)


def _field(index: SearchIndex, kind: str, body: Filter) -> tuple[FilterColumn, Any]:
    """The column that a query with one field is about, and what it asks of it."""
    if len(body) != 1:
        raise PipelineError(f"[{kind}] takes one field and what it asks of it, not {_shown(body)}")
    ((name, wanted),) = body.items()
    return open_column(index, str(name)), wanted


def _term(index: SearchIndex, body: Filter) -> Bools:
    column, wanted = _field(index, "term", body)
    if isinstance(wanted, Mapping):
        unknown = set(wanted) - {"value", "boost", "_name"}
        if unknown:
            raise PipelineError(f"[term] of [{column.name}] has no [{sorted(unknown)[0]}]; it takes a value")
        wanted = wanted.get("value")
    if isinstance(wanted, list | Mapping) or wanted is None:
        raise PipelineError(
            f"[term] of [{column.name}] takes one value, not {_shown(wanted)}; [terms] takes a list"
        )
    return column.equal_to([wanted])


def _terms(index: SearchIndex, body: Filter) -> Bools:
    column, wanted = _field(index, "terms", body)
    if not isinstance(wanted, list | tuple):
        raise PipelineError(f"[terms] of [{column.name}] takes a list of values, not {_shown(wanted)}")
    return column.equal_to(wanted)


def _ids(index: SearchIndex, body: Filter) -> Bools:
    values = body.get("values")
    if set(body) != {"values"}:
        raise PipelineError(f"[ids] takes [values], not {_shown(body)}")
    return open_column(index, "_id").equal_to(values if isinstance(values, list | tuple) else [values])


def _exists(index: SearchIndex, body: Filter) -> Bools:
    if set(body) != {"field"} or not isinstance(body["field"], str):
        raise PipelineError(f"[exists] takes [field] with the name of one, not {_shown(body)}")
    return open_column(index, body["field"]).has_value()


def _range(index: SearchIndex, body: Filter) -> Bools:
    column, bounds = _field(index, "range", body)
    known = {"gt", "gte", "lt", "lte", "format", "time_zone", "boost", "relation"}
    if not isinstance(bounds, Mapping) or not set(bounds) <= known:
        raise PipelineError(f"[range] of [{column.name}] takes gt, gte, lt and lte, not {_shown(bounds)}")
    return column.between(
        {
            name: value
            for name, value in bounds.items()
            if name in ("gt", "gte", "lt", "lte") and value is not None
        },
        format=bounds.get("format"),
        zone=bounds.get("time_zone"),
    )


def _match_all(index: SearchIndex, body: Filter) -> Bools:
    return np.ones(len(index.alive), np.bool_)


def _match_none(index: SearchIndex, body: Filter) -> Bools:
    return np.zeros(len(index.alive), np.bool_)


def _constant_score(index: SearchIndex, body: Filter) -> Bools:
    return matching(index, body.get("filter", {}))


_KINDS = {
    "term": _term,
    "terms": _terms,
    "range": _range,
    "exists": _exists,
    "ids": _ids,
    "match_all": _match_all,
    "match_none": _match_none,
    "constant_score": _constant_score,
    "bool": _bool,
}
