"""The shape of a filter: checked once, before anything is looked up, so that whoever evaluates it can rely on it."""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from models.json_text import check_depth
from pipeline.errors import PipelineError

MAX_FILTER_DEPTH = 50
LEAST = re.compile(r"(-?\d{1,9})(%?)")
"""A `minimum_should_match`: a number of clauses or a share of them; where it is negative, how many need not match."""

OF_SCORES = ("boost", "_name")
"""Settings that any body may have and that concern scores only."""

_CLAUSES = ("must", "filter", "should", "must_not")
BOUNDS = ("gt", "gte", "lt", "lte")


def check_filter(query: Any) -> None:
    """Check that a filter is a query of one kind with a body of that kind's shape, at every depth.

    Raises:
        PipelineError: it is not; the message names the kind and shows what stands there.
    """
    try:
        check_depth(query, MAX_FILTER_DEPTH)
    except ValueError:
        raise PipelineError(f"a filter is nested deeper than {MAX_FILTER_DEPTH} levels") from None
    _check(query)


def _check(query: Any) -> None:
    if not isinstance(query, Mapping):
        raise PipelineError(
            f'a filter is an object such as {{"term": {{"field": "value"}}}}, not {_shown(query)}'
        )
    if len(query) != 1:
        raise PipelineError(f"a filter has one kind, this one has {len(query)}: {_shown(query)}")
    ((kind, body),) = query.items()
    if kind not in _SHAPES:
        raise PipelineError(f"filter [{kind}] is not understood; there are {', '.join(_SHAPES)}")
    if not isinstance(body, Mapping):
        raise PipelineError(f"filter [{kind}] takes an object, not {_shown(body)}")
    _SHAPES[kind](body)


def _check_bool(body: Mapping[str, Any]) -> None:
    _check_names("bool", body, (*_CLAUSES, "minimum_should_match"))
    least = body.get("minimum_should_match", 0)
    if LEAST.fullmatch(str(least)) is None:
        raise PipelineError(f"[minimum_should_match] takes a number or a percentage, not {_shown(least)}")
    for name in _CLAUSES:
        clauses = body.get(name, [])
        if not isinstance(clauses, list | tuple | Mapping):
            raise PipelineError(
                f"[{name}] of bool takes a filter or a list of filters, not {_shown(clauses)}"
            )
        for clause in [clauses] if isinstance(clauses, Mapping) else clauses:
            _check(clause)


def _check_term(body: Mapping[str, Any]) -> None:
    field, wanted = _field("term", body)
    if isinstance(wanted, Mapping):
        if "value" not in wanted:
            raise PipelineError(f"term of [{field}] takes a value, not {_shown(wanted)}")
        _check_names(f"term of [{field}]", wanted, ("value",))
        wanted = wanted["value"]
    if wanted is None:
        raise PipelineError(f"term of [{field}] takes a value, not null")
    _check_value("term", field, wanted)


def _check_terms(body: Mapping[str, Any]) -> None:
    field, wanted = _field("terms", body)
    if not isinstance(wanted, list | tuple):
        raise PipelineError(f"terms of [{field}] takes a list of values, not {_shown(wanted)}")
    for value in wanted:
        _check_value("terms", field, value)


def _check_range(body: Mapping[str, Any]) -> None:
    field, bounds = _field("range", body)
    if not isinstance(bounds, Mapping):
        raise PipelineError(f"range of [{field}] takes gt, gte, lt and lte, not {_shown(bounds)}")
    _check_names(f"range of [{field}]", bounds, (*BOUNDS, "format", "time_zone", "relation"))
    for name, bound in bounds.items():
        _check_value("range", field, bound)
        if name in ("format", "time_zone") and not isinstance(bound, str | None):
            raise PipelineError(f"[{name}] of range of [{field}] is a text, not {_shown(bound)}")


def _check_exists(body: Mapping[str, Any]) -> None:
    _check_names("exists", body, ("field",))
    if not isinstance(body.get("field"), str):
        raise PipelineError(f'exists takes {{"field": name}}, not {_shown(body)}')


def _check_ids(body: Mapping[str, Any]) -> None:
    _check_names("ids", body, ("values",))
    values = body.get("values")
    for value in values if isinstance(values, list | tuple) else [values]:
        if isinstance(value, Mapping | list | tuple | None):
            raise PipelineError(f'ids takes {{"values": [id, ...]}}, not {_shown(body)}')


def _check_constant_score(body: Mapping[str, Any]) -> None:
    _check_names("constant_score", body, ("filter",))
    _check(body.get("filter"))


def _check_all_or_none(body: Mapping[str, Any]) -> None:
    _check_names("match_all or match_none", body, ())


def _check_names(where: str, body: Mapping[str, Any], known: Collection[str]) -> None:
    unknown = sorted(map(str, body.keys() - {*known, *OF_SCORES}))
    if unknown:
        raise PipelineError(f"{where} has no [{unknown[0]}]; it has {', '.join(known) or 'nothing'}")


def _field(kind: str, body: Mapping[str, Any]) -> tuple[str, Any]:
    """The one field of a body, without the settings that concern scores only."""
    fields = [(name, value) for name, value in body.items() if name not in OF_SCORES]
    if len(fields) != 1:
        raise PipelineError(f"filter [{kind}] takes one field, not {_shown(body)}")
    return fields[0]


def _check_value(kind: str, field: str, value: Any) -> None:
    if isinstance(value, Mapping | list | tuple):
        raise PipelineError(
            f"{kind} of [{field}] compares with a text, number or boolean, not {_shown(value)}"
        )


def _shown(value: Any) -> str:
    return json.dumps(value, default=repr, ensure_ascii=False)[:100]


_SHAPES = {
    "bool": _check_bool,
    "term": _check_term,
    "terms": _check_terms,
    "range": _check_range,
    "exists": _check_exists,
    "ids": _check_ids,
    "match_all": _check_all_or_none,
    "match_none": _check_all_or_none,
    "constant_score": _check_constant_score,
}
