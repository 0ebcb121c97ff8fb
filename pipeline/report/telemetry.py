"""What monitoring gets of a run: a Prometheus text file, and OpenTelemetry traces and metrics.

Both are written once, when the run ends: a nightly run is a batch, and nobody scrapes it while it works. Neither can
fail a run; what goes wrong is a warning in the log.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.logs import log
from transforms import files

PREFIX = "semantic_ingest"
Sample = tuple[str, dict[str, str], float]
"""Labels' metric, labels, value."""

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


def samples(record: Mapping[str, Any], ended: float) -> Iterator[Sample]:
    """The numbers of a run.

    Args:
        record: the run, as run.json holds it.
        ended: when it ended, in seconds since 1970.
    """
    done = record["status"] == "done"
    yield "last_run_timestamp_seconds", {}, ended
    yield "last_run_success", {}, float(done)
    if done:
        yield "last_success_timestamp_seconds", {}, ended
    yield "last_run_seconds", {}, record["seconds"]
    for stage, seconds in record.get("timings", {}).items():
        yield "stage_seconds", {"stage": stage}, seconds
    for state, count in record["documents"].items():
        yield "documents", {"state": state}, count
    for kind in ("embedded", "reused", "truncated", "merged"):
        yield "chunks", {"kind": kind}, record[kind]
    yield "tokens", {}, record["tokens"]
    yield "tokens_per_second", {}, record["tokens_per_second"]
    for endpoint, count in record.get("retries_by_endpoint", {}).items():
        yield "retries", {"endpoint": endpoint}, count
    for reason, count in record["failures_by_reason"].items():
        stage, _, error = reason.partition(": ")
        yield "failures", {"stage": stage, "error": error}, count
    for gate in record.get("gates", []):
        yield "gate_value", {"measure": gate["measure"]}, gate["value"]
        yield "gate_passed", {"measure": gate["measure"]}, float(not gate["problems"])
    for name in ("table_version", "index_version"):
        if record[name] is not None:
            yield name, {}, record[name]


def prometheus_text(found: Sequence[Sample], labels: Mapping[str, str]) -> str:
    """Format numbers in Prometheus' text format, the samples of one metric together."""
    lines = []
    for name, explanation in HELP.items():
        lines_of_metric = [
            f"{PREFIX}_{name}{_labels({**labels, **own})} {float(value)!r}"
            for metric, own, value in found
            if metric == name
        ]
        if lines_of_metric:
            lines += [
                f"# HELP {PREFIX}_{name} {explanation}",
                f"# TYPE {PREFIX}_{name} gauge",
                *lines_of_metric,
            ]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    escaped = (
        (name, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
        for name, value in labels.items()
    )
    inside = ",".join(f'{name}="{value}"' for name, value in escaped)
    return f"{{{inside}}}" if inside else ""


def write_prometheus(path: str, record: Mapping[str, Any], table_path: str, ended: float) -> None:
    """Write the file that the node exporter's textfile collector reads, complete or not at all.

    A run that failed keeps the time of the last one that was done, so that an alert can count from it.
    """
    found = list(samples(record, ended))
    if record["status"] != "done":
        last = _last_success(path)
        found += [("last_success_timestamp_seconds", {}, last)] if last is not None else []
    with files.create(path) as handle:
        handle.write(prometheus_text(found, {"table": table_path}).encode())


def _last_success(path: str) -> float | None:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(rf"^{PREFIX}_last_success_timestamp_seconds\S* (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else None


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


def export_opentelemetry(record: Mapping[str, Any], table_path: str, ended: float) -> None:
    """Send one trace (the run, its stages below it) and the run's numbers, as the OTEL_* variables say."""
    if not opentelemetry_wanted():
        return
    try:
        from opentelemetry.sdk.resources import Resource
    except ImportError:
        log.warning("the OTEL_* variables ask for OpenTelemetry: pip install 'semantic-ingest[otel]'")
        return
    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "semantic-ingest")})
    attributes = {"table": table_path, "run_id": record["run_id"] or "", "status": record["status"]}
    try:
        _send_trace(record, resource, attributes, ended)
        _send_metrics(record, resource, table_path, ended)
    except Exception as error:
        log.warning("OpenTelemetry got nothing of this run: %s: %s", type(error).__name__, error)


def _exporter_kind(signal: str) -> str:
    kind = os.environ.get(f"OTEL_{signal}_EXPORTER", "otlp")
    if kind not in ("otlp", "console", "none"):
        raise ValueError(f"OTEL_{signal}_EXPORTER is [{kind}]; otlp, console and none are known")
    return kind


def _send_trace(record: Mapping[str, Any], resource: Any, attributes: dict[str, str], ended: float) -> None:
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
    begun = ended - record["seconds"]
    run = tracer.start_span("run", context=parent, start_time=_nanoseconds(begun), attributes=attributes)
    for stage in record.get("stages", []):
        start = datetime.fromisoformat(stage["started"]).timestamp()
        span = tracer.start_span(stage["name"], set_span_in_context(run), start_time=_nanoseconds(start))
        span.end(_nanoseconds(start + stage["seconds"]))
    if record["status"] != "done":
        run.set_status(Status(StatusCode.ERROR, str(record.get("error", ""))))
    run.end(_nanoseconds(ended))
    provider.shutdown()


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _send_metrics(record: Mapping[str, Any], resource: Any, table_path: str, ended: float) -> None:
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
    for name, labels, value in samples(record, ended):
        gauges[name].set(float(value), {"table": table_path, **labels})
    provider.shutdown()
