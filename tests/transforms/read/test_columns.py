"""Plain columns: values converted as Elasticsearch converts them, or refused."""

import pytest

from transforms.read.columns import plain_value
from transforms.read.readers import BadDocumentError


@pytest.mark.parametrize(
    ("value", "type_", "expected"),
    [
        ("text", "string", "text"),
        (13.5, "string", "13.5"),
        (True, "string", "true"),
        (["first", "second"], "string", "first"),
        ([None, "second"], "string", "second"),
        ([], "string", None),
        (None, "int64", None),
        ("42", "int32", 42),
        ("42.9", "int32", 42),
        (7.0, "int64", 7),
        ("", "int64", None),
        (127, "int8", 127),
        ("1.5", "float64", 1.5),
        ("true", "bool", True),
        (False, "bool", False),
        ("", "bool", False),
    ],
)
def test_a_value_takes_the_type_of_its_column(value, type_, expected):
    assert plain_value({"f": value}, "f", type_) == expected


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        ("abc", "int64"),
        (128, "int8"),
        (2**63, "int64"),
        (True, "int64"),
        ("yes", "bool"),
        ({"a": 1}, "string"),
        ("x", "float32"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_without_being_shown(value, type_):
    with pytest.raises(BadDocumentError) as error:
        plain_value({"f": value}, "f", type_)
    assert "field [f]" in str(error.value)
    assert type_ in str(error.value)
    assert "abc" not in str(error.value)


def test_dotted_names_reach_into_objects_and_dotted_keys():
    source = {"a": {"b": {"c": 1}}, "x.y": {"z": 2}, "list": [{"n": 3}, {"n": 4}]}
    assert plain_value(source, "a.b.c", "int64") == 1
    assert plain_value(source, "x.y.z", "int64") == 2
    assert plain_value(source, "list.n", "int64") == 3
    assert plain_value(source, "a.missing", "int64") is None
