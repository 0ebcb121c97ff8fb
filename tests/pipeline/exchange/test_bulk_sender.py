"""A cluster that is busy, says no, or goes away: no document is lost, and none is sent for ever."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pipeline.errors import PipelineError
from pipeline.exchange.elasticsearch.bulk import Body
from pipeline.exchange.elasticsearch.load import connect
from pipeline.exchange.elasticsearch.sender import BulkSender


class Scripted(ThreadingHTTPServer):
    """Answers `_bulk` by a script: for each request a status, or one status for each of its items."""

    def __init__(self, script: list[Any]) -> None:
        self.script, self.index, self.requests = script, {}, 0
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        lines = self.rfile.read(int(self.headers["Content-Length"])).split(b"\n")[:-1]
        with self.server.lock:
            self.server.requests += 1
            told = self.server.script.pop(0) if self.server.script else 200
            if told == "hang up":
                self.close_connection = True
                return
            if isinstance(told, int) and told >= 400:
                self.answer(told, {"error": {"type": "busy", "reason": "not now"}, "status": told})
                return
            self.answer(200, {"errors": True, "items": self.items(lines, told)})

    do_PUT = do_POST

    def items(self, lines: list[bytes], told: Any) -> list[Any]:
        items, rest = [], iter(lines)
        for action in rest:
            ((verb, target),) = json.loads(action).items()
            document = json.loads(next(rest)) if verb == "index" else None
            status = told(target["_id"]) if callable(told) else 200
            result = {"_id": target["_id"], "status": status}
            if status >= 400:
                result["error"] = {"type": "strange", "reason": "because", "caused_by": {"reason": "of this"}}
            elif verb == "index":
                self.server.index[target["_id"]] = document
            items.append({verb: result})
        return items

    def answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("X-Elastic-Product", "Elasticsearch")
        self.send_header("Content-Type", "application/vnd.elasticsearch+json;compatible-with=8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Any]:
    servers: list[Scripted] = []

    def start(script: list[Any]) -> Scripted:
        servers.append(Scripted(script))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def bodies(count: int, each: int = 10) -> list[Body]:
    found = []
    for number in range(count):
        ids = [f"d{number}-{place}" for place in range(each)]
        lines = {id_: (json.dumps({"index": {"_id": id_}}).encode(), b'{"a":1}') for id_ in ids}
        found.append(Body("part", lines, 100))
    return found


def send(server: Scripted, sent: list[Body], threads: int = 4) -> tuple[Any, int]:
    settled: list[int] = []
    sender = BulkSender(
        connect(f"http://127.0.0.1:{server.server_port}"), "x", threads, settled.append, pause=0.001
    )
    try:
        return sender.send(sent), sum(settled)
    finally:
        sender.close()


def test_a_storm_of_429_loses_nothing(serve: Any) -> None:
    def sometimes(id_: str) -> int:
        return 429 if hash((id_, server.requests)) % 3 == 0 else 200

    server = serve([429] * 8 + [sometimes] * 60 + [503, "hang up", 429, 502] * 3)
    refused, settled = send(server, bodies(30))
    assert (refused, settled) == ([], 300)
    assert len(server.index) == 300
    assert server.requests > 40


def test_what_is_refused_is_told_with_the_servers_reason_and_costs_itself_only(serve: Any) -> None:
    server = serve([lambda id_: 400 if id_ == "d0-3" else 200])
    refused, settled = send(server, bodies(1))
    assert [(one.id, one.status, one.type, one.reason) for one in refused] == [
        ("d0-3", 400, "strange", "because: of this")
    ]
    assert settled == 10
    assert len(server.index) == 9


def test_a_body_that_is_too_large_is_halved_and_a_document_that_is_too_large_refused(serve: Any) -> None:
    server = serve([413, 413, 413, 413, 413])
    refused, _ = send(server, bodies(1), threads=1)
    assert [one.status for one in refused] in ([413], [413, 413])
    assert len(server.index) == 10 - len(refused)


def test_a_cluster_that_stays_busy_ends_the_load(serve: Any) -> None:
    server = serve([429] * 1000)
    with pytest.raises(PipelineError, match="it goes on where it stopped"):
        send(server, bodies(2), threads=1)


def test_deleting_what_is_not_there_is_no_failure(serve: Any) -> None:
    server = serve([lambda id_: 404])
    refused, _ = send(server, [Body("deletions", {"gone": (b'{"delete":{"_id":"gone"}}',)}, 30)])
    assert refused == []


def test_an_error_that_no_waiting_mends_stops_at_once(serve: Any) -> None:
    server = serve([401])
    with pytest.raises(PipelineError, match="refuses bulk requests"):
        send(server, bodies(1))
    assert server.requests == 1
