"""What a run leaves for people and for monitoring: report.html, runs.jsonl, Prometheus text, OpenTelemetry."""

import gzip
import json
import re
import threading
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families
from support.nights import NightRun, document

from pipeline.report.page import bars, histogram_bars, rates, render_report
from pipeline.report.record import KEPT_RUNS, read_runs
from pipeline.report.telemetry import opentelemetry_wanted, prometheus_text, write_prometheus
from pipeline.report.throughput import MOST_SAMPLES, Sampler
from transforms.handover.progress import ProgressFile


@pytest.fixture
def job(tmp_path):
    job = NightRun(tmp_path)
    job.write([document(number) for number in range(12)])
    return job


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


# report.html


def test_the_report_tells_the_run_and_stands_alone(job):
    job.config["failures"]["max_ratio"] = 0.5
    job.write([*(document(number) for number in range(12)), b"not json", b"[]"])
    assert job.run() == 0
    job.write([document(number, 1) for number in range(12)])
    assert job.run() == 0
    found = page(job)
    assert found.outside == []
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
    assert "read: BadDocumentError 2" in page(job).text


def test_a_failed_run_is_reported_too_and_compared_with_the_last_ones(job):
    assert job.run() == 0
    job.config["failures"]["max_ratio"] = 0.0
    job.write([document(1), b"broken"])
    assert job.run("--allow-mass-delete") == 4
    found = page(job)
    assert "failed" in found.text
    assert "more than failures.max_ratio" in found.text
    runs = read_runs(job.folder / "runs.jsonl")
    assert [run["status"] for run in runs] == ["done", "failed"]
    assert found.text.count("done") == 1


def test_a_report_escapes_what_it_shows(job):
    assert job.run() == 0
    record = {**job.summary, "error": "<script>alert(1)</script>", "status": "failed"}
    assert "<script>" not in render_report(record, [])


def test_gates_are_in_the_report(job):
    assert job.run() == 0
    gates = [
        {
            "measure": "ndcg@10",
            "value": 0.61,
            "published": 0.7,
            "problems": ["dropped by 0.09, more than 0.02"],
        },
        {"measure": "failures", "value": 0.0, "published": None, "problems": []},
    ]
    text = Page(render_report({**job.summary, "gates": gates}, [])).text
    assert "ndcg@10 0.61 0.7 dropped by 0.09, more than 0.02" in text
    assert "failures 0 – passed" in text


def test_a_run_that_never_began_has_a_report():
    record = {
        "status": "failed",
        "run_id": None,
        "started": None,
        "documents": {},
        "seconds": 0.1,
        "error": "the source cannot be read",
        **dict.fromkeys(
            ("chunks", "embedded", "reused", "tokens", "truncated", "merged", "tokens_per_second"), 0
        ),
        "table_version": None,
        "index_version": None,
        "failures_by_reason": {},
        "failures_path": None,
        "substitutions": {},
        "timings": {},
        "versions": {},
    }
    assert "not begun" in Page(render_report(record, [])).text


def test_runs_jsonl_is_bounded_and_survives_a_broken_line(job):
    path = job.folder / "runs.jsonl"
    old = {"run_id": "x", "status": "done", "seconds": 1.0, "started": None, "documents": {}, "chunks": 0}
    old |= {"embedded": 0, "tokens_per_second": 0.0, "table_version": 0}
    path.write_text("{broken\n" + (json.dumps(old) + "\n") * (KEPT_RUNS + 5))
    assert job.run() == 0
    runs = read_runs(path)
    assert len(runs) == KEPT_RUNS
    assert runs[-1]["run_id"] == job.summary["run_id"]


def test_a_record_that_cannot_be_written_costs_only_a_warning(job, capfd):
    job.config["telemetry"] = {"prometheus": str(job.corpus / "below-a-file" / "x.prom")}
    assert job.run() == 0
    assert "the run's record could not be written" in capfd.readouterr().err
    assert len(job.rows()) == 12


# the charts' arithmetic


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


def test_the_sampler_thins_itself_out_and_ends(tmp_path):
    progress = ProgressFile(str(tmp_path))
    with Sampler(str(tmp_path), interval=0.0005) as sampler:
        for _ in range(200):
            progress.add({"chunks": 2, "tokens": 30})
        progress.flush()
    assert len(sampler.samples) <= MOST_SAMPLES + 1
    assert sampler.samples[-1][1:] == (200, 400, 6000)
    with Sampler(None) as idle:
        pass
    assert idle.samples == []


# Prometheus


def parsed(path):
    """Read a text file with Prometheus' own parser: (metric, labels) -> value."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
    }


def test_the_prometheus_file_is_what_its_own_parser_reads(job):
    path = job.folder / "textfile" / "semantic_ingest.prom"
    job.config["telemetry"] = {"prometheus": str(path)}
    assert job.run() == 0
    table = ("table", job.table_path)
    found = parsed(path)
    assert found["semantic_ingest_last_run_success", (table,)] == 1
    assert found["semantic_ingest_documents", (("state", "added"), table)] == 12
    assert found["semantic_ingest_table_version", (table,)] == 0
    assert found["semantic_ingest_tokens", (table,)] == job.summary["tokens"]
    assert found["semantic_ingest_stage_seconds", (("stage", "embed"), table)] > 0
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "no temporary file is left"
    succeeded = found["semantic_ingest_last_success_timestamp_seconds", (table,)]

    job.config["failures"]["max_ratio"] = 0.0
    job.write([document(1), b"broken"])
    assert job.run("--allow-mass-delete") == 4
    found = parsed(path)
    assert found["semantic_ingest_last_run_success", (table,)] == 0
    assert found["semantic_ingest_last_success_timestamp_seconds", (table,)] == succeeded
    assert found["semantic_ingest_last_run_timestamp_seconds", (table,)] > succeeded
    labels = (("error", "BadDocumentError"), ("stage", "read"), table)
    assert found["semantic_ingest_failures", labels] == 1


def test_labels_are_escaped(tmp_path):
    strange = 'a"b\\c\nd'
    text = prometheus_text([("tokens", {}, 1.0)], {"table": strange})
    (tmp_path / "x.prom").write_text(text)
    assert parsed(tmp_path / "x.prom") == {("semantic_ingest_tokens", (("table", strange),)): 1.0}


def test_a_first_failure_has_no_last_success(tmp_path):
    record = {"status": "failed", "seconds": 1.0, "documents": {}, "failures_by_reason": {}}
    record |= dict.fromkeys(("embedded", "reused", "truncated", "merged", "tokens", "tokens_per_second"), 0)
    record |= {"table_version": None, "index_version": None}
    write_prometheus(str(tmp_path / "x.prom"), record, "t", 5.0)
    assert not any("last_success" in name for name, _ in parsed(tmp_path / "x.prom"))


# OpenTelemetry


@pytest.fixture
def collector():
    """An OTLP collector on the loopback: what it was sent, by path."""
    received = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            received.setdefault(self.path, []).append(body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    server.server_close()


@pytest.fixture
def clean_environment(monkeypatch):
    import os

    for name in [name for name in os.environ if name.startswith("OTEL_") or name == "TRACEPARENT"]:
        monkeypatch.delenv(name)
    return monkeypatch


def test_nothing_is_sent_unless_the_variables_ask_for_it(job, clean_environment, collector):
    _, received = collector
    assert not opentelemetry_wanted()
    assert job.run() == 0
    assert received == {}
    clean_environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    assert opentelemetry_wanted()
    clean_environment.setenv("OTEL_SDK_DISABLED", "true")
    assert not opentelemetry_wanted()


def test_a_trace_and_metrics_reach_a_collector(job, clean_environment, collector):
    url, received = collector
    clean_environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    clean_environment.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    trace = "0af7651916cd43dd8448eb211c80319c"
    clean_environment.setenv("TRACEPARENT", f"00-{trace}-b7ad6b7169203331-01")
    assert job.run() == 0
    request = ExportTraceServiceRequest()
    spans = []
    for body in received["/v1/traces"]:
        request.ParseFromString(body)
        spans += [span for one in request.resource_spans for scope in one.scope_spans for span in scope.spans]
    attributes = {one.key: one.value.string_value for one in request.resource_spans[0].resource.attributes}
    assert attributes["service.name"] == "semantic-ingest"
    assert attributes["deployment.environment"] == "test"
    names = [span.name for span in spans]
    assert set(names) >= {"run", "scan", "embed", "commit", "index"}
    run = spans[names.index("run")]
    assert run.trace_id.hex() == trace
    for span in spans:
        assert span.trace_id == run.trace_id
        assert run.start_time_unix_nano - 10**9 <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span is run or span.parent_span_id == run.span_id

    metrics = ExportMetricsServiceRequest()
    metrics.ParseFromString(received["/v1/metrics"][-1])
    found = {
        (
            metric.name,
            *sorted(one.value.string_value for one in point.attributes if one.key != "table"),
        ): point
        for one in metrics.resource_metrics
        for scope in one.scope_metrics
        for metric in scope.metrics
        for point in metric.gauge.data_points
    }
    assert found["semantic_ingest.documents", "added"].as_double == 12
    assert found["semantic_ingest.last_run_success",].as_double == 1


def test_a_collector_that_is_not_there_costs_no_run(job, clean_environment, capfd):
    clean_environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    clean_environment.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    assert job.run() == 0
    assert len(job.rows()) == 12


def test_an_unknown_exporter_is_a_warning(job, clean_environment, capfd):
    clean_environment.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    assert job.run() == 0
    assert "OTEL_TRACES_EXPORTER is [zipkin]; otlp, console and none are known" in capfd.readouterr().err


def test_the_console_exporter_writes_to_stderr(job, clean_environment, capfd):
    clean_environment.setenv("OTEL_TRACES_EXPORTER", "console")
    clean_environment.setenv("OTEL_METRICS_EXPORTER", "none")
    assert job.run("--format", "json") == 0
    captured = capfd.readouterr()
    assert '"name": "embed"' in captured.err
    assert json.loads(captured.out)["status"] == "done"


def test_without_the_extra_it_is_said_how_to_get_it(job, clean_environment, capfd, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    clean_environment.setenv("OTEL_TRACES_EXPORTER", "console")
    assert job.run() == 0
    assert "pip install 'semantic-ingest[otel]'" in capfd.readouterr().err


def test_the_log_can_be_read_by_machines(job, capfd):
    job.config["telemetry"] = {"prometheus": str(job.corpus / "below-a-file" / "x.prom")}
    assert job.run("--log-format", "json") == 0
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert any("could not be written" in line["message"] for line in lines)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", line["time"]) for line in lines)
