"""Measures equal those computed by hand, intervals and tests behave, and files of every format are read."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.index_table import IndexTable
from support.paths import ROOT

from pipeline.__main__ import main
from pipeline.errors import PipelineError
from pipeline.evaluation.evaluate import Evaluation, compare_version, evaluate, evaluate_index
from pipeline.evaluation.judgements import load_qrels, load_queries
from pipeline.evaluation.page import recall_curve, report_html
from pipeline.evaluation.statistics import holm, paired_test, paired_tests
from pipeline.search.open_index import SearchIndex
from pipeline.search.pruning import Pruning
from transforms.index.update import update_index

XQUAD = ROOT / "data" / "xquad"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> IndexTable:
    table = IndexTable(tmp_path_factory.mktemp("evaluate") / "table")
    documents = [json.loads(line) for line in (XQUAD / "corpus.jsonl").read_text().splitlines()]
    rows = [{"_id": one["_id"], "text": one["text"], "year": at} for at, one in enumerate(documents)]
    table.put(*rows[:120])
    table.put(*rows[120:])
    return table


@pytest.fixture(scope="module")
def index(table: IndexTable, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("evaluate") / "index")
    update_index(table.path, path)
    return path


@pytest.fixture(scope="module")
def evaluation(index: str) -> Evaluation:
    queries = list(load_queries(XQUAD / "queries.jsonl").items())[::5]
    return evaluate(index, dict(queries), load_qrels(XQUAD / "qrels.tsv"))


def test_measures_are_those_of_the_formulas(evaluation: Evaluation) -> None:
    for result in evaluation.modes.values():
        ndcg, recall, mrr = [], [], []
        for query in evaluation.queries:
            (relevant,) = evaluation.qrels[query]
            ranked = list(result.run[query])
            rank = ranked.index(relevant) + 1 if relevant in ranked else 10**9
            ndcg.append(1 / np.log2(rank + 1) if rank <= 10 else 0)
            mrr.append(1 / rank if rank <= 10 else 0)
            recall.append(float(rank <= 100))
        assert result.values["ndcg@10"].tolist() == pytest.approx(ndcg)
        assert result.values["mrr@10"].tolist() == pytest.approx(mrr)
        assert result.values["recall@100"].tolist() == pytest.approx(recall)


def test_quality_is_what_bags_of_words_reach(evaluation: Evaluation) -> None:
    assert evaluation.modes["bm25"].mean("ndcg@10") > 0.9
    assert evaluation.modes["sparse"].mean("ndcg@10") > 0.85
    assert evaluation.modes["hybrid"].mean("ndcg@10") > evaluation.modes["dense"].mean("ndcg@10")


def test_intervals_hold_the_mean_and_tests_find_real_differences(evaluation: Evaluation) -> None:
    for result in evaluation.modes.values():
        low, high = result.interval("ndcg@10")
        values = result.values["ndcg@10"]
        assert low < result.mean("ndcg@10") < high
        assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(len(values)), rel=0.15)
    by_pair = {(one.first, one.second): one.p for one in evaluation.tests("ndcg@10")}
    assert by_pair["bm25", "dense"] < 0.01
    values = evaluation.modes["bm25"].values["ndcg@10"]
    assert paired_test(values, values) == (0.0, 1.0)


def test_a_paired_test_is_right_about_chance() -> None:
    random = np.random.default_rng(5)
    rejected = 0
    for _ in range(100):
        first, second = random.random((2, 40))
        rejected += paired_test(first, second)[1] < 0.05
    assert rejected <= 14


def test_p_values_of_several_tests_are_corrected() -> None:
    """The example of Wikipedia's article on Holm's method, by hand: 4 x 0.005, 3 x 0.01, then never less."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2, 0.9]) == pytest.approx([0.4, 0.9])
    assert holm([0.7, 0.8]) == [1, 1]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_corrected_tests_seldom_find_what_is_not_there() -> None:
    random = np.random.default_rng(7)
    alone = corrected = 0
    for _ in range(60):
        values = random.random((10, 30))
        tests = paired_tests([("a", values[2 * at], "b", values[2 * at + 1]) for at in range(5)])
        alone += any(one.p < 0.05 for one in tests)
        corrected += any(one.p_holm < 0.05 for one in tests)
    assert corrected <= 8 < alone


def test_a_filter_measures_its_documents_among_themselves(index: str) -> None:
    """The first version of the table holds just the documents that the filter lets through."""
    queries, qrels = load_queries(XQUAD / "queries.jsonl"), load_qrels(XQUAD / "qrels.tsv")
    some = dict(list(queries.items())[::9])
    found = evaluate(index, some, qrels, modes=["dense"], filter="year<120 AND year>=0")
    assert 0 < len(found.queries) < len(some)
    ids = {id_ for run in found.modes["dense"].run.values() for id_ in run}
    assert ids == {f"d{number}" for number in range(120)}
    alone = compare_version(SearchIndex(index), 1, evaluate(index, found.queries, qrels, modes=["dense"]))
    assert found.modes["dense"].values["ndcg@10"].tolist() == pytest.approx(
        alone.modes["dense"].values["ndcg@10"].tolist()
    )
    again = evaluate(index, some, qrels, modes=["dense"], filter={"range": {"year": {"lt": 120}}})
    assert again.modes["dense"].run == found.modes["dense"].run
    with pytest.raises(PipelineError, match="has a judgement of a document that the filter lets through"):
        evaluate(index, some, qrels, filter="year>9000")


def test_versions_are_compared_under_a_filter(index: str) -> None:
    queries, qrels = load_queries(XQUAD / "queries.jsonl"), load_qrels(XQUAD / "qrels.tsv")
    now = evaluate(index, queries, qrels, modes=["bm25"], filter="year>=100")
    before = compare_version(SearchIndex(index), 1, now, modes=["bm25"])
    assert before.queries == now.queries
    assert {id_ for run in before.modes["bm25"].run.values() for id_ in run} <= {
        f"d{number}" for number in range(100, 120)
    }
    assert now.compared(before)["modes"]["bm25"]["ndcg@10"]["p_holm"] < 0.01


def test_per_query_results_are_a_parquet_file(evaluation: Evaluation, tmp_path: Path) -> None:
    pq.write_table(evaluation.to_table(), tmp_path / "queries.parquet")
    rows = pq.read_table(tmp_path / "queries.parquet").to_pylist()
    assert len(rows) == len(evaluation.modes) * len(evaluation.queries)
    assert rows[0]["mode"] == "bm25"
    assert len(rows[0]["documents"]) == len(rows[0]["scores"]) == 10
    assert np.mean([row["map"] for row in rows if row["mode"] == "bm25"]) == pytest.approx(
        evaluation.modes["bm25"].mean("map")
    )


def test_two_versions_are_compared(index: str, evaluation: Evaluation) -> None:
    before = compare_version(SearchIndex(index), 1, evaluation, modes=["bm25"])
    compared = evaluation.compared(before)
    assert compared["table_version"] == 1
    change = compared["modes"]["bm25"]["ndcg@10"]
    assert change["difference"] > 0.3  # the first version has half of the documents
    assert change["p"] < 0.01
    assert "ndcg@10, bm25: version 2 minus 1" in report_html(evaluation, before)


def test_a_field_alone_can_be_evaluated(index: str) -> None:
    measures = evaluate_index(
        index,
        str(XQUAD / "queries.jsonl"),
        str(XQUAD / "qrels.tsv"),
        modes=["bm25", "dense"],
        field="text_dense",
    )
    assert list(measures) == ["bm25", "dense"]
    assert set(measures["dense"]) == {"ndcg@10", "recall@100", "mrr@10", "map"}


def test_recall_curves_by_hand() -> None:
    run = {"q": {"a": 3.0, "b": 2.0, "c": 1.0}, "r": {}}
    assert recall_curve(run, {"q": {"b": 1, "x": 1}, "r": {"a": 1}}, 4) == [0, 0.25, 0.25, 0.25]


def test_the_report_is_one_page(evaluation: Evaluation) -> None:
    page = report_html(evaluation)
    assert page.count("<svg") == 1 + len(evaluation.modes) - 1
    assert "<script" not in page
    assert "hybrid minus dense" in page
    assert "corrected by Holm&#x27;s method for 6 pairs" in page.replace("'", "&#x27;")
    assert "leave out tokens" not in page
    assert "leave out tokens by Elasticsearch's rule, at 5 and 0.4" in report_html(
        replace(evaluation, pruning=Pruning())
    )
    for mode in evaluation.modes:
        assert f"Worst queries of {mode}" in page


def test_the_command_prints_and_writes(index: str, tmp_path: Path, capsys: Any) -> None:
    argv = ["evaluate", index, "--queries", str(XQUAD / "queries.jsonl"), "--qrels", str(XQUAD / "qrels.tsv")]
    more = [
        "--per-query",
        str(tmp_path / "q.parquet"),
        "--report",
        str(tmp_path / "r.html"),
        "--modes",
        "bm25,dense",
    ]
    assert main([*argv, *more, "--format", "json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["modes"]["dense"]) == {"ndcg@10", "recall@100", "mrr@10", "map"}
    assert (tmp_path / "q.parquet").stat().st_size > 1000
    assert "<svg" in (tmp_path / "r.html").read_text()
    assert main([*argv, "--modes", "bm25", "--compare", "1"]) == 0
    assert "version 2 minus 1" in capsys.readouterr().out
    assert main([*argv, "--modes", "bm25,dense", "--filter", "year<120", "--filter", "year>=3"]) == 0
    shown = capsys.readouterr().out
    assert "among the documents that the filter lets through" in shown
    assert "dense minus bm25" in shown
    assert main([*argv, "--filter", "year<120", "--against", "http://127.0.0.1:1/x"]) == 1
    assert "--filter does not go with --against" in capsys.readouterr().err
    assert main([*argv, "--modes", "best"]) == 1
    assert "unknown mode [best]" in capsys.readouterr().err


def test_judgements_of_both_formats(tmp_path: Path) -> None:
    (tmp_path / "beir.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td 1\t2\nq1\td2\t0\n")
    (tmp_path / "trec").write_text("q1 0 d1 2\nq2 Q0 d2 -1\n")
    assert load_qrels(tmp_path / "beir.tsv") == {"q1": {"d 1": 2, "d2": 0}}
    assert load_qrels(tmp_path / "trec") == {"q1": {"d1": 2}, "q2": {"d2": -1}}


def test_queries_of_three_formats(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"_id": "1", "text": "one"}\n\n{"_id": 2, "text": "two"}\n')
    (tmp_path / "q.tsv").write_text('1\tone "quoted\n2\ttwo\n')
    (tmp_path / "q.trec").write_text(
        "<top>\n<num> Number: 1\n<title> Topic: one\n<desc> x\n</top>\n"
        "<top><num>2</num><title>two</title></top>"
    )
    assert load_queries(tmp_path / "q.jsonl") == {"1": "one", "2": "two"}
    assert load_queries(tmp_path / "q.tsv") == {"1": 'one "quoted', "2": "two"}
    assert load_queries(tmp_path / "q.trec") == {"1": "one", "2": "two"}


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (load_queries, '{"_id": "1"}\n', "line 1: not a query of the form"),
        (load_queries, "just words", "line 1: not a query of the form id<tab>text"),
        (load_queries, "", "holds no queries"),
        (load_qrels, "query-id\tcorpus-id\tscore\n", "holds no judgements"),
        (load_qrels, "q1\td1\t1\nq1\td2\tmuch\n", "line 2: not a judgement"),
    ],
)
def test_files_that_are_neither_are_named(tmp_path: Path, read: Any, content: str, message: str) -> None:
    path = tmp_path / "file"
    path.write_text(content)
    with pytest.raises(PipelineError, match=message):
        read(path)


def test_relevant_documents_that_are_not_there_are_told(index: str, caplog: pytest.LogCaptureFixture) -> None:
    judged = {"q": {"d1": 1, "docs/d2": 1, "d3.md": 2, "nothing": 0}}
    evaluate(index, {"q": "panthers"}, judged, modes=["bm25"])
    (record,) = caplog.records
    assert "2 of 3 relevant documents are not in the index" in record.getMessage()
    assert "for example [d3.md]; ids there look like [d" in record.getMessage()
    caplog.clear()
    evaluate(index, {"q": "panthers"}, {"q": {"d1": 1}}, modes=["bm25"])
    assert caplog.records == []


def test_queries_without_judgements_are_an_error(index: str) -> None:
    with pytest.raises(PipelineError, match="no query has a judgement"):
        evaluate(index, {"a": "text"}, {"b": {"d1": 1}})


def test_a_version_that_is_gone_is_a_clear_error(index: str, evaluation: Evaluation) -> None:
    with pytest.raises(PipelineError, match="has no version 99"):
        compare_version(SearchIndex(index), 99, evaluation)
