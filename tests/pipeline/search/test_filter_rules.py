"""Filters find in the index what Elasticsearch's rules, applied to each document by itself, say."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.elastic_filters import matches
from support.text_job import Job, lines

from pipeline.search.filters import matching
from pipeline.search.open_index import SearchIndex
from transforms.plain_values import COLUMN_TYPES, TEXT_TYPES

PROPERTIES = {
    "k": {"type": "keyword", "copy_to": "all"},
    "k.raw": {"type": "keyword", "ignore_above": 2, "sources": ["k"]},
    "none": {"type": "keyword", "null_value": "NULL"},
    "w": {"type": "wildcard", "copy_to": ["all"]},
    "all": {"type": "keyword", "sources": ["all", "k", "w"]},
    "v": {"type": "version"},
    "data_stream": {"type": "constant_keyword", "value": "logs"},
    "b": {"type": "boolean"},
    "byte": {"type": "byte"},
    "short": {"type": "short", "null_value": 3},
    "i": {"type": "integer", "ignore_malformed": True},
    "o.long": {"type": "long"},
    "ul": {"type": "unsigned_long"},
    "half": {"type": "half_float"},
    "float": {"type": "float"},
    "double": {"type": "double"},
    "price": {"type": "scaled_float", "scaling_factor": 10},
    "day": {"type": "date", "format": "yyyy/MM/dd||epoch_millis"},
    "at": {"type": "date"},
    "nanos": {"type": "date_nanos"},
    "ip": {"type": "ip"},
}

WORDS = st.sampled_from(["", "a", "b", "ab", "abc", "B", "ä", "日", "\U0001f600"])
WHOLE = st.integers(-5, 5) | st.sampled_from([-128, 127])
REAL = st.sampled_from([-1.5, -0.25, 0.0, 0.05, 0.1, 0.15, 0.29, 0.3, 1.0, 1.05, 2.5, 1e-3])
AT = st.sampled_from(
    [
        *("2024", "2025", "2024-02", "2024-01-31", "2024-02-29T10", "2024-02-29T10:30"),
        *("2024-02-01T00:00:00Z", "2024-02-29T23:59:59.999Z", "1970-01-01T00:00:00.001Z"),
    ]
)
MILLIS = st.sampled_from([1706659200000, 1709251199999, 1704067200000, 86_400_000])
ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.1.0.0", "::ffff:10.0.0.1", "::1", "2001:db8::1"])
KEYWORDS = WORDS | st.integers(0, 2) | st.booleans()
WHOLES = WHOLE | WHOLE.map(str) | WHOLE.map(lambda n: n + 0.5) | WHOLE.map(lambda n: f"{n}.0")
REALS = REAL | REAL.map(str) | WHOLE

VALUES = {
    **dict.fromkeys(("k", "none", "w", "all"), KEYWORDS),
    "v": st.sampled_from(["1.0.0", "1.0.1", "1.0"]),
    "data_stream": st.just("logs"),
    "b": st.booleans() | st.sampled_from(["true", "false"]),
    **dict.fromkeys(("byte", "short", "o.long"), WHOLES),
    "i": WHOLES | st.sampled_from(["x", "1x"]),
    "ul": st.integers(0, 3) | st.sampled_from([2**63, 2**64 - 1]),
    **dict.fromkeys(("half", "float", "double", "price"), REALS),
    "day": AT.filter(lambda text: len(text) == 10).map(lambda text: text.replace("-", "/")) | MILLIS,
    "at": AT | MILLIS,
    "nanos": AT.filter(lambda text: "T" not in text or text.count(":") == 2)
    | MILLIS
    | st.just("2024-02-29T23:59:59.123456789Z"),
    "ip": ADDRESSES,
}
ASKED = {
    **VALUES,
    "k.raw": KEYWORDS,
    "i": WHOLES,
    "data_stream": st.sampled_from(["logs", "metrics"]),
    "ul": st.integers(-1, 3) | st.sampled_from([2**63, 2**64 - 1, 0.5]),
}
HELD = [name for name in PROPERTIES if name != "k.raw"]


def several(value):
    """A value as documents hold it: alone, null, in a list with others, or in lists of lists."""
    some = st.lists(st.none() | value | st.lists(value, max_size=2), max_size=3)
    return st.none() | value | some


@st.composite
def documents(draw):
    """Some documents; each holds some of the fields."""
    made = []
    for number in range(draw(st.integers(1, 6))):
        names = draw(st.lists(st.sampled_from(HELD), unique=True, max_size=8))
        document = {name: draw(several(VALUES[name]), label=name) for name in names}
        if "o.long" in document:
            value = document.pop("o.long")
            document["o"] = draw(st.sampled_from([{"long": value}, [{"long": value}, {"long": 4}], [{}]]))
        made.append({"_id": f"d{number}", "text": "one", **document})
    return made


@st.composite
def leaves(draw):
    """A filter of one clause."""
    name = draw(st.sampled_from(list(ASKED)))
    value = ASKED[name]
    if name == "ip":
        value = value | st.sampled_from(["10.0.0.0/16", "::/0", "10.0.0.0/31"])
    kind = draw(st.sampled_from(["term", "value", "terms", "exists", "ids", "match", "range"]))
    if kind == "ids":
        return {"ids": {"values": draw(st.lists(st.sampled_from(["d0", "d1", "d9"]), max_size=2))}}
    if kind == "match":
        return draw(st.sampled_from([{"match_all": {}}, {"match_none": {}}, {"term": {"_id": "d1"}}]))
    if kind == "exists":
        return {"exists": {"field": draw(st.sampled_from([name, "_id"]))}}
    if kind == "range" and name != "v":
        sides = draw(st.sampled_from([("gt",), ("gte",), ("lt",), ("lte",), ("gte", "lt"), ("gt", "lte")]))
        return {"range": {name: {side: draw(ASKED[name]) for side in sides}}}
    if kind == "terms":
        return {"terms": {name: draw(st.lists(value, max_size=3))}}
    asked = draw(value)
    return {"term": {name: {"value": asked} if kind == "value" else asked}}


CLAUSES = ("must", "filter", "should", "must_not")
LEAST = st.sampled_from([-2, -1, 0, 1, 2, "1", "50%", "-50%", "100%"])
FILTERS = st.recursive(
    leaves(),
    lambda inner: (
        st.builds(lambda one: {"constant_score": {"filter": one}}, inner)
        | st.builds(
            lambda clauses, least: {
                "bool": {**clauses, **({} if least is None else {"minimum_should_match": least})}
            },
            st.dictionaries(st.sampled_from(CLAUSES), st.lists(inner, max_size=3), max_size=3),
            st.none() | LEAST,
        )
    ),
    max_leaves=6,
)


def mapped():
    """The fields as a mapping has them."""
    fields = {name: {**field} for name, field in PROPERTIES.items()}
    for field in fields.values():
        field.pop("sources", None)
    fields["k"]["fields"] = {"raw": fields.pop("k.raw")}
    fields["o"] = {"properties": {"long": fields.pop("o.long")}}
    return fields


def test_every_type_that_filters_know_is_among_the_fields():
    assert {field["type"] for field in PROPERTIES.values()} == set(COLUMN_TYPES) - set(TEXT_TYPES)


@pytest.mark.slow
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(made=documents(), data=st.data())
def test_filters_find_what_elasticsearch_finds(tmp_path_factory, made, data):
    folder = tmp_path_factory.mktemp("rules")
    job = Job(folder, lines(folder / "in.jsonl", *made), **mapped())
    assert job.run("--quiet") == 0
    assert job.summary["documents"].get("failed", 0) == 0, job.summary["failures_by_reason"]
    index = SearchIndex(job.out / "index")
    ids = index.documents["_id"].to_pylist()
    for query in data.draw(st.lists(FILTERS, min_size=40, max_size=40)):
        found = {one for one, hit in zip(ids, matching(index, query), strict=True) if hit}
        expected = {one["_id"] for one in made if matches(PROPERTIES, one, query)}
        assert found == expected, json.dumps(query)
