"""Simulated nights over a source that changes, with something going wrong in most of them.

After each night the table must hold exactly what the day's source says: computed here directly, document by document,
without a pipeline. A document that failed keeps its row of the night before, and nothing is deleted while some of the
source cannot be read.
"""

import json
import os
import random
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support.nights import NightRun, Outcome, assert_same_rows, document

from models.endpoints.registry import Registry
from models.open_model import open_model

DIMENSIONS = 64
FLAPPING = "flapping"


class FlappingService:
    """An OpenAI-compatible service on the loopback that embeds by hashing, and fails as it is told.

    Attributes:
        mood: what it does: ``well``, ``flapping`` (some requests end in 500, 429, a hang or a broken connection),
            ``down`` (all end in 503) or ``picky`` (texts that hold the word POISON are refused for good).
        answers: status -> how often it was given.
    """

    def __init__(self, seed: int) -> None:
        self.mood = "well"
        self.answers: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._embedder = open_model(Registry().get(".hashing-dense")).load()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.answer(self, body["input"])

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/embeddings"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, handler: Any, texts: list[str]) -> None:
        """Answer one request, or fail to."""
        trouble = (
            self._chance.choice(["500", "429", "hang", "cut", *[""] * 6]) if self.mood == FLAPPING else ""
        )
        trouble = "503" if self.mood == "down" else trouble
        if self.mood == "picky" and any("POISON" in text for text in texts):
            trouble = "400"
        self.answers[trouble or "200"] += 1
        if trouble == "hang":
            time.sleep(0.3)
            trouble = "500"
        if trouble == "cut":
            # To close it is not enough: the handler's files hold the connection open.
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
            return
        if trouble:
            self._send(handler, int(trouble), {"error": {"message": "not now"}})
            return
        vectors = self._embedder.embed(texts, "ingest").values
        rows = [{"index": place, "embedding": vector.tolist()} for place, vector in enumerate(vectors)]
        self._send(handler, 200, {"data": rows, "model": "hash", "usage": {"total_tokens": 1}})

    @staticmethod
    def _send(handler: Any, status: int, answer: Any) -> None:
        content = json.dumps(answer).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        if status == 429:
            handler.send_header("Retry-After", "0")
        handler.end_headers()
        handler.wfile.write(content)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


def define_endpoint(folder: Path, url: str) -> None:
    """Define the flapping service as an inference endpoint."""
    settings = {"model_id": "hash", "api_key": "env:SOAK_API_KEY", "url": url, "dimensions": DIMENSIONS}
    os.environ["SOAK_API_KEY"] = "loopback"
    folder.mkdir(exist_ok=True)
    body = {"service": "openai", "task_type": "text_embedding", "service_settings": settings}
    (folder / "remote.json").write_text(json.dumps({"inference_id": "remote", **body}))


class Soak:
    """A table, its source, and the nights.

    Args:
        folder: where everything is; the table lies on a small disk of its own where one can be mounted.
        seed: of everything random.
        documents: in the source on the first day.
    """

    def __init__(self, folder: Path, seed: int = 0, documents: int = 60) -> None:
        self.chance = random.Random(seed)
        self.folder = folder
        self.service = FlappingService(seed)
        self.job = NightRun(folder)
        self.job.corpus = folder / "source"
        self.job.corpus.mkdir()
        define_endpoint(folder / "endpoints", self.service.url)
        properties = self.job.config["mappings"]["properties"]
        properties["text"]["copy_to"] = ["dense", "sparse", "remote"]
        properties["remote"] = {**properties["dense"], "inference_id": "remote"}
        self.job.config["source"] = {"format": "jsonl", "path": str(self.job.corpus), "max_delete_ratio": 0.6}
        self.job.config["endpoints"] = {"path": str(folder / "endpoints")}
        self.job.config["failures"]["max_ratio"] = 0.3
        self.day: dict[str, dict[str, Any]] = {f"d{n}": document(n) for n in range(documents)}
        self.next = documents
        self.edition = 0
        self.expected: dict[str, Any] = {}
        self.published: dict[str, str] = {}
        self.injected: Counter[str] = Counter()
        self.survived: Counter[str] = Counter()
        self.ends: Counter[int] = Counter()
        self.versions = 0

    def live_a_day(self) -> None:
        """Change the source: adds, edits, deletes, ids that come back with another content."""
        self.edition += 1
        gone = self.chance.sample(sorted(self.day), k=self.chance.randint(0, 6))
        for name in gone:
            del self.day[name]
        for name in self.chance.sample(sorted(self.day), k=self.chance.randint(0, 8)):
            self.day[name] = {**document(int(name[1:]), self.edition), "_id": name}
        for _ in range(self.chance.randint(0, 6)):
            self.day[f"d{self.next}"] = document(self.next)
            self.next += 1
        for name in gone[:2]:
            if self.chance.random() < 0.5:  # the id is used again for something else
                self.day[name] = {**document(1000 + self.edition), "_id": name}

    def write(self) -> list[Path]:
        """Write the day's source as a few files; returns them."""
        names = sorted(self.day, key=lambda name: int(name[1:]))
        files = []
        for number in range(3):
            path = self.job.corpus / f"{number}.jsonl"
            path.write_text("".join(json.dumps(self.day[name]) + "\n" for name in names[number::3]))
            files.append(path)
        return files

    def settle(self, failed: set[str] = frozenset(), *, held_back: bool = False) -> None:
        """Say what the table must hold after a night that published."""
        wanted = {name: json.dumps(fields) for name, fields in self.day.items() if name not in failed}
        gone = self.published.keys() - self.day.keys() if held_back else set()
        kept = {name: self.published[name] for name in gone}
        kept |= {name: self.published[name] for name in failed if name in self.published}
        self.published = {**kept, **wanted}

    def check(self) -> None:
        """Compare the table with what it must hold."""
        found = self.job.rows() if self.published or self.job.part_files() else {}
        assert_same_rows(
            found, {name: self.row(json.loads(content)) for name, content in self.published.items()}
        )

    def row(self, fields: dict[str, Any]) -> dict[str, Any]:
        """A row as it must be, made without a pipeline."""
        key = json.dumps(fields)
        if key not in self.expected:
            self.expected[key] = direct_row(self.job, fields)
        return self.expected[key]

    def night(self, what: Callable[["Soak"], None]) -> None:
        """Live a day, let something go wrong at night, and check that the next clean run puts everything right."""
        self.live_a_day()
        before = Counter(self.injected)
        what(self)
        self.check()
        outcome = self.clean_run()
        assert outcome.code == 0, outcome
        self.settle()
        self.check()
        self.survived.update(self.injected - before)

    def run(self, *arguments: str, **how: Any) -> Outcome:
        """Run once and count how it ended."""
        outcome = self.job.night("--allow-mass-delete", *arguments, **how)
        assert "Traceback" not in outcome.output, outcome
        self.ends[outcome.code] += 1
        return outcome

    def clean_run(self) -> Outcome:
        """The run of a night without trouble, the day's source as it is."""
        self.service.mood = "well"
        self.write()
        return self.run()

    def verify(self) -> None:
        """The table against itself, its log and its index; then the same rows from nothing."""
        verified = self.job.json(command="verify")
        assert verified["ok"], verified

    def rebuild(self, folder: Path) -> None:
        """Build a table of the day's source from nothing and compare."""
        folder.mkdir()
        fresh = NightRun(folder)
        fresh.config = {
            **self.job.config,
            "table": {"path": str(folder / "table"), "part_rows": 7},
            "index": {"path": str(folder / "index")},
        }
        self.service.mood = "well"
        assert fresh.night().code == 0
        assert_same_rows(self.job.rows(), fresh.rows())


def direct_row(job: NightRun, fields: dict[str, Any]) -> dict[str, Any]:
    """A document's row, made by the pure functions alone."""
    from datetime import UTC, datetime

    import orjson

    from pipeline.config.resolve import resolve
    from pipeline.config.run_config import RunConfig
    from transforms.chunk.documents import chunk_document
    from transforms.read.documents import to_document
    from transforms.records import ChunkedDocument, EmbeddedField, Location
    from transforms.table.write import build_table

    resolved = resolve(RunConfig.model_validate(job.config))
    found = to_document(orjson.loads(orjson.dumps(fields)), "_id", Location("", 1))
    chunks, embedded = {}, {}
    for field in resolved.fields:
        name = field.field.name
        chunks[name] = chunk_document(found, field.field)
        model = open_model(Registry().get(".hashing-dense")) if name == "remote" else field.model
        texts = [chunk.text for chunk in chunks[name]]
        embedded[name] = EmbeddedField(chunks[name], model.load().embed(texts, "ingest") if texts else None)
    found.columns.update(resolved.shape.column_values(found.source))
    row = ChunkedDocument(found, chunks, embedded)
    table = build_table([row], resolved.layout, "", datetime.now(UTC))
    return table.drop_columns(["run_id", "ingested_at"]).to_pylist()[0]


# what can go wrong in a night


KILL_POINTS = [
    ("pipeline.run.plan.begin_run", "after", 1),
    ("pipeline.run.plan.read_scans", "before", 1),
    ("pipeline.run.job.write_work", "after", 1),
    ("transforms.table.write.write_part", "after", 1),
    ("os.replace", "before", 4),
    ("pipeline.run.job.collect_changes", "after", 1),
    ("pipeline.run.publish.commit", "before", 1),
    ("pipeline.run.publish.commit", "after", 1),
    ("transforms.index.update._write_generation", "before", 1),
    ("transforms.index.state.IndexState.save", "before", 1),
]


def killed_at_a_point(soak: Soak) -> None:
    """SIGKILL at a chosen point."""
    soak.write()
    version = table_version(soak)
    outcome = soak.run(traps=[(*soak.chance.choice(KILL_POINTS), "SIGKILL")])
    if outcome.code == -signal.SIGKILL:
        soak.injected["killed at a chosen point"] += 1
    if table_version(soak) != version:
        soak.settle()


def killed_at_random(soak: Soak) -> None:
    """SIGKILL two to four times at random moments of a run."""
    for _ in range(soak.chance.randint(2, 4)):
        soak.write()
        version = table_version(soak)
        running = soak.job.start("--allow-mass-delete")
        time.sleep(soak.chance.uniform(0.02, 1.5))
        running.signal(signal.SIGKILL)
        soak.injected["killed at a random moment"] += running.wait().code == -signal.SIGKILL
        if table_version(soak) != version:
            soak.settle()


def stopped(soak: Soak) -> None:
    """Ctrl-C or SIGTERM in the middle."""
    soak.write()
    version = table_version(soak)
    name, code = soak.chance.choice([("SIGINT", 130), ("SIGTERM", 143)])
    point = soak.chance.choice(
        [("pipeline.run.plan.make_plan", "after", 1), ("pipeline.run.publish.commit", "before", 1)]
    )
    outcome = soak.run(traps=[(*point, name)])
    assert outcome.code in (0, code), outcome
    soak.injected[f"{name} in the middle"] += outcome.code == code
    if table_version(soak) != version:
        soak.settle()


def full_disk(soak: Soak) -> None:
    """The table's disk takes no more: a real small disk where one can be mounted, else a limit on files."""
    soak.write()
    version = table_version(soak)
    with small_disk(Path(soak.job.table_path)) as mounted:
        outcome = soak.run(file_bytes=None if mounted else 3_000)
    soak.injected["full disk" if mounted else "file too large"] += outcome.code == 1
    assert outcome.code in (0, 1), outcome
    if table_version(soak) != version:
        soak.settle()


def full_staging(soak: Soak) -> None:
    """The run's own small files do not fit."""
    soak.write()
    version = table_version(soak)
    outcome = soak.run(file_bytes=soak.chance.choice([100, 1_500]))
    soak.injected["full staging folder"] += outcome.code == 1
    assert outcome.code in (0, 1), outcome
    if table_version(soak) != version:
        soak.settle()


def corrupt_source(soak: Soak) -> None:
    """Lines that are no JSON, a line cut in half, bytes that are no UTF-8, no id, older copies of some documents."""
    files = soak.write()
    lines = files[1].read_bytes().splitlines()
    cut = soak.chance.randrange(len(lines))
    lost = json.loads(lines[cut])["_id"]
    lines[cut] = lines[cut][: len(lines[cut]) // 2]
    # The same ids earlier in the source, with other content: the later one wins.
    repeated = soak.chance.sample(sorted(soak.day.keys() - {lost}), k=4)
    older = [json.dumps({**soak.day[name], "title": "an older copy"}) + "\n" for name in repeated]
    files[0].write_text("".join(older) + files[0].read_text())
    soak.injected["duplicate ids"] += len(older)
    lines += [b'{"title": "no id"}', b"[1, 2]", b'{"_id": "bad", "text": "\xff\xfe"}', b"not json"]
    soak.chance.shuffle(lines)
    files[1].write_bytes(b"\n".join(lines) + b"\n")
    soak.injected["unreadable lines"] += 5
    outcome = soak.run()
    assert outcome.code == 0, outcome
    soak.settle({lost}, held_back=True)


def too_much_is_corrupt(soak: Soak) -> None:
    """Most of the source is damaged: exit code 4, nothing published."""
    for path in soak.write():
        path.write_bytes(b"\x00" * 100 + b"\n" + b"garbage\n" * 60)
    outcome = soak.run()
    assert outcome.code in (1, 4), outcome
    soak.injected["ruined source"] += 1


def missing_mount(soak: Soak) -> None:
    """The source's folder is empty, as a mount point without its mount is."""
    for path in soak.write():
        path.unlink()
    assert soak.run().code == 1
    soak.injected["missing mount"] += 1


def missing_rights(soak: Soak) -> None:
    """The run's user may not write the table, or not read a source file."""
    files = soak.write()
    for place in (soak.folder, *soak.folder.parents):
        if place.stat().st_uid == os.getuid() and place.is_relative_to(tempfile.gettempdir()):
            place.chmod(place.stat().st_mode | 0o777)
    target = soak.chance.choice([Path(soak.job.table_path) / "_runs", files[0]])
    target.parent.chmod(0o777)
    target.chmod(0o555 if target.is_dir() else 0o000)
    outcome = soak.run(user=65534 if os.getuid() == 0 else None)
    target.chmod(0o777)
    assert outcome.code == 1, outcome
    assert "ermission denied" in outcome.output, outcome
    soak.injected["missing rights"] += 1


def flapping_service(soak: Soak) -> None:
    """The remote endpoint fails every now and then; the client's patience carries the run through."""
    soak.write()
    soak.service.mood = FLAPPING
    given = Counter(soak.service.answers)
    version = table_version(soak)
    outcome = soak.run()
    soak.injected["answers of a flapping service"] += sum((soak.service.answers - given).values()) - (
        soak.service.answers["200"] - given["200"]
    )
    settle_failures(soak, outcome, version)


def service_refuses_some(soak: Soak) -> None:
    """The service refuses single texts for good: exactly those documents fail, and are tried again."""
    victims = soak.chance.sample(sorted(soak.day), k=2)
    for name in victims:
        soak.day[name] = {**soak.day[name], "text": soak.day[name]["text"] + f" POISON {soak.edition}."}
    soak.write()
    soak.service.mood = "picky"
    version = table_version(soak)
    outcome = soak.run()
    assert outcome.code == 0, outcome
    assert soak.job.summary["documents"]["failed"] == 2, soak.job.summary
    soak.injected["documents a service refuses"] += 2
    settle_failures(soak, outcome, version)


def settle_failures(soak: Soak, outcome: Outcome, version: int | None) -> None:
    """Take from the failure report which documents failed; too many of them, and nothing was published."""
    assert outcome.code in (0, 4), outcome
    if outcome.code == 4:
        assert table_version(soak) == version
        return
    failed: set[str] = set()
    if soak.job.summary["failures_path"]:
        lines = Path(soak.job.summary["failures_path"]).read_text().splitlines()
        failed = {json.loads(line)["document_id"] for line in lines}
    soak.settle(failed)


def two_at_once(soak: Soak) -> None:
    """Two runs at the same time: one publishes."""
    soak.write()
    version = table_version(soak)
    outcomes = soak.job.two_at_once("--allow-mass-delete")
    assert not any("Traceback" in one.output for one in outcomes), outcomes
    codes = sorted(one.code for one in outcomes)
    assert codes in ([0, 1], [0, 0]), outcomes
    soak.injected["two runs at once"] += codes == [0, 1]
    if table_version(soak) != version:
        soak.settle()


def a_step_back(soak: Soak) -> None:
    """Somebody restores an older version and clears away old files."""
    version = table_version(soak)
    if version and version > 1:
        target = soak.chance.randrange(max(1, version - 2), version)
        outcome = soak.job.night(str(target), command="restore")
        assert outcome.code in (0, 1), outcome
        soak.injected["restore of an older version"] += outcome.code == 0
    assert soak.job.night("--older-than", "0", command="vacuum").code == 0
    soak.injected["vacuum without mercy"] += 1
    assert soak.clean_run().code == 0
    soak.settle()


TROUBLES = [
    killed_at_a_point,
    killed_at_random,
    flapping_service,
    full_disk,
    corrupt_source,
    two_at_once,
    missing_mount,
    service_refuses_some,
    full_staging,
    stopped,
    too_much_is_corrupt,
    missing_rights,
    a_step_back,
]


def table_version(soak: Soak) -> int | None:
    """The newest version whose rows are new; None before the first. A new description comes before its rows."""
    from deltalake import DeltaTable

    if not DeltaTable.is_deltatable(soak.job.table_path):
        return None
    history = DeltaTable(soak.job.table_path).history()
    return next(
        (one["version"] for one in history if "described" not in str(one.get("semantic_ingest"))), None
    )


@contextmanager
def small_disk(table: Path) -> Iterator[bool]:
    """Put the table on a disk with 4 kB to spare for the time of a run; yields whether that was possible."""
    size = sum(path.stat().st_size for path in table.rglob("*") if path.is_file())
    pages = sum(-(-path.stat().st_size // 4096) for path in table.rglob("*") if path.is_file())
    aside = table.with_name("table-aside")
    table.rename(aside)
    table.mkdir()
    options = f"size={(pages + 12) * 4 + size // 4_000_000}k"
    mounted = (
        os.getuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(table)], capture_output=True
        ).returncode
    )
    if not mounted:
        table.rmdir()
        aside.rename(table)
        yield False
        return
    subprocess.run(["cp", "-a", f"{aside}/.", str(table)], check=True)
    yield True
    moved = table.with_name("table-moved")
    subprocess.run(["cp", "-a", f"{table}/.", str(moved)], check=True)
    subprocess.run(["umount", "-l", str(table)], check=True)
    table.rmdir()
    subprocess.run(["rm", "-r", str(aside)], check=True)
    moved.rename(table)


def run_nights(folder: Path, nights: int, seed: int, troubles: list[Any] | None = None) -> Soak:
    """Simulate nights.

    Args:
        folder: an empty folder.
        nights: how many.
        seed: of everything random.
        troubles: what goes wrong, night by night; by default every kind in turn, in random order.
    """
    soak = Soak(folder, seed)
    try:
        first = soak.clean_run()
        assert first.code == 0, first
        soak.settle()
        soak.check()
        order: list[Any] = []
        for number in range(nights):
            if not order:
                order = soak.chance.sample(TROUBLES, k=len(TROUBLES))
            trouble = troubles[number] if troubles is not None else order.pop()
            print(f"night {number + 1}: {trouble.__name__}", flush=True)
            soak.night(trouble)
            if number % 5 == 4 or number == nights - 1:
                soak.verify()
                soak.rebuild(folder / f"rebuilt-{number}")
        soak.versions = soak.job.version() + 1
    finally:
        soak.service.close()
    return soak
