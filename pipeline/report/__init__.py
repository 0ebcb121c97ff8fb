"""What is told of a run: progress, summary, record, page, telemetry."""
