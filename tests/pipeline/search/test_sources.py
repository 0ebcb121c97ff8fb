"""What a hit says of its document: title, fields, and the part of a chunk around the match."""

import json

import pytest
from support.small_run import SmallRun, document

from pipeline.__main__ import main
from pipeline.search.sources import snippet, title_of


@pytest.mark.parametrize(
    ("length", "spans", "shown"),
    [
        (50, [], (0, 50)),
        (500, [], (0, 100)),
        (500, [(300, 310)], (255, 355)),
        (500, [(495, 500)], (400, 500)),
    ],
)
def test_the_match_is_in_the_middle(length, spans, shown):
    assert snippet("x" * length, spans, 100) == shown


def test_a_snippet_has_whole_words():
    words = " ".join(f"word{n:03}" for n in range(100))
    start, end = snippet(words, [(400, 407)], 60)
    assert words[start:end].split() == [f"word{n:03}" for n in range(47, 54)]
    assert words[start - 1] == words[end] == " "
    assert snippet(words, [(0, 7)], 62) == (0, 55)
    assert snippet(words, [(792, 799)], 62)[1] == len(words)


@pytest.mark.parametrize(
    ("source", "title"),
    [({"title": " A "}, "A"), ({"title": "", "path": "a/b.md"}, "a/b.md"), ({"name": 3}, ""), ({}, "")],
)
def test_what_names_a_document(source, title):
    assert title_of(source) == title


def test_fields_source_and_pages_of_hits(tmp_path, capsys):
    job = SmallRun(tmp_path)
    job.write([document(number) for number in range(9)])
    assert job.run("--quiet") == 0
    capsys.readouterr()

    def found(*arguments):
        assert job.run("Edition of document 3", "--mode", "bm25", *arguments, command="search") == 0
        return capsys.readouterr().out

    hits = json.loads(found("--format", "json", "--k", "4", "--fields", "year,title", "--source"))["hits"]
    assert hits[0]["fields"] == {"year": 2003, "title": "Title 3"}
    assert hits[0]["_source"] == {name: value for name, value in document(3).items() if name != "_id"}
    later = json.loads(found("--format", "json", "--from", "2", "--k", "2"))["hits"]
    assert [hit["_id"] for hit in later] == [hit["_id"] for hit in hits[2:]]
    assert "_source" not in later[0]
    shown = found("--k", "1", "--fields", "year,none.such")
    assert "Title 3" in shown
    assert "year: 2003" in shown
    assert "none.such: –" in shown
    queries = tmp_path / "queries.tsv"
    queries.write_text("q\tEdition of document 3\n")
    argv = ["search", str(job.config_path), "--queries", str(queries), "--mode", "bm25"]
    assert main([*argv, "--from", "2", "--k", "2", "--fields", "year"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [hit["_id"] for hit in answer["hits"]] == [hit["_id"] for hit in hits[2:]]
    assert set(answer["hits"][0]["fields"]) == {"year"}


def test_a_search_that_finds_nothing_says_so(tmp_path, capsys):
    job = SmallRun(tmp_path)
    job.write([document(number) for number in range(9)])
    assert job.run("--quiet") == 0
    capsys.readouterr()
    assert job.run("zebra", "--mode", "bm25", command="search") == 0
    assert capsys.readouterr().out == "bm25: zebra\nnothing found\n"
    assert job.run("fox", "--mode", "bm25", "--filter", "year>2990", command="search") == 0
    assert "nothing found: the filter lets 0 of 9 documents through" in capsys.readouterr().out


def test_fields_are_shown_as_json_not_as_python(tmp_path, capsys):
    job = SmallRun(tmp_path)
    job.write([{**document(1), "tags": ["a", "b"], "meta": {"lang": "en", "draft": True}}])
    assert job.run("--quiet") == 0
    capsys.readouterr()
    fields = ("--fields", "tags,meta,meta.lang", "--mode", "bm25")
    assert job.run("fox", *fields, command="search") == 0
    shown = capsys.readouterr().out
    for line in ('tags: ["a", "b"]', 'meta: {"lang": "en", "draft": true}', "meta.lang: en"):
        assert line in shown
    assert job.run("fox", "--source", "--mode", "bm25", command="search") == 0
    assert "'" not in capsys.readouterr().out
