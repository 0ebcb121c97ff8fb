"""Every malformed filter is a sentence."""

import json
import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.search.filter_shape import check_filter
from pipeline.search.filters import parse_filters


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"bool": 5}, "filter [bool] takes an object, not 5"),
        ({"bool": {"must": 5}}, "[must] of bool takes a filter or a list of filters, not 5"),
        ({"bool": {"must": [5]}}, "a filter is an object such as"),
        ({"terms": {"t": 5}}, "terms of [t] takes a list of values, not 5"),
        ({"terms": {"t": "red"}}, "terms of [t] takes a list of values"),
        ({"terms": {"t": [{}]}}, "terms of [t] compares with a text, number or boolean, not {}"),
        ({"term": {"t": {}}}, "term of [t] takes a value"),
        ({"term": {"t": [1]}}, "term of [t] compares with"),
        ({"term": {}}, "filter [term] takes one field"),
        ({"term": {"a": 1, "b": 2}}, "filter [term] takes one field"),
        ({"range": {"t": 5}}, "range of [t] takes gt, gte, lt and lte, not 5"),
        ({"range": {"t": {"gt": []}}}, "range of [t] compares with"),
        ({"exists": {}}, 'exists takes {"field": name}'),
        ({"exists": {"field": []}}, 'exists takes {"field": name}'),
        ({"exists": {"field": "t", "of": 1}}, "exists has no [of]; it has field"),
        ({"term": {"t": None}}, "term of [t] takes a value, not null"),
        ({"term": {"t": {"value": 1, "case": 2}}}, "term of [t] has no [case]; it has value"),
        ({"range": {"t": {"above": 1}}}, "range of [t] has no [above]; it has gt, gte, lt, lte"),
        ({"range": {"t": {"gt": 1, "format": 5}}}, "[format] of range of [t] is a text, not 5"),
        ({"range": {"t": {"gt": 1, "time_zone": 5}}}, "[time_zone] of range of [t] is a text, not 5"),
        ({"bool": {"mustnt": []}}, "bool has no [mustnt]; it has must, filter, should, must_not"),
        ({"bool": {"minimum_should_match": "most"}}, "[minimum_should_match] takes a number or a percentage"),
        ({"ids": {}}, 'ids takes {"values": [id, ...]}'),
        ({"ids": {"values": [None]}}, 'ids takes {"values": [id, ...]}'),
        ({"match_all": {"t": 1}}, "match_all or match_none has no [t]; it has nothing"),
        ({"constant_score": {}}, "a filter is an object such as"),
        ({"constant_score": {"filter": {"term": 5}}}, "filter [term] takes an object, not 5"),
        ({"prefix": {"t": "a"}}, "filter [prefix] is not understood; there are bool, term"),
        ({}, "a filter has one kind, this one has 0"),
        ([], "a filter is an object"),
        (None, "a filter is an object"),
        (5, "a filter is an object"),
    ],
)
def test_malformed_filters_say_what_is_wrong(query, said):
    with pytest.raises(PipelineError, match=re.escape(said)):
        check_filter(query)


def test_deep_filters_are_refused():
    query = {"term": {"t": 1}}
    for _ in range(60):
        query = {"bool": {"must_not": [query]}}
    with pytest.raises(PipelineError, match="nested deeper than 50 levels"):
        check_filter(query)
    with pytest.raises(PipelineError, match="nested deeper"):
        parse_filters(['{"bool": {"must": [' * 5_000])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["bool", "must", "term", "terms", "range", "exists", "field", "gt", "t"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_value_is_a_filter_or_a_sentence(query):
    with suppress(PipelineError):
        check_filter(query)
        parse_filters([json.dumps(query)])
