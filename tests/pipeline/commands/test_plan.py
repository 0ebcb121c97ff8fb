"""What `plan` prints: what would be done, and nothing that is zero."""

import json
import re

import pytest
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


def test_a_plan_has_the_cost_where_prices_are_known(tmp_path, capsys):
    job = SmallRun(tmp_path, models={".hashing-dense": {"price_per_million_tokens": 2.5}})
    job.write([document(number) for number in range(5)])
    assert job.run("--no-calibrate", "--format", "json", command="plan") == 0
    planned = json.loads(capsys.readouterr().out)
    tokens = planned["fields"]["dense"]["tokens"]
    assert tokens > 0
    assert planned["fields"]["dense"]["cost"] == pytest.approx(tokens * 2.5 / 1e6)
    assert planned["fields"]["sparse"]["cost"] is None
    assert planned["estimated_cost"] == pytest.approx(tokens * 2.5 / 1e6)
    assert job.run("--no-calibrate", command="plan") == 0
    assert "by the prices in [models]" in capsys.readouterr().out

    assert job.run("--quiet", "--format", "json") == 0
    first = json.loads(capsys.readouterr().out)
    dearer = SmallRun(tmp_path, models={".hashing-dense": {"price_per_million_tokens": 3}})
    assert dearer.run("--quiet", "--format", "json") == 0
    second = json.loads(capsys.readouterr().out)
    assert second["table_version"] == first["table_version"]  # a price is no part of a table
    assert second["embedded"] == 0


def test_a_price_that_is_none_is_named(tmp_path, capsys):
    job = SmallRun(tmp_path, models={".hashing-dense": {"price_per_million_tokens": "much"}})
    job.write([document(1)])
    assert job.run("--no-calibrate", command="plan") == 2
    assert "[.hashing-dense.price_per_million_tokens] must be a number from 0 on" in capsys.readouterr().err
