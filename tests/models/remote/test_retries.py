"""Retries of services in what a run records of itself."""

import json
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.scripted_service import scripted_service
from support.small_run import SmallRun, document

from models.remote.embedder import RetryCount
from models.remote.http import Policy
from transforms.handover.retries import read_retries, write_retries

BUSY = {"status": 429, "body": "{}", "headers": {"Retry-After": "0.1"}}


def make_job(folder: Path, *urls: str, **changes) -> SmallRun:
    """A run whose fields are embedded by one service each: endpoints `one`, `two`, …"""
    names = ("one", "two")[: len(urls)]
    endpoints = folder / "endpoints"
    endpoints.mkdir()
    for name, url in zip(names, urls, strict=True):
        settings = {"api_key": "file:key", "model_id": "m", "url": f"{url}/v1/embeddings", "dimensions": 3}
        body = {"service": "openai", "task_type": "text_embedding", "service_settings": settings}
        (endpoints / f"{name}.json").write_text(json.dumps(body))
    (endpoints / "key").write_text("secret")
    properties = {name: {"type": "semantic_text", "inference_id": name} for name in names}
    job = SmallRun(folder, mappings={"properties": properties}, endpoints={"path": str(endpoints)}, **changes)
    documents = [document(number) for number in range(3)]
    job.write([{"_id": one["_id"], **dict.fromkeys(names, one["text"])} for one in documents])
    return job


def test_retries_are_counted_by_endpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_service(BUSY, BUSY, {}) as busy, scripted_service() as idle:
        job = make_job(tmp_path, busy.url, idle.url, telemetry={"prometheus": str(tmp_path / "run.prom")})
        assert job.run("--format", "table") == 0
        assert len(busy.requests) >= 3
        waited = busy.requests[1]["at"] - busy.requests[0]["at"]
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["retries"], record["retries_by_endpoint"]) == (2, {"one": 2})
    assert record["documents"]["failed"] == 0
    assert waited >= 0.1
    (entry,) = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert entry["retries"] == 2
    families = text_string_to_metric_families((tmp_path / "run.prom").read_text())
    retries = next(family for family in families if family.name == "semantic_ingest_retries")
    assert [(sample.labels["endpoint"], sample.value) for sample in retries.samples] == [("one", 2.0)]
    assert "2 requests were tried again" in capsys.readouterr().out


def test_retries_of_a_service_that_stays_down_are_counted_too(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("models.remote.model.DEFAULT_POLICY", Policy(attempts=3, first_wait=0.01))
    with scripted_service({"status": 503, "body": "{}"}) as down:
        job = make_job(tmp_path, down.url)
        assert job.run() == 4
        assert len(down.requests) == 3
    assert job.summary["retries_by_endpoint"] == {"one": 2}
    assert job.summary["failures_by_reason"] == {"embed: TransientError": 3}


def test_counts_are_taken_once(tmp_path: Path) -> None:
    count = RetryCount()
    count.add()
    count.add()
    assert [count.take(), count.take()] == [2, 0]
    assert read_retries(str(tmp_path)) == {}
    write_retries(str(tmp_path), "one", 2)
    write_retries(str(tmp_path), "one", 1)
    write_retries(str(tmp_path), "two", 5)
    assert read_retries(str(tmp_path)) == {"one": 3, "two": 5}
