"""Quality gates stop a bad snapshot before it is published."""

import json

import pytest
from support.small_run import SmallRun, document

from pipeline.config.run_config import GateConfig, GatesConfig
from pipeline.run.gates import _problems


@pytest.fixture
def job(tmp_path):
    """A run with a gate: each of ten questions has one right document."""
    queries, qrels = tmp_path / "queries.jsonl", tmp_path / "qrels.tsv"
    questions = [{"_id": f"q{number}", "text": f"edition of document {number}"} for number in range(10)]
    queries.write_text("".join(json.dumps(question) + "\n" for question in questions))
    qrels.write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"q{number}\td{number}\t1\n" for number in range(10))
    )
    gates = {"queries": str(queries), "qrels": str(qrels), "mode": "bm25", "field": "text"}
    job = SmallRun(tmp_path, gates={**gates, "measures": {"ndcg@10": {"min": 0.5, "max_drop": 0.05}}})
    job.write([document(number) for number in range(10)])
    return job


def test_a_good_snapshot_passes(job):
    assert job.run() == 0
    (gate,) = job.summary["gates"]
    assert gate["measure"] == "ndcg@10"
    assert gate["value"] >= 0.5
    assert job.version() == 1


def test_a_failing_gate_leaves_table_and_index_as_they_were(job, capsys):
    assert job.run() == 0
    before = job.rows()
    spoiled = [{**document(number), "text": f"Nothing of interest {number * 31}."} for number in range(10)]
    job.write(spoiled)
    assert job.run() == 3
    message = capsys.readouterr().err
    assert "ndcg@10 dropped by" in message
    assert "below min [0.5]" in message
    assert job.rows() == before
    assert job.version() == 1
    assert job.run("edition of document 3", "--mode", "bm25", "--format", "json", command="search") == 0
    assert json.loads(capsys.readouterr().out)["hits"][0]["_id"] == "d3"
    assert not (job.folder / "index.candidate").exists()


def test_after_a_failed_gate_nothing_is_embedded_twice(job):
    job.config["gates"]["measures"] = {"ndcg@10": {"min": 1.1}}
    assert job.run() == 3
    job.config["gates"]["measures"] = {"ndcg@10": {"min": 0.1}}
    assert job.run() == 0
    assert job.summary["documents"]["taken_over"] == 10
    assert job.summary["embedded"] == 0


def test_the_share_of_failures_can_be_a_gate(job):
    job.config["gates"] = {"measures": {"failures": {"max_ratio": 0.05}, "truncated": {"max_ratio": 0.0}}}
    job.write([document(0), b"{"])
    assert job.run() == 3
    job.write([document(0)])
    assert job.run() == 0


@pytest.mark.parametrize(
    ("bounds", "value", "published", "count"),
    [
        ({"min": 0.5}, 0.5, None, 0),
        ({"min": 0.5}, 0.49, None, 1),
        ({"max": 0.5}, 0.51, None, 1),
        ({"max_drop": 0.1}, 0.5, 0.59, 0),
        ({"max_drop": 0.1}, 0.5, 0.61, 1),
        ({"max_drop": 0.1}, 0.5, None, 0),
        ({"min": 0.6, "max_drop": 0.1}, 0.5, 0.7, 2),
    ],
)
def test_bounds(bounds, value, published, count):
    assert len(_problems("map", GateConfig(**bounds), value, published)) == count


def test_retrieval_measures_need_judgements():
    with pytest.raises(ValueError, match="needs `queries` and `qrels`"):
        GatesConfig(measures={"map": {"min": 0.1}})
