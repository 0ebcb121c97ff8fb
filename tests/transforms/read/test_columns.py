"""Plain columns: values converted as Elasticsearch converts them, all of them kept, or refused."""

import pytest

from transforms.plain_values import PlainField
from transforms.read.columns import DocumentShape, SourceLook
from transforms.read.rows.readers import BadDocumentError


def values(value, type_, **options):
    return list(PlainField("f", type_, **options).values({"f": value}))


@pytest.mark.parametrize(
    ("value", "type_", "expected"),
    [
        ("text", "keyword", ["text"]),
        (13.5, "keyword", ["13.5"]),
        (True, "keyword", ["true"]),
        (["first", "second"], "keyword", ["first", "second"]),
        ([None, ["second"]], "keyword", ["second"]),
        ([], "keyword", []),
        (None, "long", []),
        ("42", "integer", [42]),
        ("42.9", "integer", [42]),
        (7.0, "long", [7]),
        ("9007199254740993.0", "long", [9007199254740993]),
        (" 5 ", "short", [5]),
        ("", "long", []),
        (127, "byte", [127]),
        (2**64 - 1, "unsigned_long", [2**64 - 1]),
        ("1.5", "double", [1.5]),
        ("1e3", "long", [1000]),
        (3.4e38, "float", [3.4e38]),
        ("true", "boolean", [True]),
        ("True", "boolean", [True]),
        (False, "boolean", [False]),
        ("", "boolean", [False]),
        ("2024-03-31", "date", ["2024-03-31"]),
        (1700000000000, "date", ["1700000000000"]),
        ("::1", "ip", ["::1"]),
    ],
)
def test_values_take_the_type_of_their_field(value, type_, expected):
    assert values(value, type_) == expected


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        ("abc", "long"),
        ("٣", "long"),
        (128, "byte"),
        (2**63, "long"),
        (-1, "unsigned_long"),
        (True, "long"),
        ("yes", "boolean"),
        (1, "boolean"),
        ({"abc": 1}, "keyword"),
        ("abc", "float"),
        ("Infinity", "float"),
        (1e39, "float"),
        (70_000, "half_float"),
        ("abc", "date"),
        ("2024-13-01", "date"),
        ("abc", "ip"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_without_being_shown(value, type_):
    with pytest.raises(ValueError, match=rf"field \[f\] holds a \w+ that is no {type_}") as error:
        values(value, type_)
    assert "abc" not in str(error.value)
    assert values([value], type_, ignore_malformed=True) == []


@pytest.mark.parametrize("value", ["5", 5.5])
def test_without_coercion_only_whole_numbers_are_numbers(value):
    with pytest.raises(ValueError, match="coerce: false"):
        values(value, "long", coerce=False)


SHAPE = DocumentShape(
    (PlainField("tags", "keyword"), PlainField("a.b.c", "long"), PlainField("list.n", "long")),
    objects=("a",),
    semantic={"sem": ("sem", "text")},
    lists=frozenset({"tags", "list.n"}),
)


def test_dotted_names_reach_into_objects_and_columns_of_lists_hold_all_values():
    source = {"a": {"b": {"c": 1}}, "list": [{"n": 3}, {"n": "4"}], "tags": "x"}
    assert SHAPE.column_values(source) == {"tags": ["x"], "a.b.c": 1, "list.n": [3, 4]}
    assert SHAPE.column_values({"list.n": 3}) == {"tags": None, "a.b.c": None, "list.n": [3]}


@pytest.mark.parametrize("source", [{"a": "text"}, {"a": [{}, 1]}, {"a": {"b": {"c": [1, 2]}}}])
def test_no_value_is_lost_in_a_column(source):
    with pytest.raises(BadDocumentError, match=r"\[a"):
        SHAPE.column_values(source)


def test_a_look_finds_several_values_and_filled_fields():
    look = SourceLook.of(SHAPE)
    for source in ({"tags": ["x"], "txt": "a"}, {"list": [{"n": 3}, {"n": 4}]}):
        look.see(source)
    assert look.to_json() == {"several": ["list.n"], "filled": [], "fields": ["tags", "txt", "list"]}
    look.see({"tags": ["x", None, "y"], "text": "words"})
    assert (look.several, look.filled) == ({"tags", "list.n"}, {"sem"})
