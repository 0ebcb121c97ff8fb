"""The whole job through the front door, with real files and the fast hashing endpoints."""

import json

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from support.small_run import SmallRun, document

from models.endpoints.registry import Registry
from models.open_model import open_model
from models.text import Utf16Text


@pytest.fixture
def job(tmp_path):
    """A config and a corpus of ten documents."""
    job = SmallRun(tmp_path)
    job.write([document(number) for number in range(10)])
    return job


def embed(inference_id, texts):
    """Embed directly, without a pipeline."""
    return open_model(Registry().get(inference_id)).load().embed(texts, "ingest")


def test_the_pipeline_equals_the_direct_computation(job):
    assert job.run() == 0
    rows = job.rows()
    assert sorted(rows) == sorted(f"d{number}" for number in range(10))
    for number in range(10):
        expected, row = document(number), rows[f"d{number}"]
        assert json.loads(row["_source"]) == {key: value for key, value in expected.items() if key != "_id"}
        assert (row["title"], row["year"]) == (expected["title"], expected["year"])
        chunks = row["dense"]["chunks"]
        assert [chunk["source_field"] for chunk in chunks].count("title") == 1
        texts = [
            Utf16Text(expected[chunk["source_field"]]).slice(chunk["start_offset"], chunk["end_offset"])
            for chunk in chunks
        ]
        assert "".join(texts) == expected["title"] + expected["text"]
        assert len(texts) > 2, "the documents must be long enough to be chunked"
        vectors = np.array([chunk["embeddings"] for chunk in chunks], np.float32)
        np.testing.assert_array_equal(vectors, embed(".hashing-dense", texts).values)
        texts = [
            expected["text"][chunk["start_offset"] : chunk["end_offset"]] for chunk in row["sparse"]["chunks"]
        ]
        weights = embed(".hashing-sparse", texts)
        for place, chunk in enumerate(row["sparse"]["chunks"]):
            assert dict(chunk["embeddings"]) == pytest.approx(weights.row(place))


def test_real_readers_read_the_table(job):
    assert job.run() == 0
    frame = pl.scan_delta(job.table_path).select("_id", pl.col("dense").struct.field("chunks")).collect()
    assert frame.height == 10
    assert len(frame["chunks"][0][0]["embeddings"]) == 64
    relation = DeltaTable(job.table_path).to_pyarrow_dataset()
    counted = duckdb.sql("select count(*), max(year) from relation").fetchall()
    assert counted == [(10, 2009)]
    assert relation.count_rows() == 10


def test_a_second_run_embeds_nothing_and_commits_nothing(job):
    assert job.run() == 0
    assert job.run() == 0
    assert job.version() == 1
    assert job.summary["documents"]["unchanged"] == 10
    assert (job.summary["chunks"], job.summary["table_version"]) == (0, 1)


def test_adds_changes_and_deletes_are_one_commit(job):
    assert job.run() == 0
    before = job.rows()
    job.write([document(0, edition=1), *(document(number) for number in range(2, 11))])
    assert job.run() == 0
    assert job.version() == 2
    documents = job.summary["documents"]
    assert (documents["added"], documents["changed"], documents["deleted"], documents["unchanged"]) == (
        1,
        1,
        1,
        8,
    )
    after = job.rows()
    assert sorted(after) == sorted({*before, "d10"} - {"d1"})
    assert after["d0"] != before["d0"]
    assert all(after[name] == before[name] for name in after if name not in ("d0", "d10"))


def test_the_result_of_increments_equals_a_rebuild(job, tmp_path_factory):
    for edition in range(3):
        job.write(
            [document(number, edition if number % 3 == edition else 0) for number in range(edition, 12)]
        )
        assert job.run() == 0
    fresh = SmallRun(tmp_path_factory.mktemp("fresh"))
    fresh.corpus.write_bytes(job.corpus.read_bytes())
    assert fresh.run() == 0
    assert job.rows() == fresh.rows()


def test_only_the_chunks_whose_text_changed_are_embedded(job):
    assert job.run() == 0
    first = job.summary
    job.write([document(0, edition=1), *(document(number) for number in range(1, 10))])
    assert job.run() == 0
    second = job.summary
    per_document = first["chunks"] / 10
    assert second["chunks"] == pytest.approx(per_document, abs=1)
    assert 0 < second["embedded"] < second["reused"]
    assert second["rewritten_parts"] == 1


def test_changing_one_field_embeds_only_that_field(job):
    assert job.run() == 0
    before = job.rows()
    chunking = job.config["mappings"]["properties"]["sparse"]["chunking_settings"]
    chunking["max_chunk_size"] = 30
    assert job.run() == 0
    after = job.rows()
    dense_chunks = sum(len(row["dense"]["chunks"]) for row in after.values())
    assert job.summary["documents"]["changed"] == 10
    assert job.summary["reused"] >= dense_chunks
    assert all(after[name]["dense"] == before[name]["dense"] for name in before)
    assert any(after[name]["sparse"] != before[name]["sparse"] for name in before)


def test_a_new_column_changes_the_schema_in_the_same_commit(job):
    assert job.run() == 0
    del job.config["mappings"]["properties"]["sparse"]
    job.config["mappings"]["properties"]["text"]["copy_to"] = ["dense"]
    assert job.run() == 0
    names = {field.name for field in DeltaTable(job.table_path).schema().fields}
    assert "sparse" not in names
    assert job.version() == 3
    assert job.summary["embedded"] == 0


def test_a_bad_document_costs_exactly_itself(job):
    job.write([document(0), b"{broken", {"_id": "d2", "text": {"an": "object"}}, document(3)])
    assert job.run() == 0
    assert sorted(job.rows()) == ["d0", "d3"]
    (report,) = (job.folder / "failures").iterdir()
    failures = [json.loads(line) for line in report.read_text().splitlines()]
    places = [(one["stage"], one["line"], one["document_id"]) for one in failures]
    assert places == [("read", 2, None), ("read", 3, "d2")]
    assert "broken" not in report.read_text(), "a failure report never holds the text"
    assert job.summary["documents"]["failed"] == 2


def test_a_failed_document_keeps_its_row_and_is_tried_again(job):
    assert job.run() == 0
    before = job.rows()
    broken = {"_id": "d2", "text": [{"an": "object"}]}
    job.write([document(0), document(1), broken, *(document(number) for number in range(3, 10))])
    assert job.run() == 0
    assert job.rows() == before
    assert job.summary["documents"]["failed"] == 1
    job.write([document(0), document(1), document(2, 7), *(document(number) for number in range(3, 10))])
    assert job.run() == 0
    assert "Edition 7" in job.rows()["d2"]["_source"]


def test_too_many_failures_stop_the_run_and_publish_nothing(job, capsys):
    job.config["failures"]["max_ratio"] = 0.1
    job.write([document(0), b"{broken", document(1)])
    assert job.run() == 4
    assert not DeltaTable.is_deltatable(job.table_path)
    error = capsys.readouterr().err
    assert "1 of 3 documents failed, more than failures.max_ratio [0.1] allows" in error
    assert f"It is listed in {job.summary['failures_path']}" in error
    assert "--set failures.max_ratio=0.4 publishes the others" in error
    assert job.run("--set", "failures.max_ratio=0.4") == 0


def test_the_later_of_two_documents_with_one_id_wins(job):
    job.write([document(0), document(1), document(0, edition=5)])
    assert job.run() == 0
    assert job.summary["documents"]["duplicates"] == 1
    assert "Edition 5" in job.rows()["d0"]["_source"]


def test_unreadable_lines_hold_deletions_back(job):
    assert job.run() == 0
    job.write([*(document(number) for number in range(9)), b"{this was document 9"])
    assert job.run() == 0
    assert len(job.rows()) == 10
    assert job.summary["documents"]["held_back"] == 1


def test_a_mass_deletion_is_refused_unless_it_is_wanted(job, capsys):
    assert job.run() == 0
    job.write([document(0)])
    assert job.run() == 1
    assert "would delete 9 of the table's 10 documents" in capsys.readouterr().err
    assert len(job.rows()) == 10
    assert job.run("--allow-mass-delete") == 0
    assert sorted(job.rows()) == ["d0"]


def test_an_empty_source_is_an_error_not_a_deletion(job, capsys):
    assert job.run() == 0
    job.write([])
    assert job.run("--allow-mass-delete") == 1
    assert "An empty source is an error" in capsys.readouterr().err
    job.corpus.unlink()
    assert job.run("--allow-mass-delete") == 1
    assert len(job.rows()) == 10


def test_an_incremental_sync_deletes_only_what_it_is_told(job):
    assert job.run() == 0
    deletions = job.folder / "deletions.txt"
    deletions.write_text("d5\n")
    job.config["source"] |= {"sync": "incremental", "deleted": "deleted", "deletions": str(deletions)}
    job.write([document(20), {"_id": "d3", "deleted": True}])
    assert job.run() == 0
    assert sorted(job.rows()) == sorted({f"d{number}" for number in range(10)} - {"d3", "d5"} | {"d20"})


def test_documents_without_text_are_rows_without_chunks(job):
    job.write([document(0), {"_id": "empty", "text": "", "title": "  "}, {"_id": "none", "year": 1}])
    assert job.run() == 0
    rows = job.rows()
    assert rows["empty"]["dense"] is None
    assert (rows["none"]["sparse"], rows["none"]["year"]) == (None, 1)


def test_an_array_is_chunked_value_by_value_with_elastic_offsets(job):
    job.write([{"_id": "a", "text": ["one 😀", "", "two"]}])
    assert job.run() == 0
    chunks = job.rows()["a"]["sparse"]["chunks"]
    assert [(chunk["start_offset"], chunk["end_offset"]) for chunk in chunks] == [(0, 6), (8, 11)]


def test_a_value_with_more_than_512_chunks_is_folded(job):
    sentences = " ".join(f"Word{number} stands here." * 3 for number in range(1200))
    job.write([{"_id": "long", "text": sentences}])
    job.config["mappings"]["properties"]["sparse"]["chunking_settings"] |= {"sentence_overlap": 0}
    assert job.run() == 0
    assert len(job.rows()["long"]["sparse"]["chunks"]) == 512
    assert job.summary["merged"] > 0


def test_two_runs_at_once_with_a_lock(job, capsys):
    from pipeline.table.open_runs import table_lock

    with table_lock(job.table_path):
        assert job.run("--lock") == 1
    assert "another run of the table" in capsys.readouterr().err
    assert job.run("--lock") == 0


def test_a_commit_on_top_of_another_runs_commit_is_refused(job, monkeypatch, capsys):
    import pipeline.run.job

    publish = pipeline.run.job.publish

    def publish_after_another(planned, changes, report):
        monkeypatch.setattr(pipeline.run.job, "publish", publish)
        assert SmallRun.run(job) == 0
        return publish(planned, changes, report)

    assert job.run() == 0
    job.write([document(number, edition=1) for number in range(10)])
    monkeypatch.setattr(pipeline.run.job, "publish", publish_after_another)
    assert job.run() == 1
    assert "another run has changed the table" in capsys.readouterr().err
    assert job.version() == 2
    assert len(job.rows()) == 10
    assert job.run() == 0
    assert job.summary["chunks"] == 0


def test_run_json_says_how_it_was_made(job):
    assert job.run() == 0
    record = job.summary
    assert record["status"] == "done"
    assert record["config"]["source"]["max_delete_ratio"] == 0.2
    assert record["versions"]["apache-beam"].startswith("2.77")
    assert set(record["timings"]) >= {"scan", "plan", "embed", "commit", "index"}
    commit = DeltaTable(job.table_path).history(1)[0]
    assert commit["semantic_ingest"]["run_id"] == record["run_id"]


def test_plan_says_what_a_run_would_do_and_changes_nothing(job, capsys):
    assert job.run() == 0
    job.write([document(0, edition=1), *(document(number) for number in range(2, 12))])
    capsys.readouterr()
    assert job.run("--format", "json", command="plan") == 0
    forecast = json.loads(capsys.readouterr().out)
    assert (
        forecast["documents"]["added"],
        forecast["documents"]["changed"],
        forecast["documents"]["deleted"],
    ) == (2, 1, 1)
    assert job.version() == 1
    runs = (job.folder / "table" / "_runs").iterdir()
    assert not [entry.name for entry in runs if not entry.name.startswith(".")]  # a lock may lie there
    assert job.run() == 0
    for name in ("chunks", "reused", "tokens", "truncated"):
        assert forecast[name] == job.summary[name], name


@pytest.mark.parametrize("source_format", ["csv", "parquet"])
def test_other_formats_give_the_same_rows(job, tmp_path_factory, source_format):
    assert job.run() == 0
    other = SmallRun(tmp_path_factory.mktemp("other"))
    table = pa.Table.from_pylist([document(number) for number in range(10)])
    path = other.folder / f"corpus.{source_format}"
    if source_format == "csv":
        import pyarrow.csv

        pyarrow.csv.write_csv(table, path)
    else:
        import pyarrow.parquet

        pyarrow.parquet.write_table(table, path)
    other.config["source"] = {"format": source_format, "path": str(path)}
    assert other.run() == 0
    assert [row["dense"] for row in other.rows().values()] == [row["dense"] for row in job.rows().values()]


def test_search_finds_what_was_published_last(job, capsys):
    assert job.run() == 0
    job.write(
        [
            {"_id": "new", "title": "Zebra", "text": "Zebras graze on the savannah."},
            *(document(n) for n in range(10)),
        ]
    )
    assert job.run() == 0
    capsys.readouterr()
    for mode, field in (("bm25", "text"), ("sparse", "sparse"), ("dense", "dense"), ("hybrid", None)):
        arguments = [
            "zebras graze",
            "--mode",
            mode,
            "--format",
            "json",
            *(["--field", field] if field else []),
        ]
        assert job.run(*arguments, command="search") == 0
        assert json.loads(capsys.readouterr().out)["hits"][0]["_id"] == "new", mode


def test_a_row_whose_document_fails_when_the_model_changes_never_mixes_models(job, capsys):
    assert job.run() == 0
    job.config["mappings"]["properties"]["dense"]["inference_id"] = "wide"
    job.config["endpoints"] = {"path": str(job.folder / "endpoints")}
    (job.folder / "endpoints").mkdir()
    body = {"service": "hashing", "service_settings": {"dimensions": 32}}
    (job.folder / "endpoints" / "wide.json").write_text(json.dumps({"task_type": "text_embedding", **body}))
    broken = {"_id": "d2", "text": [{"an": "object"}]}
    job.write([document(0), document(1), broken, *(document(number) for number in range(3, 10))])
    assert job.run() == 0, capsys.readouterr().err
    rows = job.rows()
    assert rows["d2"]["dense"] is None
    assert len(rows["d1"]["dense"]["chunks"][0]["embeddings"]) == 32
    assert rows["d2"]["sparse"] is not None
    before = job.version()
    assert job.run() == 0
    assert job.version() == before, "the same failure again changes nothing"
    job.write([document(number) for number in range(10)])
    assert job.run() == 0
    assert len(job.rows()["d2"]["dense"]["chunks"][0]["embeddings"]) == 32


def test_an_incremental_sync_cannot_change_the_model(job, capsys):
    assert job.run() == 0
    job.config["mappings"]["properties"]["dense"]["inference_id"] = ".minilm-l6-v2"
    job.config["source"]["sync"] = "incremental"
    job.write([document(3, edition=1)])
    assert job.run() == 1
    assert "9 of the table's 10 documents are not in what this run could read" in capsys.readouterr().err
    assert job.version() == 1
