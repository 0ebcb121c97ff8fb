"""Data and mappings as people really have them, through the front door: nothing lost, nothing silent."""

import csv
import gzip
import io
import json
import os
from pathlib import Path

import pytest
from support.text_job import SEMANTIC, Job, lines

from pipeline.__main__ import main
from pipeline.api import open_index
from pipeline.evaluation.judgements import load_queries


def test_several_values_are_kept_found_and_make_a_column_of_lists_once(tmp_path, capsys):
    job = Job(tmp_path, tmp_path / "in.jsonl", tags={"type": "keyword"}, year={"type": "integer"})
    lines(tmp_path / "in.jsonl", {"_id": "a", "text": "one", "tags": "blue", "year": 1})
    assert job.run() == 0
    assert job.rows()["a"]["tags"] == "blue"
    lines(
        tmp_path / "in.jsonl",
        {"_id": "a", "text": "one", "tags": "blue", "year": 1},
        {"_id": "b", "text": "two", "tags": ["blue", "red"], "year": [2]},
    )
    assert job.run() == 0
    rows = job.rows()
    assert (rows["a"]["tags"], rows["b"]["tags"]) == (["blue"], ["blue", "red"])
    assert (rows["a"]["year"], rows["b"]["year"]) == (1, 2)
    assert "tags" in capsys.readouterr().out
    assert job.ids(["tags=red"]) == ["b"]
    assert job.ids(["tags=blue"]) == ["a", "b"]
    lines(
        tmp_path / "in.jsonl",
        {"_id": "a", "text": "one", "tags": "blue", "year": 1},
        {"_id": "b", "text": "2"},
    )
    assert job.run() == 0
    assert job.rows()["b"]["tags"] is None
    assert job.rows()["a"]["tags"] == ["blue"]


def test_a_mapping_as_a_cluster_gives_it(tmp_path, capsys):
    properties = {
        "title": {
            "type": "text",
            "fields": {
                "semantic": SEMANTIC,
                "keyword": {"type": "keyword", "ignore_above": 256},
            },
            "copy_to": ["all", "sem"],
        },
        "all": {"type": "text"},
        "sem": {
            **SEMANTIC,
            "fields": {"raw": {"type": "keyword"}},
            "index_options": {"dense_vector": {"type": "flat"}},
        },
        "ip": {"type": "ip"},
        "place": {"type": "geo_point"},
        "comments": {"type": "nested", "properties": {"by": {"type": "keyword"}}},
        "price": {"type": "scaled_float", "scaling_factor": 100},
        "labels": {"type": "flattened"},
    }
    job = Job(
        tmp_path, lines(tmp_path / "in.jsonl", {"_id": "a", "title": "Foxes", "ip": "::1", "price": "1.5"})
    )
    job.config["mappings"] = {
        "index-1": {
            "mappings": {
                "dynamic": "strict",
                "_source": {"enabled": True},
                "_meta": {"team": "a"},
                "dynamic_templates": [],
                "properties": properties,
            }
        }
    }
    assert job.run(command="check") == 0
    told = capsys.readouterr().out
    assert "title.semantic" in told
    assert "geo_point" in told
    assert job.run() == 0
    row = job.rows()["a"]
    assert row["title.semantic"]["chunks"][0]["source_field"] == "title"
    assert (row["ip"], row["price"]) == ("::1", 1.5)
    assert job.ids(["title.keyword=Foxes"]) == ["a"]
    assert job.ids({"term": {"ip": "::/8"}}) == ["a"]
    hits = open_index(str(job.out / "index")).search("foxes", mode="bm25", field="all").to_arrow()
    assert hits["_id"].to_pylist() == ["a"]


def test_dates_are_read_by_their_format_and_rounded_as_elasticsearch_does(tmp_path):
    job = Job(
        tmp_path,
        lines(
            tmp_path / "in.jsonl",
            {"_id": "a", "text": "one", "day": "2024/03/31", "at": "2024-03-31T23:59:59.999Z"},
            {"_id": "b", "text": "one", "day": "2024/04/01", "at": ["2024-04-01", 1700000000000]},
        ),
        day={"type": "date", "format": "yyyy/MM/dd"},
        at={"type": "date"},
    )
    assert job.run() == 0
    assert job.ids({"range": {"day": {"lte": "2024/03/31"}}}) == ["a"]
    assert job.ids({"range": {"at": {"lte": "2024-03"}}}) == ["a", "b"]
    assert job.ids({"range": {"at": {"gt": "2024-03"}}}) == ["b"]
    assert job.ids({"range": {"at": {"gte": "2024-03-31", "lt": "2024-03-31||+1d"}}}) == ["a"]
    assert job.ids({"range": {"at": {"lte": "now-1d/d"}}}) == ["a", "b"]
    assert job.ids({"term": {"at": "2024-03-31"}}) == ["a"]
    assert job.ids({"ids": {"values": ["b"]}}) == job.ids(["_id=b"]) == ["b"]
    assert job.ids({"match_all": {}}) == ["a", "b"]
    assert job.ids({"exists": {"field": "day"}}) == ["a", "b"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"day": "31.03.2024"}, "it is no date of the format"),
        ({"year": "٣"}, "holds a str that is no integer"),
        ({"year": 2**31}, "out of range"),
        ({"score": "Infinity"}, "holds a str that is no float"),
        ({"score": 1e39}, "out of range"),
        ({"meta": "text"}, "object mapping for [meta] tried to parse field [meta] as object"),
        ({"flag": "yes"}, "only true and false are allowed"),
        ({"nanos": "1969-12-31"}, "nanoseconds go from 1970 to 2262"),
        ({"day": "+999999999"}, "dates end with the year 292278994"),
        ({"ip": "fe80::1%eth0"}, "an IP address has no zone"),
        ({"kind": "metrics"}, "the mapping says [value: logs] for all documents"),
    ],
)
def test_what_elasticsearch_refuses_is_a_failure_of_its_document(tmp_path, capsys, document, message):
    job = Job(
        tmp_path,
        lines(tmp_path / "in.jsonl", {"_id": "a", "text": "one"}, {"_id": "b", "text": "two", **document}),
        day={"type": "date"},
        year={"type": "integer"},
        score={"type": "float"},
        flag={"type": "boolean"},
        nanos={"type": "date_nanos"},
        ip={"type": "ip"},
        kind={"type": "constant_keyword", "value": "logs"},
        meta={"properties": {"by": {"type": "keyword"}}},
    )
    assert job.run("--set", "failures.max_ratio=0.4") == 4
    assert message in capsys.readouterr().err
    assert job.run("--set", "failures.max_ratio=0.5") == 0
    assert list(job.rows()) == ["a"]


def test_numbers_and_ids_stay_as_they_were_sent(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text(
        '{"_id": 12345678901234567890123, "text": "one", "account": 98765432109876543210987}\n'
        '{"_id": 12345678901234567890124, "text": "two", "price": 0.12345678901234567890}\n'
    )
    job = Job(tmp_path, source)
    assert job.run() == 0
    rows = job.rows()
    assert '"account":98765432109876543210987' in rows["12345678901234567890123"]["_source"]
    assert '"price":0.12345678901234567890' in rows["12345678901234567890124"]["_source"]
    assert job.run() == 0
    assert job.summary["documents"]["unchanged"] == 2
    assert job.run(command="verify") == 0


@pytest.mark.parametrize("mark", ["true", "True", "1"])
def test_csv_marks_deletions_with_text(tmp_path, mark):
    (tmp_path / "in.csv").write_text(f"_id,text,is_deleted\na,one,false\nb,two,{mark}\n")
    job = Job(tmp_path, tmp_path / "in.csv")
    assert job.run(format="csv", deleted="is_deleted") == 0
    assert list(job.rows()) == ["a"]


def test_a_quote_that_is_never_closed_stops_the_run_and_its_deletions(tmp_path, capsys):
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["_id", "text"])
    writer.writerows([f"d{number}", f"text {number}"] for number in range(500))
    text = out.getvalue()
    source = tmp_path / "in.csv"
    source.write_text(text)
    job = Job(tmp_path, source)
    assert job.run(format="csv") == 0
    source.write_text(text.replace("text 300", '"text 300'))
    assert job.run() == 4
    assert f"{source}:302" in capsys.readouterr().err
    assert job.run("--set", "failures.max_ratio=1") == 0
    assert len(job.rows()) == 500
    assert job.summary["documents"]["held_back"] == 200


@pytest.mark.parametrize(
    ("name", "content", "source", "message"),
    [
        ("in.jsonl", b'[\n {"_id": "a",\n  "text": "x"}\n]\n', {}, "source.format: json"),
        ("in.csv", "_id;text\na;ä\n".encode("latin-1"), {"format": "csv"}, "source.delimiter"),
        ("in.csv", b"_id,text,text\na,b,c\n", {"format": "csv"}, "the column [text] 2 times"),
        ("in.parquet", b"", {"format": "parquet"}, "the file is empty"),
    ],
)
def test_a_source_without_a_document_says_why(tmp_path, capsys, name, content, source, message):
    (tmp_path / name).write_bytes(content)
    job = Job(tmp_path, tmp_path / name)
    assert job.run(**source) == 1
    assert message in capsys.readouterr().err
    (report,) = (job.out / "failures").iterdir()
    assert message in report.read_text()
    assert job.summary["failures_path"] == str(report)
    assert job.run(command="check") == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "plan", "run"])
def test_a_semantic_field_that_no_document_fills_is_an_error(tmp_path, capsys, command):
    job = Job(tmp_path, lines(tmp_path / "in.jsonl", {"_id": "a", "txt": "one"}))
    assert job.run(command=command) in (1, 2)
    told = capsys.readouterr().err
    assert "no document fills the semantic_text field [sem], which embeds [sem], [text]" in told
    assert "[txt]" in told


def test_without_an_inference_id_the_default_is_named(tmp_path, capsys):
    job = Job(
        tmp_path, lines(tmp_path / "in.jsonl", {"_id": "a", "text": "one"}), sem={"type": "semantic_text"}
    )
    assert job.run(command="check") == 2
    told = capsys.readouterr().err
    assert "names no [inference_id], so the default [.jina-embeddings-v5-text-small] embeds it" in told
    assert "hf download jinaai/jina-embeddings-v5-text-small" in told
    job.config["endpoints"] = {"default": ".hashing-dense"}
    assert job.run() == 0
    assert job.ids({"match_all": {}}) == ["a"]


def test_paths_with_every_character(tmp_path):
    folder = tmp_path / "data [v2] 50%#?"
    folder.mkdir()
    job = Job(tmp_path, lines(folder / "in.jsonl", {"_id": "a", "text": "one"}), name="out [v2] 50%#?")
    for unchanged in (0, 1):
        assert job.run() == 0
        assert job.summary["documents"].get("unchanged", 0) == unchanged
    assert job.run(command="verify") == 0
    assert job.ids(["_id=a"]) == ["a"]


def test_a_new_type_is_cast_from_the_documents_or_refused_with_the_rows(tmp_path, capsys):
    source = lines(
        tmp_path / "in.jsonl", {"_id": "a", "text": "one", "n": "5"}, {"_id": "b", "text": "two", "n": "x"}
    )
    job = Job(tmp_path, source, n={"type": "keyword"})
    assert job.run(sync="incremental") == 0
    lines(source, {"_id": "c", "text": "three", "n": 7})
    job.config["mappings"]["properties"]["n"] = {"type": "long"}
    assert job.run() == 1
    assert "[b]: field [n] holds a str that is no long" in capsys.readouterr().err
    lines(source, {"_id": "b", "text": "two", "n": 6}, {"_id": "c", "text": "three", "n": 7})
    assert job.run() == 0
    assert {id_: row["n"] for id_, row in job.rows().items()} == {"a": 5, "b": 6, "c": 7}


def test_skipped_files_are_told_by_check_plan_and_run(tmp_path, capsys):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "_draft.md").write_text("# Draft\n\ntext")
    for name in ("a.pdf", "b.docx"):
        (docs / name).write_bytes(b"x")
    job = Job(tmp_path, docs)
    for command in ("check", "plan", "run"):
        assert job.run(command=command, format="markdown") == 0
        assert "skipped 1 .docx, 1 .pdf" in capsys.readouterr().out.replace(
            "1 .pdf, 1 .docx", "1 .docx, 1 .pdf"
        )
    assert list(job.rows()) == ["_draft.md"]


def test_files_that_cannot_be_read_cost_themselves(tmp_path, capsys):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "good.txt").write_text("one")
    with open(os.fsencode(docs) + b"/caf\xe9.txt", "w") as handle:
        handle.write("text")
    job = Job(tmp_path, docs)
    assert job.run("--set", "failures.max_ratio=1", format="text") == 0
    assert list(job.rows()) == ["good.txt"]
    assert "not valid UTF-8; rename" in Path(job.summary["failures_path"]).read_text()


def test_documents_are_accounted_for(tmp_path):
    documents = [{"_id": n % 40, "text": f"one {n}", "gone": n % 10 == 0} for n in range(60)]
    data = "".join(json.dumps(document) + "\n" for document in documents).encode()
    unclear = b'{"_id": 5, "text": "of an id that another document has", "gone": "perhaps"}\n'
    (tmp_path / "in.jsonl.gz").write_bytes(
        gzip.compress(data + b"not json\n" + b'{"text": "no id"}\n' + unclear)
    )
    job = Job(tmp_path, tmp_path / "in.jsonl.gz")
    assert job.run("--set", "failures.max_ratio=1", deleted="gone") == 0
    counts = job.summary["documents"]
    deleted = 40 - len(job.rows())
    assert len(job.rows()) + counts["failed"] + counts["duplicates"] + deleted == 63
    assert counts["failed"] == 3
    assert "5" in job.rows()


def test_a_key_twice_in_a_config_is_an_error_with_both_lines(tmp_path, capsys):
    job = Job(tmp_path, lines(tmp_path / "in.jsonl", {"_id": "a", "text": "one"}))
    job.run(command="check")
    path = tmp_path / "run.yaml"
    path.write_text(path.read_text() + "source: {format: jsonl, path: x}\n")
    assert main(["run", str(path)]) == 2
    assert "line 11" in (told := capsys.readouterr().err) or "source" in told
    assert "twice" in told


def test_queries_may_begin_with_a_bom_and_hold_any_line_separator(tmp_path):
    path = tmp_path / "queries.jsonl"
    path.write_text('\ufeff{"_id": "q1", "text": "a\u2028b"}\n{"_id": "q2", "text": "c"}\n')
    assert load_queries(path) == {"q1": "a\u2028b", "q2": "c"}
