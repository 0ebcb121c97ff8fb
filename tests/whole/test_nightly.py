"""Nightly operation: each way in which ingest pipelines are known to lose data or work, as a test that ours passes;
and the scheduling examples, held against the parsers that will read them."""

import json
import os
import re
import shutil
import subprocess
import sys
import types
from datetime import datetime
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from cronsim import CronSim
from deltalake import DeltaTable
from support.nights import NightRun, assert_same_rows, document
from support.paths import ROOT
from support.soak import FlappingService, define_endpoint

from pipeline.table.log import read_log

DEPLOY = ROOT / "deploy" / "nightly"


@pytest.fixture
def job(tmp_path):
    job = NightRun(tmp_path)
    job.write([document(number) for number in range(10)])
    return job


@pytest.fixture
def remote(job, monkeypatch):
    """The job with a field that a remote service embeds; nobody waits between retries."""
    service = FlappingService(seed=1)
    define_endpoint(job.folder / "endpoints", service.url)
    properties = job.config["mappings"]["properties"]
    properties["text"]["copy_to"] = ["remote"]
    properties["title"].pop("copy_to")
    properties["remote"] = {**properties.pop("dense"), "inference_id": "remote"}
    properties.pop("sparse")
    job.config["endpoints"] = {"path": str(job.folder / "endpoints")}
    monkeypatch.setattr("models.remote.http.time.sleep", lambda seconds: None)
    yield job, service
    service.close()


# chunks and documents that get lost


def test_no_chunk_of_a_document_is_lost(job):
    """Elsewhere an upsert keeps only the last chunk of a document."""
    from pipeline.config.resolve import resolve
    from pipeline.config.run_config import RunConfig
    from transforms.chunk.documents import chunk_document
    from transforms.read.documents import to_document
    from transforms.records import Location

    job.write(
        [document(number) for number in range(10)] + [{"_id": "long", "text": "One more sentence. " * 300}]
    )
    assert job.run() == 0
    resolved = resolve(RunConfig.model_validate(job.config))
    for row in job.rows().values():
        found = to_document({"_id": row["_id"], **json.loads(row["_source"])}, "_id", Location("", 1))
        for field in resolved.fields:
            planned = chunk_document(found, field.field)
            stored = [
                (c["source_field"], c["start_offset"], c["end_offset"])
                for c in row[field.field.name]["chunks"]
            ]
            assert stored == [(c.source_field, c.start_offset, c.end_offset) for c in planned]
    assert sum(len(row["dense"]["chunks"]) for row in job.rows().values()) > 80


def test_what_is_counted_is_what_is_there(job):
    """Elsewhere a store fails to take some chunks and the run is "ok"."""
    job.write([*(document(number) for number in range(10)), b"broken"])
    assert job.run() == 0
    rows, summary = job.rows(), job.summary
    assert summary["documents"]["added"] == len(rows) == 10
    assert summary["chunks"] == sum(
        len(row[name]["chunks"]) for row in rows.values() for name in ("dense", "sparse")
    )
    assert summary["documents"]["failed"] == len(Path(summary["failures_path"]).read_text().splitlines()) == 1


def test_documents_with_the_same_content_are_two_documents(job):
    """Elsewhere deleting one of two documents with one content hash deletes both."""
    twin = {**document(1), "_id": "twin"}
    job.write([document(number) for number in range(10)] + [twin])
    assert job.run() == 0
    assert job.rows()["twin"]["content_hash"] == job.rows()["d1"]["content_hash"]
    job.write([document(number) for number in range(10) if number != 1] + [twin])
    assert job.run() == 0
    assert "twin" in job.rows()
    assert "d1" not in job.rows()


def test_values_that_read_alike_when_joined_are_told_apart(job):
    """Elsewhere a cache key joins its parts without saying where one ends."""
    job.write([{"_id": "1", "title": "ab", "text": "c"}, {"_id": "2", "title": "a", "text": "bc"}])
    assert job.run() == 0
    rows = job.rows()
    assert rows["1"]["content_hash"] != rows["2"]["content_hash"]
    job.write([{"_id": "1", "title": "a", "text": "bc"}, {"_id": "2", "title": "ab", "text": "c"}])
    assert job.run() == 0
    assert job.summary["documents"]["changed"] == 2
    assert [job.rows()["1"]["title"], job.rows()["2"]["title"]] == ["a", "ab"]


def test_nothing_stale_is_left_when_the_source_shrinks(job):
    """Elsewhere a second run writes fewer shards beside the ones of the first."""
    assert job.run() == 0
    job.write([document(number) for number in range(9)])
    assert job.run() == 0
    assert len(job.rows()) == 9
    assert DeltaTable(job.table_path).to_pyarrow_table(columns=["_id"]).num_rows == 9
    assert job.run() == 0, "and a third run needs no fresh folder"


# errors that poison, spread, or are taken for deletions


def test_a_service_that_is_down_marks_nothing_as_done(remote):
    """Elsewhere the hash is stored before the embedding, so that the document is never tried again."""
    job, service = remote
    assert job.run() == 0
    before = job.rows()
    job.write([document(number, 1) for number in range(10)])
    service.mood = "down"
    assert job.run() == 4
    assert_same_rows(job.rows(), before)
    assert job.version() == 1
    job.config["failures"]["max_ratio"] = 1.0
    assert job.run() == 4, "whatever is allowed: a service that fails for every document is no success"
    assert_same_rows(job.rows(), before)
    assert job.version() == 1
    assert job.summary["failures_by_reason"] == {"embed: TransientError": 10}
    service.mood = "well"
    assert job.run() == 0
    assert job.summary["documents"]["changed"] == 10
    assert "Edition 1" in job.rows()["d5"]["_source"]


def test_one_refused_text_costs_one_document_of_its_batch(remote):
    """Elsewhere the whole batch goes to the dead letters."""
    job, service = remote
    poisoned = {**document(3), "text": "A POISON of a text."}
    job.write([poisoned if number == 3 else document(number) for number in range(10)])
    service.mood = "picky"
    assert job.run() == 0
    assert sorted(job.rows()) == sorted(f"d{number}" for number in range(10) if number != 3)
    failure = json.loads(Path(job.summary["failures_path"]).read_text())
    assert (failure["stage"], failure["document_id"], failure["line"]) == ("embed", "d3", 4)
    assert "POISON" not in json.dumps(failure)


def test_a_service_that_answers_too_little_is_noticed(remote, monkeypatch):
    """Elsewhere what a store or service left out is not missed."""
    job, service = remote
    send = service._send
    monkeypatch.setattr(
        service,
        "_send",
        lambda handler, status, answer: send(handler, status, {**answer, "data": answer["data"][1:]}),
    )
    assert job.run() == 4
    assert not DeltaTable.is_deltatable(job.table_path)


def test_all_bad_is_not_a_success(job):
    """Elsewhere a threshold of 1 lets a run succeed in which everything failed."""
    job.config["failures"].pop("max_ratio")
    job.write([document(1), *[b"broken"] * 9])
    assert job.run() == 4


def test_a_source_that_shrinks_suddenly_is_not_a_deletion(job, capsys):
    """Elsewhere a full sync deletes all that the loader did not return."""
    assert job.run() == 0
    job.write([document(number) for number in range(5)])
    assert job.run() == 1
    assert "would delete 5 of the table's 10 documents" in capsys.readouterr().err
    assert len(job.rows()) == 10
    assert job.run("--allow-mass-delete") == 0
    assert len(job.rows()) == 5


# work that is done again for nothing, or not done though it must be


def test_one_changed_sentence_costs_one_chunk(job):
    """Elsewhere one change voids the cache of the batch, or of a document that spans batches."""
    sentences = [f"Sentence number {number} tells of something else entirely." for number in range(400)]
    job.write([{"_id": "long", "text": " ".join(sentences)}, *(document(number) for number in range(9))])
    assert job.run() == 0
    chunks = job.summary["chunks"]
    sentences[200] = "This one was changed since last night."
    job.write([{"_id": "long", "text": " ".join(sentences)}, *(document(number) for number in range(9))])
    assert job.run() == 0
    assert job.summary["documents"] | {"changed": 1, "unchanged": 9} == job.summary["documents"]
    assert 0 < job.summary["embedded"] <= 4, "the chunk that holds it, and its neighbours that overlap"
    assert job.summary["reused"] > chunks / 2


def test_another_model_is_noticed(job):
    """Elsewhere vectors of two models end up in one store, or somebody has to remember a namespace."""
    assert job.run() == 0
    body = {"service": "hashing", "task_type": "text_embedding", "service_settings": {"dimensions": 32}}
    (job.folder / "endpoints").mkdir()
    (job.folder / "endpoints" / "small.json").write_text(json.dumps({"inference_id": "small", **body}))
    job.config["endpoints"] = {"path": str(job.folder / "endpoints")}
    job.config["mappings"]["properties"]["dense"]["inference_id"] = "small"
    assert job.run() == 0
    assert job.summary["documents"]["changed"] == 10
    rows = job.rows()
    assert {len(chunk["embeddings"]) for row in rows.values() for chunk in row["dense"]["chunks"]} == {32}
    assert job.summary["reused"] == sum(len(row["sparse"]["chunks"]) for row in rows.values()), (
        "the other field stays"
    )


def test_the_path_of_a_file_is_not_what_is_in_it(job):
    """Elsewhere progress is keyed on paths, so that new content of an old file is passed over."""
    assert job.run() == 0
    times = os.stat(job.corpus)
    job.write([document(number, 1) for number in range(10)])
    os.utime(job.corpus, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert job.run() == 0
    assert job.summary["documents"]["changed"] == 10
    os.rename(job.corpus, job.folder / "moved.jsonl")
    job.config["source"]["path"] = str(job.folder / "moved.jsonl")
    assert job.run() == 0
    assert job.summary["documents"]["unchanged"] == 10


def test_a_model_is_loaded_once_however_many_files_there_are(job, monkeypatch):
    """Elsewhere it is loaded again for every file."""
    from models.local.hashing import HashingEmbedder

    made = []
    build = HashingEmbedder.__init__

    def counted(self, *arguments, **named):
        made.append(1)
        build(self, *arguments, **named)

    monkeypatch.setattr(HashingEmbedder, "__init__", counted)
    (job.folder / "many").mkdir()
    for number in range(12):
        (job.folder / "many" / f"{number}.jsonl").write_text(json.dumps(document(number)) + "\n")
    job.config["source"]["path"] = str(job.folder / "many")
    assert job.run() == 0
    assert len(job.rows()) == 12
    assert len(made) == 2, "one for each endpoint"


@pytest.mark.long
def test_any_number_of_workers_gives_the_same_table(job, tmp_path_factory):
    """Elsewhere more than one worker loses the cache, hangs, or is advised against."""
    job.config["source"]["split_bytes"] = 500
    assert job.run() == 0
    other = NightRun(tmp_path_factory.mktemp("two"))
    other.write([document(number) for number in range(10)])
    other.config["source"]["split_bytes"] = 500
    other.config["runner"] = {"name": "local", "workers": 2}
    assert other.run() == 0
    assert_same_rows(other.rows(), job.rows())


# state that drifts from what is published


def test_lost_files_are_an_error_and_are_found(job, capsys):
    """Elsewhere the record of what is stored and the store drift apart, and every run is "ok"."""
    assert job.run() == 0
    os.unlink(f"{job.table_path}/{sorted(read_log(job.table_path).active)[0]}")
    assert job.run(command="verify") == 1
    assert "Traceback" not in capsys.readouterr().err
    assert job.run() == 0, "the source has the lost documents"
    assert job.run(command="verify") == 0
    shutil.rmtree(job.table_path)
    assert job.run() == 0
    assert job.summary["documents"]["added"] == 10, "there is no other record that would say they are done"
    assert job.run(command="verify") == 0


def test_a_lost_index_is_built_again(job):
    assert job.run() == 0
    shutil.rmtree(job.config["index"]["path"])
    assert job.run() == 0
    assert job.summary["embedded"] == 0
    assert job.run(command="verify") == 0


def test_a_config_cannot_be_changed_by_running_it(job):
    """Elsewhere a run without a vector store switches deletions off for good."""
    from pydantic import ValidationError

    from pipeline.config.run_config import RunConfig

    config = RunConfig.model_validate(job.config)
    with pytest.raises(ValidationError, match="frozen"):
        config.source.sync = "incremental"


# the command line's promises to a scheduler


def test_exit_codes(job, capfd):
    assert job.run() == 0
    job.config["surprise"] = 1
    assert job.run() == 2
    del job.config["surprise"]
    job.config["failures"]["max_ratio"] = 0.0
    job.write([*(document(number) for number in range(10)), b"broken"])
    assert job.run() == 4
    job.config["failures"]["max_ratio"] = 0.5
    job.config["gates"] = {"measures": {"failures": {"max_ratio": 0.01}}}
    job.write([*(document(number, 1) for number in range(10)), b"broken"])
    assert job.run() == 3
    assert job.version() == 1, "the published table is as it was"
    job.config["source"]["path"] = str(job.folder / "nowhere")
    assert job.run() == 1
    assert "Traceback" not in capfd.readouterr().err


def test_the_documentation_names_every_exit_code():
    text = (DEPLOY.parents[1] / "docs" / "nightly.md").read_text()
    for code in (0, 1, 2, 3, 4, 130, 143):
        assert re.search(rf"^\| {code} \|", text, re.MULTILINE), code


# scheduling examples


def command_options(line):
    """The options that a command line uses."""
    return set(re.findall(r"(?<= )--[a-z-]+", line.partition("semantic-ingest ")[2]))


def known_options(command):
    """The options that a command knows."""
    import typer.main

    from pipeline.commands.app import app

    found = typer.main.get_command(app).commands[command]
    return {name for parameter in found.params for name in parameter.opts}


def test_the_crontab_is_one_that_cron_can_read():
    jobs = []
    for line in (DEPLOY / "crontab").read_text().splitlines():
        if line.startswith("#") or re.match(r"[A-Z]+=", line):
            continue
        fields = line.split(None, 6)
        assert len(fields) == 7
        jobs.append((" ".join(fields[:5]), fields[6]))
        assert "%" not in fields[6], "cron takes a percent sign for a new line"
        command = re.search(r"bin/semantic-ingest (\w+)", fields[6])[1]
        assert command_options(fields[6]) <= known_options(command)
    nightly, weekly = (CronSim(schedule, datetime(2026, 11, 20)) for schedule, _ in jobs)
    assert [next(nightly) for _ in range(2)] == [datetime(2026, 11, 20, 2, 15), datetime(2026, 11, 21, 2, 15)]
    assert next(weekly) == datetime(2026, 11, 22, 5, 0)
    assert "--lock" in jobs[0][1]


def test_the_systemd_units_are_right(tmp_path):
    service = (DEPLOY / "semantic-ingest.service").read_text()
    timer = (DEPLOY / "semantic-ingest.timer").read_text()
    sections = [re.findall(r"^\[(\w+)\]$", text, re.MULTILINE) for text in (service, timer)]
    assert sections == [["Unit", "Service", "Install"], ["Unit", "Timer", "Install"]]
    for line in (service + timer).splitlines():
        assert re.fullmatch(r"(#.*|\[\w+\]|[A-Z]\w+=.*|)", line), line
    start = re.search(r"^ExecStart=(.*)$", service, re.MULTILINE)[1]
    assert command_options(start) <= known_options("run")
    assert re.search(r"^RestartPreventExitStatus=2 3 4$", service, re.MULTILINE)
    if shutil.which("systemd-analyze"):
        command = str(Path(sys.executable).with_name("semantic-ingest"))
        here = service.replace("/opt/semantic-ingest/.venv/bin/semantic-ingest", command)
        here = here.replace("User=ingest\n", "")
        (tmp_path / "semantic-ingest.service").write_text(here.replace("/opt/semantic-ingest", str(tmp_path)))
        (tmp_path / "semantic-ingest.timer").write_text(timer)
        units = [str(tmp_path / f"semantic-ingest.{kind}") for kind in ("service", "timer")]
        checked = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
        assert (checked.returncode, checked.stderr) == (0, "")
        calendar = re.search(r"^OnCalendar=(.*)$", timer, re.MULTILINE)[1]
        assert subprocess.run(["systemd-analyze", "calendar", calendar], capture_output=True).returncode == 0


def test_the_cron_job_manifest_fits_the_schema_of_kubernetes():
    manifest = yaml.safe_load((DEPLOY / "cronjob.yaml").read_text())
    for version in ("1.31", "1.34"):
        kubernetes_validate.validate(manifest, version, strict=True)
    job = manifest["spec"]["jobTemplate"]["spec"]
    assert manifest["spec"]["concurrencyPolicy"] == "Forbid"
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2, 3, 4]
    (container,) = job["template"]["spec"]["containers"]
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == container["name"]
    assert command_options(" ".join(container["command"])) <= known_options("run")
    claims = {volume["name"] for volume in job["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == claims
    assert next(CronSim(manifest["spec"]["schedule"], datetime(2026, 11, 20))) == datetime(
        2026, 11, 20, 2, 15
    )


class Tasks:
    """Stands in for Airflow, which is too large to install for a test: collects tasks and their order."""

    def __init__(self):
        self.tasks, self.order, self.dags = {}, [], []

    def task(self, function=None, **options):
        if function is None:
            return lambda real: self.task(real, **options)
        self.tasks[function.__name__] = (function, options)
        return lambda: Node(self, function.__name__)

    def dag(self, **options):
        def decorate(function):
            self.dags.append((function.__name__, options))
            return function

        return decorate


class Node:
    """One task of the order."""

    def __init__(self, tasks, name):
        self.tasks, self.name = tasks, name

    def __rshift__(self, other):
        self.tasks.order.append((self.name, other.name))
        return other


@pytest.fixture
def airflow(monkeypatch):
    """The DAG file, executed with the parts of Airflow that it uses."""
    tasks = Tasks()
    error = type("AirflowFailException", (Exception,), {})
    modules = {
        "airflow": {},
        "airflow.sdk.exceptions": {"AirflowFailException": error},
        "airflow.sdk": {"dag": tasks.dag, "task": tasks.task},
    }
    for name, members in modules.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    names = {"__name__": "airflow_dag"}
    exec(compile((DEPLOY / "airflow_dag.py").read_text(), "airflow_dag.py", "exec"), names)
    return tasks, names, error


def test_the_dag_runs_verifies_and_clears_in_this_order(airflow):
    tasks, _, _ = airflow
    ((name, options),) = tasks.dags
    assert name == "semantic_ingest"
    assert (options["max_active_runs"], options["catchup"]) == (1, False)
    assert next(CronSim(options["schedule"], datetime(2026, 11, 20))) == datetime(2026, 11, 20, 2, 15)
    assert tasks.order == [("ingest", "verify"), ("verify", "vacuum")]


def test_the_dags_tasks_call_commands_that_exist_and_mind_exit_codes(airflow, monkeypatch):
    tasks, names, error = airflow
    called, codes = [], []

    def run(command, cwd):
        called.append(command)
        return subprocess.CompletedProcess(command, codes.pop(0))

    monkeypatch.setattr(subprocess, "run", run)
    ingest = tasks.tasks["ingest"][0]
    codes[:] = [0]
    ingest()
    for code in (2, 3, 4):
        codes[:] = [code]
        with pytest.raises(error, match=f"exit code {code}"):
            ingest()
    for code in (1, 143):
        codes[:] = [code]
        with pytest.raises(RuntimeError, match=f"exit code {code}"):
            ingest()
    codes[:] = [0, 0]
    tasks.tasks["verify"][0]()
    monkeypatch.setitem(names, "datetime", types.SimpleNamespace(now=lambda: datetime(2026, 11, 22)))
    tasks.tasks["vacuum"][0]()
    for command in called:
        options = {word for word in command if word.startswith("--")}
        assert options <= known_options(command[3])
    assert [command[3] for command in called][-2:] == ["verify", "vacuum"]


# a night in which nothing changed


QUIET_NIGHT = """
import hashlib, json, sys, time
import orjson
from pipeline.__main__ import main
import pipeline.run.job
begun = time.process_time()
for line in open(sys.argv[2], "rb"):
    hashlib.blake2b(orjson.dumps(orjson.loads(line), option=orjson.OPT_SORT_KEYS)).hexdigest()
read = time.process_time() - begun
begun = time.process_time()
assert main(["run", sys.argv[1], "--quiet", "--format", "json"]) == 0
seconds = time.process_time() - begun
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({"seconds": seconds, "read": read, "megabytes": int(status["VmHWM"].split()[0]) / 1024}))
"""  # the peak by getrusage outlives exec, and would be that of the tests' own process


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_night_without_changes_is_cheap(job):
    """A small multiple of reading and hashing the source, and less than 1 GB; nothing embedded, nothing committed."""
    count = 50_000
    text = "The quick brown fox jumps over the lazy dog while rain falls mainly on the plain. " * 4
    with open(job.corpus, "w") as handle:
        for number in range(count):
            handle.write(json.dumps({"_id": f"d{number}", "title": f"Title {number}", "text": text}) + "\n")
    del job.config["mappings"]["properties"]["sparse"]
    job.config["mappings"]["properties"]["text"]["copy_to"] = ["dense"]
    job.config["mappings"]["properties"]["dense"].pop("chunking_settings")
    job.config |= {"table": {"path": job.table_path}}
    assert job.run() == 0
    command = [sys.executable, "-c", QUIET_NIGHT, str(job.config_path), str(job.corpus)]
    told = [
        json.loads(subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[-1])
        for _ in "ab"
    ]
    assert job.summary["documents"]["unchanged"] == count
    assert (job.summary["embedded"], job.version()) == (0, 1)
    assert min(one["seconds"] / one["read"] for one in told) < 30, told
    assert max(one["megabytes"] for one in told) < 1_000, told
