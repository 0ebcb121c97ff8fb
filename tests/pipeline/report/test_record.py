"""What is kept of a run beside its table, and what is sampled while it works."""

import json
import re

from pipeline.journal import KEPT, read_journal
from pipeline.report.throughput import MOST_SAMPLES, Sampler
from transforms.handover.progress import ProgressFile, read_progress


def test_runs_jsonl_is_bounded_and_survives_a_broken_line(job):
    path = job.folder / "runs.jsonl"
    old = {"run_id": "x", "status": "done", "seconds": 1.0, "started": None, "documents": {}, "chunks": 0}
    old |= {"embedded": 0, "tokens_per_second": 0.0, "table_version": 0}
    path.write_text("{broken\n" + (json.dumps(old) + "\n") * (KEPT + 5))
    assert job.run() == 0
    runs = read_journal(path)
    assert len(runs) == KEPT
    assert runs[-1]["run_id"] == job.summary["run_id"]


def test_a_record_that_cannot_be_written_costs_only_a_warning(job, capfd):
    job.config["telemetry"] = {"prometheus": str(job.corpus / "below-a-file" / "x.prom")}
    assert job.run() == 0
    assert "the run's record could not be written" in capfd.readouterr().err
    assert len(job.rows()) == 12


def test_the_sampler_thins_itself_out_and_ends(tmp_path):
    progress = ProgressFile(str(tmp_path))
    with Sampler(lambda: read_progress(str(tmp_path)), 200, interval=0.0005) as sampler:
        for _ in range(200):
            progress.add(documents=1, chunks=2, tokens=30)
        progress.flush()
    samples = sampler.throughput.samples
    assert len(samples) <= MOST_SAMPLES + 1
    assert samples[-1][1:] == (200, 400, 6000)
    with Sampler(None) as idle:
        pass
    assert idle.throughput.samples == []


def test_the_log_can_be_read_by_machines(job, capfd):
    job.config["telemetry"] = {"prometheus": str(job.corpus / "below-a-file" / "x.prom")}
    assert job.run("--log-format", "json") == 0
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert any("could not be written" in line["message"] for line in lines)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", line["time"]) for line in lines)
