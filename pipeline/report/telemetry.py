"""What monitoring gets of a run: a Prometheus text file, and OpenTelemetry traces and metrics.

Both are written once, when the run ends: a nightly run is a batch, and nobody scrapes it while it works. Neither can
fail a run; what goes wrong is a warning in the log.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.logs import log
from pipeline.report.run_json import RunSummary
from transforms import files

PREFIX = "semantic_ingest"
Sample = tuple[str, dict[str, str], float]
"""Metric, labels, value."""

HELP = {
    "last_run_timestamp_seconds": "When the last run ended.",
    "last_success_timestamp_seconds": "When the last run that was done ended; alert when this is too long ago.",
    "last_run_success": "1 when the last run was done, 0 when it failed.",
    "last_run_seconds": "How long the last run took.",
    "stage_seconds": "How long each stage of the last run took.",
    "documents": "Documents of the last run by what became of them.",
    "chunks": "Chunks of the last run: embedded, reused, truncated at the model's window, merged.",
    "tokens": "Tokens that the models saw in the last run.",
    "tokens_per_second": "Tokens a second while embedding.",
    "retries": "Requests to services that were tried again in the last run, by endpoint.",
    "failures": "Documents that failed in the last run, by stage and error.",
    "gate_value": "Value of each quality gate's measure.",
    "gate_passed": "1 when the gate let the snapshot pass.",
    "table_version": "Version of the published table.",
    "index_version": "Version of the table that the index shows.",
}


def samples(summary: RunSummary, ended: float) -> Iterator[Sample]:
    """The numbers of a run.

    Args:
        summary: the run.
        ended: when it ended, in seconds since 1970.
    """
    done = summary.status == "done"
    yield "last_run_timestamp_seconds", {}, ended
    yield "last_run_success", {}, float(done)
    if done:
        yield "last_success_timestamp_seconds", {}, ended
    yield "last_run_seconds", {}, summary.seconds
    for stage, seconds in summary.timings.items():
        yield "stage_seconds", {"stage": stage}, seconds
    for state, count in summary.documents.items():
        yield "documents", {"state": state}, count
    for kind in ("embedded", "reused", "truncated", "merged"):
        yield "chunks", {"kind": kind}, getattr(summary, kind)
    yield "tokens", {}, summary.tokens
    yield "tokens_per_second", {}, summary.tokens_per_second
    for endpoint, count in summary.retries_by_endpoint.items():
        yield "retries", {"endpoint": endpoint}, count
    for reason, count in summary.failures_by_reason.items():
        stage, _, error = reason.partition(": ")
        yield "failures", {"stage": stage, "error": error}, count
    for gate in summary.gates:
        yield "gate_value", {"measure": gate.measure}, gate.value
        yield "gate_passed", {"measure": gate.measure}, float(not gate.problems)
    if summary.table_version is not None:
        yield "table_version", {}, summary.table_version
    if summary.index_version is not None:
        yield "index_version", {}, summary.index_version


def prometheus_text(found: Sequence[Sample], labels: Mapping[str, str]) -> str:
    """Format numbers in Prometheus' text format.

    Args:
        found: the numbers; those of one metric have the same labels.
        labels: what each of them is labelled with besides.
    """
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()
    gauges: dict[str, Gauge] = {}
    for name, own, value in found:
        if name not in gauges:
            gauges[name] = Gauge(f"{PREFIX}_{name}", HELP[name], [*labels, *own], registry=registry)
        gauges[name].labels(**labels, **own).set(value)
    return generate_latest(registry).decode()


def write_prometheus(path: str, summary: RunSummary, table_path: str, ended: float) -> None:
    """Write the file that the node exporter's textfile collector reads, complete or not at all.

    A run that failed keeps the time of the last one that was done, so that an alert can count from it.
    """
    found = list(samples(summary, ended))
    if summary.status != "done":
        last = _last_success(path)
        found += [("last_success_timestamp_seconds", {}, last)] if last is not None else []
    with files.create(path) as handle:
        handle.write(prometheus_text(found, {"table": table_path}).encode())


def _last_success(path: str) -> float | None:
    """When the last run that was done ended, as the file that is there tells."""
    from prometheus_client.parser import text_string_to_metric_families

    try:
        families = list(text_string_to_metric_families(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
    wanted = f"{PREFIX}_last_success_timestamp_seconds"
    found = [float(sample.value) for family in families if family.name == wanted for sample in family.samples]
    return found[0] if found else None


def opentelemetry_wanted() -> bool:
    """Whether the standard variables ask for OpenTelemetry; nothing is sent unless they do."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    return any(
        name.startswith("OTEL_EXPORTER_OTLP_") and name.endswith("ENDPOINT") and value
        for name, value in os.environ.items()
    ) or any(
        os.environ.get(f"OTEL_{signal}_EXPORTER", "none") not in ("", "none")
        for signal in ("TRACES", "METRICS")
    )


def export_opentelemetry(summary: RunSummary, table_path: str, ended: float) -> None:
    """Send one trace (the run, its stages below it) and the run's numbers, as the OTEL_* variables say."""
    if not opentelemetry_wanted():
        return
    try:
        from opentelemetry.sdk.resources import Resource
    except ImportError:
        log.warning("the OTEL_* variables ask for OpenTelemetry: pip install 'semantic-ingest[otel]'")
        return
    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "semantic-ingest")})
    attributes = {"table": table_path, "run_id": summary.run_id or "", "status": summary.status}
    try:
        _send_trace(summary, resource, attributes, ended)
        _send_metrics(summary, resource, table_path, ended)
    except Exception as error:
        log.warning("OpenTelemetry got nothing of this run: %s: %s", type(error).__name__, error)


def _exporter_kind(signal: str) -> str:
    kind = os.environ.get(f"OTEL_{signal}_EXPORTER", "otlp")
    if kind not in ("otlp", "console", "none"):
        raise ValueError(f"OTEL_{signal}_EXPORTER is [{kind}]; otlp, console and none are known")
    return kind


def _send_trace(summary: RunSummary, resource: Any, attributes: dict[str, str], ended: float) -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor, SpanExporter
    from opentelemetry.trace import Status, StatusCode, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    kind = _exporter_kind("TRACES")
    if kind == "none":
        return
    exporter: SpanExporter
    if kind == "console":
        import sys

        exporter = ConsoleSpanExporter(out=sys.stderr)
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter()
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("semantic_ingest")
    # A scheduler that traces its tasks hands the trace on in TRACEPARENT.
    parent = TraceContextTextMapPropagator().extract({"traceparent": os.environ.get("TRACEPARENT", "")})
    begun = ended - summary.seconds
    run = tracer.start_span("run", context=parent, start_time=_nanoseconds(begun), attributes=attributes)
    for stage in summary.stages:
        start = datetime.fromisoformat(stage.started).timestamp()
        span = tracer.start_span(stage.name, set_span_in_context(run), start_time=_nanoseconds(start))
        span.end(_nanoseconds(start + stage.seconds))
    if summary.status != "done":
        run.set_status(Status(StatusCode.ERROR, summary.error))
    run.end(_nanoseconds(ended))
    provider.shutdown()


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _send_metrics(summary: RunSummary, resource: Any, table_path: str, ended: float) -> None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import (
        ConsoleMetricExporter,
        MetricExporter,
        PeriodicExportingMetricReader,
    )

    kind = _exporter_kind("METRICS")
    if kind == "none":
        return
    exporter: MetricExporter
    if kind == "console":
        import sys

        exporter = ConsoleMetricExporter(out=sys.stderr)
    else:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        exporter = OTLPMetricExporter()
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    provider = MeterProvider([reader], resource=resource)
    meter = provider.get_meter("semantic_ingest")
    gauges = {name: meter.create_gauge(f"{PREFIX}.{name}", description=text) for name, text in HELP.items()}
    for name, labels, value in samples(summary, ended):
        gauges[name].set(float(value), {"table": table_path, **labels})
    provider.shutdown()
