"""How errors read: problems in the order of their lines, and one of them on one line."""

from pipeline.errors import ConfigError


def test_problems_stand_in_the_order_of_their_lines():
    error = ConfigError("run.yaml", ["line 12: c", "source: d", "line 2: a", "line 10: b", "index: e"])
    assert error.problems == ["line 2: a", "line 10: b", "line 12: c", "source: d", "index: e"]
    assert str(error).splitlines() == [
        "run.yaml: 5 problems",
        *(f"  - {problem}" for problem in error.problems),
    ]


def test_one_problem_is_one_line():
    assert str(ConfigError("run.yaml", ["line 2: a"])) == "run.yaml: line 2: a"
