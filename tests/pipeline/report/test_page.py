"""report.html: what it shows of a run, and what it does not."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

from support.nights import document

from pipeline.journal import read_journal
from pipeline.report.page import bars, histogram_bars, rates, render_report
from pipeline.report.run_json import GateResult, RunSummary


class Page(HTMLParser):
    """Collects what a page refers to and shows."""

    def __init__(self, text):
        super().__init__()
        self.outside, self.words, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.outside += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def page(job):
    return Page((job.folder / "report.html").read_text())


def test_the_report_tells_the_run_and_stands_alone(job):
    job.config["failures"]["max_ratio"] = 0.5
    job.write([*(document(number) for number in range(12)), b"not json", b"[]"])
    assert job.run() == 0
    job.write([document(number, 1) for number in range(12)])
    assert job.run() == 0
    found = page(job)
    assert found.outside == ["run.json", "runs.jsonl"], "files beside it, nothing from elsewhere"
    assert "script" not in found.tags
    assert "@import" not in (job.folder / "report.html").read_text()
    assert "url(" not in (job.folder / "report.html").read_text()
    assert job.summary["run_id"] in found.text
    assert "12 changed" in found.text
    for heading in ("What changed", "Failures", "Time", "Lengths of the chunks written", "The last runs"):
        assert heading in found.text
    assert "tokens a chunk" in found.text
    assert "words a chunk" in found.text
    assert found.tags.count("rect") > 10


def test_the_report_holds_no_text_of_a_document(job):
    job.write([*(document(number) for number in range(12)), b'{"_id": 7e999}', b"secret words not json"])
    assert job.run() == 0
    text = (job.folder / "report.html").read_text() + (job.folder / "run.json").read_text()
    for words in ("red fox", "Edition 0", "secret words", "Title 3"):
        assert words not in text


def test_the_report_shows_failures_by_reason(job):
    job.write([*(document(number) for number in range(12)), b"not json", b"[]"])
    assert job.run() == 0
    found = page(job)
    assert "read: BadDocumentError 2" in found.text
    links = [unquote(link) for link in found.outside]
    assert len(set(links)) == 3
    assert all((job.folder / link).is_file() for link in links)
    assert job.summary["failures_path"] in found.text


def test_a_failure_report_in_an_object_store_is_named_without_a_link():
    record = RunSummary(status="done", failures_by_reason={"read: X": 1}, failures_path="s3://bucket/f.jsonl")
    found = Page(render_report(record, [], Path("/somewhere")))
    assert "s3://bucket/f.jsonl" in found.text
    assert found.outside == ["run.json", "runs.jsonl"]


def test_what_was_skipped_has_a_section_of_its_own(job):
    assert job.run() == 0
    assert "What was skipped Nothing." in page(job).text
    summary = {**job.summary, "truncated": 3, "skipped_files": {".exe": 2, ".log": 1}}
    summary["documents"] |= {"duplicates": 1_200, "held_back": 4}
    text = Page(render_report(RunSummary(**summary), [])).text
    for words in (
        "2 files (.exe): the source's format does not read them",
        "1 files (.log)",
        "1,200 documents: a later one has the same id",
        "4 deletions: they wait",
        "3 chunks: longer than the model's window",
    ):
        assert words in text


def test_nothing_in_the_report_reads_like_python(job):
    job.write([*(document(number) for number in range(12)), b"not json"])
    assert job.run() == 0
    for text in (page(job).text, (job.folder / "report.html").read_text()):
        assert not re.search(r"\{'|'\}|\['|None\b(?!\.)|\bTrue\b|datetime\(|UTC\+", text)


def test_a_failed_run_is_reported_too_and_compared_with_the_last_ones(job):
    assert job.run() == 0
    job.config["failures"]["max_ratio"] = 0.0
    job.write([document(1), b"broken"])
    assert job.run("--allow-mass-delete") == 4
    found = page(job)
    assert "failed" in found.text
    assert "more than failures.max_ratio" in found.text
    runs = read_journal(job.folder / "runs.jsonl")
    assert [run["status"] for run in runs] == ["done", "failed"]
    assert found.text.count("done") == 1


def test_a_report_escapes_what_it_shows(job):
    assert job.run() == 0
    summary = RunSummary(**{**job.summary, "error": "<script>alert(1)</script>", "status": "failed"})
    assert "<script>" not in render_report(summary, [])


def test_gates_are_in_the_report(job):
    assert job.run() == 0
    gates = [
        GateResult("ndcg@10", 0.61, 0.7, ("dropped by 0.09, more than 0.02",)),
        GateResult("failures", 0.0, None, ()),
    ]
    text = Page(render_report(RunSummary(**{**job.summary, "gates": gates}), [])).text
    assert "ndcg@10 0.61 0.7 dropped by 0.09, more than 0.02" in text
    assert "failures 0 – passed" in text


def test_a_run_that_never_began_has_a_report():
    record = RunSummary(status="failed", seconds=0.1, error="the source cannot be read")
    assert "not begun" in Page(render_report(record, [])).text


def test_bars_are_to_scale():
    laid = bars([("a", 2.0), ("b", 4.0), ("c", 0.0)], width=30, height=100)
    assert [bar.height for bar in laid] == [50, 100, 0]
    assert [bar.y for bar in laid] == [50, 0, 100]
    assert [round(bar.x) for bar in laid] == [1, 11, 21]
    assert bars([]) == []


def test_rates_are_what_came_between_two_samples():
    samples = [(1.0, 10, 20, 100), (3.0, 30, 60, 500), (3.0, 30, 60, 500)]
    assert rates(samples, 1) == [("1.0 s", 10.0), ("3.0 s", 10.0)]
    assert rates(samples, 3) == [("1.0 s", 100.0), ("3.0 s", 200.0)]


def test_histograms_keep_every_chunk_and_show_gaps():
    laid = histogram_bars({"1": 2, "5": 3, "6": 1, "40": 4})
    assert sum(bar.value for bar in laid) == 10
    assert [(bar.label, bar.value) for bar in laid if bar.value] == [("≤ 1", 2), ("≤ 6", 4), ("≤ 48", 4)]
    assert len(laid) > 3
    assert histogram_bars({}) == []
