"""Filters: which documents a search may find.

A filter is written as in Elasticsearch's query language (``term``, ``terms``, ``range``, ``exists``, ``ids``,
``match_all``, ``bool``), or in short as ``field=value``, ``field!=value``, ``field>=value`` and so on, joined by
``AND``. A value with spaces around an ``AND`` of its own stands in double quotes. A field may have several values; a
filter matches a document when any of them does.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.json_text import parse_json
from pipeline.errors import PipelineError
from pipeline.search.filter_columns import FilterColumn, open_column
from pipeline.search.filter_shape import BOUNDS, LEAST, OF_SCORES, check_filter
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

    Args:
        index: the index.
        query: a filter of the shape that `check_filter` asks for.

    Raises:
        PipelineError: it names a field that no filter can use, or a value that is not of the field's type.
    """
    ((kind, body),) = query.items()
    return _KINDS[kind](index, {name: value for name, value in body.items() if name not in OF_SCORES})


def _bool(index: SearchIndex, body: Filter) -> Bools:
    def masks(name: str) -> list[Bools]:
        clauses = body.get(name, [])
        listed = [clauses] if isinstance(clauses, Mapping) else clauses
        return [matching(index, clause) for clause in listed]

    result = np.ones(len(index.alive), np.bool_)
    required = masks("must") + masks("filter")
    for mask in required:
        result &= mask
    for mask in masks("must_not"):
        result &= ~mask
    should = masks("should")
    # As in Elasticsearch: beside other clauses, `should` only adds to a score, and a filter has none.
    least = _least(body.get("minimum_should_match", 0), len(should))
    if should:
        result &= np.sum(should, axis=0) >= (least if required else max(least, 1))
    elif required:
        result &= least == 0  # as many as are asked for, and there are none
    return result


def _least(asked: Any, clauses: int) -> int:
    """How many clauses must match: a number, a share in percent, or, where it is negative, how many need not."""
    match = LEAST.fullmatch(str(asked))
    assert match is not None
    count = int(match[1])
    if match[2]:
        count = int(clauses * abs(count) / 100) * (-1 if count < 0 else 1)
    return max(0, clauses + count if match[1].startswith("-") else count)


def _field(index: SearchIndex, body: Filter) -> tuple[FilterColumn, Any]:
    """The column that a query with one field is about, and what it asks of it."""
    ((name, wanted),) = body.items()
    return open_column(index, str(name)), wanted


def _term(index: SearchIndex, body: Filter) -> Bools:
    column, wanted = _field(index, body)
    return column.equal_to([wanted["value"] if isinstance(wanted, Mapping) else wanted])


def _terms(index: SearchIndex, body: Filter) -> Bools:
    column, wanted = _field(index, body)
    return column.equal_to(wanted)


def _ids(index: SearchIndex, body: Filter) -> Bools:
    values = body["values"]
    return open_column(index, "_id").equal_to(values if isinstance(values, list | tuple) else [values])


def _exists(index: SearchIndex, body: Filter) -> Bools:
    return open_column(index, body["field"]).has_value()


def _range(index: SearchIndex, body: Filter) -> Bools:
    column, bounds = _field(index, body)
    return column.between(
        {name: value for name, value in bounds.items() if name in BOUNDS and value is not None},
        format=bounds.get("format"),
        zone=bounds.get("time_zone"),
    )


def _match_all(index: SearchIndex, body: Filter) -> Bools:
    return np.ones(len(index.alive), np.bool_)


def _match_none(index: SearchIndex, body: Filter) -> Bools:
    return np.zeros(len(index.alive), np.bool_)


def _constant_score(index: SearchIndex, body: Filter) -> Bools:
    return matching(index, body["filter"])


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
