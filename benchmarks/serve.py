"""The server under load, on loopback: clients that ask as fast as they get answers.

    python benchmarks/serve.py --seconds 60

Prints first what a text costs over HTTP: processor seconds of the server's process for each text, beside those of the
engine in this process, on batches of 64 and on batches as large as those that the server joined, in alternating rounds.
The client's processor time counts for neither. Then the wall-clock with the server on one core and its clients on
another, against the engine on the server's core. Last, for each way to ask: answers a second, their 50th and 99th
percentile, and statuses other than 200. On a machine that others use only ratios of what ran in turn say something.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXTS = ("how many career sacks did jared allen have", "who won the final in santa clara")
ENDPOINT = ".minilm-l6-v2"


async def client(port: int, body: bytes, until: float, waits: list[float], statuses: Counter[int]) -> None:
    """One connection that asks again as soon as it has its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST /_inference/{ENDPOINT} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    while time.monotonic() < until:
        started = time.monotonic()
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(answer.split(b"content-length:")[1].split(b"\r\n")[0]))
        waits.append(time.monotonic() - started)
        statuses[int(answer[9:12])] += 1
    writer.close()


def ask(
    server: subprocess.Popen[str], port: int, clients: int, texts: int, seconds: float
) -> dict[str, float]:
    """Put load on the server and return what came of it."""
    body = json.dumps({"input": [TEXTS[at % 2] for at in range(texts)]}).encode()
    waits: list[float] = []
    statuses: Counter[int] = Counter()

    async def play() -> None:
        until = time.monotonic() + seconds
        await asyncio.gather(*(client(port, body, until, waits, statuses) for _ in range(clients)))

    before = processor_seconds(server.pid)
    asyncio.run(play())
    used = processor_seconds(server.pid) - before
    waits.sort()
    return {
        "clients": clients,
        "texts a request": texts,
        "requests/s": len(waits) / seconds,
        "texts/s": texts * statuses[200] / seconds,
        "p50 ms": 1000 * waits[len(waits) // 2],
        "p99 ms": 1000 * waits[int(len(waits) * 0.99)],
        "429": statuses[429],
        "errors": sum(statuses.values()) - statuses[200] - statuses[429],
        "cpu us/text": 1e6 * used / max(texts * statuses[200], 1),
    }


def processor_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Served:
    """A server that runs.

    Attributes:
        process: its process.
        port: its port.
    """

    process: subprocess.Popen[str]
    port: int

    def batches(self) -> tuple[float, float]:
        """Calls of the model so far, and their texts."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        found = [
            sum(
                float(line.split()[-1])
                for line in lines
                if line.startswith(f"semantic_ingest_serve_{name}_total")
            )
            for name in ("batches", "texts")
        ]
        return found[0], found[1]

    def ask(self, clients: int, texts: int, seconds: float) -> dict[str, float]:
        """Put load on it; see `ask`."""
        calls, before = self.batches()
        found = ask(self.process, self.port, clients, texts, seconds)
        more_calls, after = self.batches()
        return {**found, "texts a batch": (after - before) / (more_calls - calls)}


class Engine:
    """The engine in this process."""

    def __init__(self) -> None:
        """Load the model."""
        from models.endpoints.registry import Registry
        from models.open_model import open_model

        self._embedder = open_model(Registry().get(ENDPOINT), {}).load()

    def measure(self, texts: int, seconds: float) -> tuple[float, float]:
        """Processor time and wall time for each text, in microseconds, on batches of so many texts."""
        batch = [TEXTS[at % 2] for at in range(texts)]
        self._embedder.embed(batch, "ingest")
        start, used, done = time.monotonic(), time.process_time(), 0
        while time.monotonic() < start + seconds:
            self._embedder.embed(batch, "ingest")
            done += texts
        return 1e6 * (time.process_time() - used) / done, 1e6 * (time.monotonic() - start) / done

    def close(self) -> None:
        """Let go of the model."""
        self._embedder.close()


def cost(served: Served, engine: Engine, texts: int, seconds: float, rounds: int) -> None:
    """Print what a text costs the server and the engine, in alternating rounds."""
    rows = []
    for _ in range(rounds):
        full = engine.measure(64 if texts == 1 else 512, seconds / 2)[0]
        found = served.ask(64, texts, seconds)
        same = engine.measure(max(1, round(found["texts a batch"])), seconds / 2)[0]
        used = found["cpu us/text"]
        rows.append((used, found["texts a batch"], full, same, full / used, same / used))
    server, joined, full, same, of_full, of_same = (
        statistics.median(column) for column in zip(*rows, strict=True)
    )
    spread = ", ".join(f"{row[4]:.2f}" for row in rows)
    print(
        f"{texts} text(s) a request: server {server:,.0f} us of processor time a text in batches of {joined:.0f},"
        f" engine {same:,.0f} on the same batches ({of_same:.2f}), {full:,.0f} on full ones ({of_full:.2f}: {spread})",
        flush=True,
    )


def apart(served: Served, seconds: float, rounds: int) -> None:
    """Print the wall-clock with the server on one core and its clients on another."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("one core: no wall-clock with clients apart")
        return
    _pin(served.process.pid, {cores[0]})
    engine = Engine()
    ratios = []
    for _ in range(rounds):
        _pin(os.getpid(), {cores[0]})
        alone = 1e6 / engine.measure(64, seconds / 2)[1]
        _pin(os.getpid(), {cores[1]})
        ratios.append(served.ask(64, 1, seconds)["texts/s"] / alone)
    engine.close()
    for pid in (served.process.pid, os.getpid()):
        _pin(pid, set(cores))
    shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(
        f"clients on a core of their own: {statistics.median(ratios):.2f} of the engine's texts a second ({shown})"
    )


def _pin(pid: int, cores: set[int]) -> None:
    """Keep all threads of a process on some cores."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread.name), cores)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, default=60, help="Of load without a pause; rounds are a tenth of it."
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    seconds, rounds = options.seconds, options.rounds
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "serve", "--port", "0"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        port = int(next(line for line in process.stderr if "serving at" in line).split(":")[3].split("/")[0])
        served = Served(process, port)
        served.ask(8, 1, 2)
        engine = Engine()
        for texts in (1, 16):
            cost(served, engine, texts, seconds / 10, rounds)
        engine.close()
        apart(served, seconds / 10, rounds)
        for clients, texts, share in (
            (64, 1, 1.0),
            (1, 1, 0.25),
            (64, 16, 0.25),
            (64, 1, 0.25),
            (1, 1, 0.25),
        ):
            found = served.ask(clients, texts, seconds * share)
            print("  ".join(f"{name} {value:,.0f}" for name, value in found.items()), flush=True)
        process.send_signal(signal.SIGTERM)
        print("exit code", process.wait(60))


if __name__ == "__main__":
    main()
