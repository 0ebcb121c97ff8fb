"""The server under load, on loopback: clients that ask as fast as they get answers.

    python benchmarks/serve.py --seconds 60

Prints, for each way to ask: answers a second, their 50th and 99th percentile, statuses other than 200, and processor
time of the server for each text, beside that of the engine in this process on batches of the same texts. On a machine
that others use only the processor times, and ratios of what ran in turn, say something.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
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


def engine(texts: int, seconds: float) -> float:
    """Processor time for each text, in microseconds, of the engine in this process on batches of so many texts."""
    from models.endpoints.registry import Registry
    from models.open_model import open_model

    embedder = open_model(Registry().get(ENDPOINT), {}).load()
    batch = [TEXTS[at % 2] for at in range(texts)]
    embedder.embed(batch, "ingest")
    until, started, done = time.monotonic() + seconds, time.process_time(), 0
    while time.monotonic() < until:
        embedder.embed(batch, "ingest")
        done += texts
    used = time.process_time() - started
    embedder.close()
    return 1e6 * used / done


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "serve", "--port", "0"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert server.stderr is not None
        port = int(next(line for line in server.stderr if "serving at" in line).split(":")[3].split("/")[0])
        ask(server, port, 8, 1, 2)
        for clients, texts, share in (
            (64, 1, 1.0),
            (1, 1, 0.25),
            (64, 16, 0.25),
            (64, 1, 0.25),
            (1, 1, 0.25),
        ):
            alone = engine(64 if texts == 1 else 512, seconds / 10)
            found = ask(server, port, clients, texts, seconds * share)
            shown = "  ".join(f"{name} {value:,.0f}" for name, value in found.items())
            print(
                f"{shown}  engine {alone:,.0f} us/text, ratio {alone / found['cpu us/text']:.2f}", flush=True
            )
        server.send_signal(signal.SIGTERM)
        print("exit code", server.wait(60))


if __name__ == "__main__":
    main()
