"""YAML from outside is bounded, and what is wrong with it is a sentence."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.__main__ import main
from pipeline.config.yaml_text import parse_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "aliases that stand for more than"),
        ("&a [*a]", "aliases that stand for more than"),
        ("a: " + "[" * 20_000 + "]" * 20_000, "more than 100 levels, at line 1"),
        ("- " * 20_000, "more than 100 levels, at line 1"),
        ("{" * 20_000, "more than 100 levels"),
        ("when: 2026-99-99", "none of its type: month must be in 1..12"),
        ("n: " + "9" * 10_000, "none of its type"),
        ("a: [", "is not valid YAML: while parsing"),
        ("a: !!python/object/apply:os.system [x]", "is not valid YAML"),
        ("a: \x1b[31m", "is not valid YAML"),
        ("x" * 5_000_000, "has 5,000,000 characters"),
        ("[" + "1," * 300_000 + "1]", "more than 200,000 values"),
    ],
)
def test_what_is_no_yaml_is_a_sentence(text, said, tmp_path, capsys):
    with pytest.raises(ValueError, match=said):
        parse_yaml(text)
    (tmp_path / "run.yaml").write_text(text)
    assert main(["check", str(tmp_path / "run.yaml")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_aliases_are_fine_in_themselves():
    assert parse_yaml("a: &x {b: 1}\nc: *x\n")[1] == {"a": {"b": 1}, "c": {"b": 1}}


@given(st.text(alphabet="ab:-[]{}&*!|>'\"\n #%@`0123456789.~"))
def test_any_text_is_a_value_or_a_sentence(text):
    with suppress(ValueError):
        parse_yaml(text)
