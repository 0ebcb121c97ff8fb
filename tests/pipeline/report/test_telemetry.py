"""What monitoring gets of a run: a Prometheus text file, and OpenTelemetry."""

import gzip
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families
from support.nights import document

from pipeline.report.run_json import RunSummary
from pipeline.report.telemetry import opentelemetry_wanted, prometheus_text, write_prometheus


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
    assert found["semantic_ingest_table_version", (table,)] == 1
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
    record = RunSummary(status="failed", seconds=1.0)
    write_prometheus(str(tmp_path / "x.prom"), record, "t", 5.0)
    assert not any("last_success" in name for name, _ in parsed(tmp_path / "x.prom"))


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
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    clean_environment.setenv("OTEL_TRACES_EXPORTER", "console")
    assert job.run() == 0
    assert "pip install 'semantic-ingest[otel]'" in capfd.readouterr().err
