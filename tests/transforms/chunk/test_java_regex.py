"""Java regular expressions in Python: what matches, and what Java would refuse."""

import pytest

from models.errors import InferenceError
from transforms.chunk.separators import SeparatorBudget, compile_separator


def matches(pattern, text):
    return SeparatorBudget(len(text)).split_points(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "text", "starts"),
    [
        # Line ends: Java knows six, and ^ never matches at the very end.
        ("^", "a\r\nb\u2028c\n", [0, 3, 5]),
        ("^", "", []),
        ("$", "a\r\nb\n", [1, 4, 5]),
        ("(?d)$", "a\rb\n", [3, 4]),
        ("(?-m)^", "a\nb", [0]),
        ("(?-m)$", "a\nb\n", [3, 4]),
        (r"\Z", "ab\r\n", [2, 4]),
        (r"\z", "ab\n", [3]),
        (".+", "ab\u2028c\x85d\re", [0, 3, 5, 7]),
        ("(?s).+", "a\nb", [0]),
        ("(?d).+", "a\rb\nc", [0, 4]),
        (r"\R", "a\r\n\n\x0b", [1, 3, 4]),
        # Classes are ASCII.
        (r"\w+", "aé_1", [0, 2]),
        (r"\d", "1٣", [0]),
        (r"\s", "a\u00a0 ", [2]),
        (r"\S", " \u3000", [1]),
        (r"\bé", "aé é", [1]),
        (r"\B", "é", [0, 1]),
        (r"(?U)\w", "é!", [0]),
        (r"(?U)\bé", "aé é", [3]),
        (r"(?i)É|x", "éX", [1]),
        (r"(?iu)É", "é", [0]),
        ("(?i)[a-c]+", "xABC", [1]),
        ("(?i:a)b", "Ab AB", [0]),
        ("a(?i)b|c", "aB C", [0, 3]),
        (r"\h+", "a\t\u00a0b", [1]),
        (r"\v", "a\x0b\u2029", [1, 2]),
        # Properties.
        (r"\p{Lu}", "aÀ", [1]),
        (r"\pL", "1a", [1]),
        (r"\P{L}", "a1", [1]),
        (r"\p{Punct}+", "a!?é", [1]),
        (r"\p{Alpha}", "éa", [1]),
        (r"(?U)\p{Alpha}", "1é", [1]),
        (r"\p{IsGreek}", "aβ", [1]),
        (r"\p{script=Han}", "a中", [1]),
        (r"\p{InGreek}", "aβ", [1]),
        (r"\p{javaWhitespace}", "\u00a0\u3000", [1]),
        (r"\p{L1}", "中é", [1]),
        # Character classes: unions, intersections, quotations.
        ("[a-z&&[^aeiou]]", "abc", [1, 2]),
        (r"[\w&&[^\d]]+", "a1_", [0, 2]),
        ("[a-c[x-z]]", "bmy", [0, 2]),
        ("[^a[b]]", "abc", [2]),
        ("[]a]", "a]", [0, 1]),
        (r"[\Q^]\E]", "^]", [0, 1]),
        ("[a-]", "-", [0]),
        (r"[^\p{L}\s]", "a!é ", [1]),
        ("[[:alpha:]]", "a:b", [0, 1]),
        # Escapes.
        (r"\Qa.b\E+", "a.bb axb", [0]),
        (r"\Q.*", "a.*", [1]),
        (r"\x41\x{1F600}", "A😀", [0]),
        (r"\ud83d\ude00", "a😀", [1]),
        (r"\u00e9\t\e\a\f\cA", "é\t\x1b\a\f\x01", [0]),
        (r"\0101\07", "A\x07", [0]),
        (r"\N{BULLET}", "a•", [1]),
        (r"\-\#\ \é", "-# é", [0]),
        ("a b]}", "a b]}", [0]),
        # Groups.
        (r"(a)\1", "aa", [0]),
        (r"(a)\10", "aa0", [0]),
        (r"\1(a)", "aa", []),
        (r"(?<tag>a)\k<tag>", "aa", [0]),
        ("a++b", "aab", [0]),
        ("(?>a+)b", "aab", [0]),
        ("a{2}", "aaaa", [0, 2]),
        ("(?<=a)b(?!c)", "ab abc", [1]),
        ("(?x) a b # a comment\n c", "abc", [0]),
        ("(?x)[a b]", " b", [1]),
    ],
)
def test_matches_as_in_java(pattern, text, starts):
    assert matches(pattern, text) == starts


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("(", "Unclosed group"),
        (")", "Unmatched closing )"),
        ("[a", "Unclosed character class"),
        ("[b-a]", "Illegal character range"),
        ("[&&]", "Bad intersection syntax"),
        ("*a", "nothing to repeat"),
        ("a{e<=1}", "Illegal repetition"),
        ("{", "Illegal repetition"),
        (r"\q", "Illegal/unsupported escape sequence"),
        ("\\", "Unexpected end"),
        (r"\p{Nope}", "Unknown character property name {Nope}"),
        (r"\p{IsNope}", "Unknown character property name"),
        (r"\x4", "Illegal hexadecimal escape sequence"),
        (r"\xzz", "Illegal hexadecimal escape sequence"),
        (r"\09", "Illegal octal escape sequence"),
        (r"\N{NO SUCH NAME}", "Unknown character name"),
        ("(?q)a", "Unknown inline modifier"),
        ("(?<1>a)", "Illegal group name"),
        (r"\k", "not followed by"),
        (r"\p{L", "Missing [}]"),
    ],
)
def test_refuses_what_java_refuses(pattern, problem):
    with pytest.raises(InferenceError) as refusal:
        compile_separator(pattern)
    assert refusal.value.status == 400
    assert f"Chunk separator regex [{pattern}] is not a valid Java regular expression" in refusal.value.reason
    assert problem in refusal.value.reason


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(a|aa)+$", "a" * 3000 + "!"),
        (r"([a-z]+)*\d", "a" * 3000),
        (r"(x+x+)+y", "x" * 3000),
        (r"\s+$", " " * 200_000 + "x"),
    ],
)
def test_runaway_expression_is_stopped(pattern, text):
    budget = SeparatorBudget(0)
    budget.seconds = 0.2
    with pytest.raises(InferenceError) as refusal:
        budget.split_points(pattern, text)
    assert refusal.value.reason == f"Chunk separator regex [{pattern}] has exceeded the character read limit"
    assert refusal.value.type == "illegal_argument_exception"


def test_time_is_shared_by_all_separators_of_a_value():
    budget = SeparatorBudget(1_000_000)
    granted = budget.seconds
    budget.split_points("a", "ba" * 200_000)
    assert budget.seconds < granted
    budget.seconds = 0.0
    with pytest.raises(InferenceError, match="has exceeded the character read limit"):
        budget.split_points("(a+)+$", "a" * 5000 + "!")
