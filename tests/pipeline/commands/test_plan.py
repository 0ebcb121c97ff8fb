"""What `plan` prints: what would be done, and nothing that is zero."""

import json
import re

from support.small_run import SmallRun, document


def rows(text: str) -> set[str]:
    return {line.split("  ")[0] for line in text.splitlines()}


def test_a_plan_counts_as_the_run_will(tmp_path, capsys):
    """A value that its field cannot hold is found when the document is looked at whole."""
    job = SmallRun(tmp_path)
    good = [document(number) for number in range(4)]
    job.write([*good, {**document(9), "title": {"not": "a text"}}, b"no json"])
    assert job.run("--no-calibrate", "--format", "json", command="plan") == 0
    planned = json.loads(capsys.readouterr().out)["documents"]
    assert job.run("--quiet", "--format", "json") == 0
    assert planned == json.loads(capsys.readouterr().out)["documents"]
    assert (planned["added"], planned["failed"]) == (4, 2)
    job.write([document(0, 1), *good[1:], {**document(9), "title": {"not": "a text"}}])
    assert job.run("--no-calibrate", "--format", "json", command="plan") == 0
    planned = json.loads(capsys.readouterr().out)["documents"]
    assert (planned["added"], planned["changed"], planned["failed"]) == (0, 1, 1)


def test_a_plan_has_no_rows_of_zeros(tmp_path, capsys):
    job = SmallRun(tmp_path)
    job.write([document(number) for number in range(5)])
    assert job.run("--no-calibrate", command="plan") == 0
    first = capsys.readouterr().out
    assert "documents: 5 added" in first
    assert {"endpoint", "chunks", "tokens"} <= rows(first)
    assert not {"reused", "merged", "truncated"} & rows(first)

    assert job.run("--quiet") == 0
    capsys.readouterr()
    assert job.run("--no-calibrate", command="plan") == 0
    nothing = capsys.readouterr().out
    assert "documents: 5 unchanged" in nothing
    assert not {"reused", "merged", "tokens", "truncated"} & rows(nothing)
    for line in [*first.splitlines(), *nothing.splitlines()]:
        assert line == line.rstrip(), "no line is padded"
        assert not re.fullmatch(r"\S+( +0)+", line) or line.startswith("chunks")
