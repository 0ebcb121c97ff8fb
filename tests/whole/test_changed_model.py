"""A service that changes its model between two nights: it is found out, whatever the service says of it."""

import json
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from support.nights import NightRun, document, output

SECRET = "EMBEDDING_SERVER_KEY"


class Service(ThreadingHTTPServer):
    """An OpenAI-compatible service whose model tests exchange.

    Attributes:
        model: seed of its embeddings.
        dimensions: their length.
        name: the model's name in answers; None leaves it out.
        requests: texts that were embedded.
        answer: what it answers with instead, by the texts; None is embeddings.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.model, self.dimensions, self.name = "one", 8, "embed-1"
        self.requests = []
        self.answer = None

    def vector(self, text):
        seed = zlib.crc32(f"{self.model} {text}".encode())
        return np.random.default_rng(seed).normal(size=self.dimensions).round(4).tolist()


class Answer(BaseHTTPRequestHandler):
    def do_POST(self):
        texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
        self.server.requests += texts
        rows = [{"index": at, "embedding": self.server.vector(text)} for at, text in enumerate(texts)]
        told = {"data": rows} if self.server.name is None else {"data": rows, "model": self.server.name}
        body = json.dumps(self.server.answer(texts) if self.server.answer else told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def service():
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def job(tmp_path, service, monkeypatch):
    """A table of ten documents that the service embedded."""
    monkeypatch.setenv(SECRET, "key")
    return made(tmp_path, service)


def made(folder, service, context=None, **settings):
    job = NightRun(folder)
    endpoint = {
        "task_type": "text_embedding",
        "service": "openai",
        "service_settings": {
            "api_key": f"env:{SECRET}",
            "model_id": "embed",
            "url": f"http://127.0.0.1:{service.server_port}/v1/embeddings",
            "similarity": "cosine",
            **settings,
        },
    }
    (folder / "endpoints").mkdir()
    (folder / "endpoints" / "remote.json").write_text(json.dumps({"inference_id": "remote", **endpoint}))
    job.config["endpoints"] = {"path": str(folder / "endpoints")}
    del job.config["mappings"]["properties"]["sparse"]
    job.config["mappings"]["properties"]["text"]["copy_to"] = ["dense"]
    job.config["mappings"]["properties"]["dense"] = {"type": "semantic_text", "inference_id": "remote"}
    if context is not None:
        job.config["mappings"]["properties"]["dense"]["context"] = context
    job.write([document(number) for number in range(10)])
    first = job.night()
    assert first.code == 0, first
    return job


def change(job, *numbers):
    job.write([document(number, 1 if number in numbers else 0) for number in range(10)])


def lengths(job):
    return {len(chunk["embeddings"]) for row in job.rows().values() for chunk in row["dense"]["chunks"]}


def vectors(job, service):
    """Whether every embedding of the table is that of the service's model of today."""
    for row in job.rows().values():
        source = json.loads(row["_source"])
        for chunk in row["dense"]["chunks"]:
            text = source[chunk["source_field"]][chunk["start_offset"] : chunk["end_offset"]]
            assert np.allclose(chunk["embeddings"], service.vector(text), atol=1e-4)


@pytest.mark.parametrize("what", ["dimensions", "name"])
def test_what_a_service_reveals_is_part_of_the_identity(job, service, what):
    """Night 2 sees another model than night 1 and embeds everything anew, though one document changed."""
    service.model = "two"
    if what == "dimensions":
        service.dimensions = 16
    else:
        service.name = "embed-2"
    change(job, 3)
    second = job.night()
    assert second.code == 0, second
    assert job.summary["documents"]["changed"] == 10
    assert lengths(job) == {service.dimensions}
    vectors(job, service)
    assert job.json(command="verify")["ok"]


def test_an_incremental_run_does_not_mix_two_models(job, service):
    rows = job.rows()
    service.dimensions = 16
    change(job, 3)
    job.config["source"]["sync"] = "incremental"
    job.write([document(3, 1)])
    second = job.night()
    assert second.code == 1
    assert "the model of a semantic_text field has changed" in second.output
    assert job.rows() == rows


def test_a_model_that_is_exchanged_behind_its_name_is_found_by_its_embeddings(job, service):
    rows = job.rows()
    service.model = "two"
    change(job, 3)
    asked = len(service.requests)
    second = job.night()
    assert second.code == 1, second
    assert "embeds a text of the table's [dense] otherwise than it did (cosine" in second.output
    assert job.rows() == rows
    assert len(service.requests) == asked + 2, "one question about the model, and one chunk of the table"
    # The way out that the message names.
    path = job.folder / "endpoints" / "remote.json"
    path.write_text(path.read_text().replace('"embed"', '"embed-2026"'))
    third = job.night()
    assert third.code == 0, third
    vectors(job, service)


def test_a_model_that_stays_is_known_by_what_it_saw_of_a_chunk(tmp_path, service, monkeypatch):
    """Headers before chunks are part of it."""
    monkeypatch.setenv(SECRET, "key")
    job = made(tmp_path, service, context="{title}: ")
    for document_number in (3, 4):
        change(job, document_number)
        assert job.night().code == 0
    assert any(text.startswith("Title 4: ") for text in service.requests)


def test_a_night_without_work_does_not_ask_for_a_chunk(job, service):
    asked = len(service.requests)
    assert job.night().code == 0
    assert len(service.requests) == asked + 1


def test_where_dimensions_are_named_only_a_night_with_work_asks(tmp_path, service, monkeypatch):
    monkeypatch.setenv(SECRET, "key")
    job = made(tmp_path, service, dimensions=8)
    asked = len(service.requests)
    assert job.night().code == 0
    assert len(service.requests) == asked
    service.model = "two"
    change(job, 3)
    assert "otherwise than it did" in job.night().output
    assert len(service.requests) == asked + 1


WRONG = {
    "zeros": (
        lambda texts: {"data": [{"index": at, "embedding": [0.0] * 8} for at, _ in enumerate(texts)]},
        "one is all zeros, under cosine",
    ),
    "one index": (
        lambda texts: {"data": [{"index": 0, "embedding": [1.0] * 8} for _ in [*texts, ""]]},
        "nobody knows whose they are",
    ),
    "an error": (
        lambda _: {"error": {"message": "the quota of this month is spent"}},
        "the quota of this month is spent",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_answer_with_status_200_is_told_in_the_words_of_the_service(
    tmp_path, service, monkeypatch, kind
):
    monkeypatch.setenv(SECRET, "key")
    job = made(tmp_path, service, dimensions=8)
    rows = job.rows()
    service.answer, words = WRONG[kind]
    change(job, *range(10))
    second = job.night()
    assert second.code == 4, second
    assert words in second.output
    assert job.rows() == rows


def test_verify_names_a_mix_of_two_models(job, service, capsys, monkeypatch):
    """As an older program would have left it: without the looks before the commit."""
    monkeypatch.setattr("pipeline.run.job.check_answers", lambda *_: None)
    monkeypatch.setattr("pipeline.run.job.check_embeddings", lambda *_: None)
    monkeypatch.setattr("pipeline.run.job.check_models", lambda *_: None)
    monkeypatch.setattr("pipeline.run.changes.stale_rows", lambda state, *_: np.zeros(0, np.int64))
    job.config["index"] = None
    job.config["source"]["sync"] = "incremental"
    service.dimensions, service.name = 16, "embed-2"
    job.write([document(3, 1)])
    assert job.run() == 0
    code, found = output(job, capsys, command="verify")
    assert code == 1
    assert {problem["kind"] for problem in found["problems"]} == {"models", "embedding"}
    (mix,) = (problem["detail"] for problem in found["problems"] if problem["kind"] == "models")
    # Three neighbours of the changed document have lost theirs, since their part was written again.
    assert "[dense] mixes the embeddings of 2 models: 6 rows of" in mix
    assert "1 rows of" in mix
