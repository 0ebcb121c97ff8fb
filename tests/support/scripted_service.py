"""A service to talk HTTP with over loopback, in a process of its own, that answers as a script says.

Each request takes the next step of the script; the last step repeats. A step is an object:

    status, headers   of the response (200, none)
    body              its text; without it, embeddings in the shape of the service that the request is for
    delay             seconds before the response starts
    drip              seconds between its bytes
    cut               bytes to send of it, though the header promises all
    megabytes         a response of this size instead, streamed
    drop              1 adds an embedding too many, -1 leaves one out
    echo              true answers with everything that was sent, headers included

The embedding of a text is [its length, its first character's code, 1].
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock

from support.paths import ROOT


def vector(text):
    return [float(len(text)), float(ord(text[0])) if text else 0.0, 1.0]


def sparse(text):
    return {word: float(len(word)) for word in text.split()}


def texts_of(body):
    if "requests" in body:
        return [request["content"]["parts"][0]["text"] for request in body["requests"]]
    if "instances" in body:
        return [instance["content"] for instance in body["instances"]]
    if "inputText" in body:
        return [body["inputText"]]
    texts = next(body[key] for key in ("input", "inputs", "texts", "contents") if key in body)
    return texts if isinstance(texts, list) else [texts]


def embeddings_for(path, body, drop=0):
    """The answer of the service that such a request is for."""
    texts = texts_of(body)
    texts = texts[:drop] if drop < 0 else texts + [""] * drop
    vectors = [vector(text) for text in texts]
    if "sparse_embedding" in path:
        return {"sparse_embedding": [{"is_truncated": False, "embedding": sparse(text)} for text in texts]}
    if "_inference/" in path or ("invocations" in path and "model" not in body):
        return {"text_embedding": [{"embedding": v} for v in vectors]}
    if "text-sparse-embedding" in path:
        rows = [
            {
                "index": i,
                "embedding": [{"token_id": j, "weight": w} for j, w in enumerate(sparse(t).values())],
            }
            for i, t in enumerate(texts)
        ]
        return {"result": {"sparse_embeddings": rows[::-1]}}
    if "openapi/workspaces" in path:
        return {"result": {"embeddings": [{"index": i, "embedding": v} for i, v in enumerate(vectors)][::-1]}}
    if "requests" in body:
        return {"embeddings": [{"values": v} for v in vectors]}
    if "instances" in body:
        return {"predictions": [{"embeddings": {"values": v}} for v in vectors]}
    if "inputText" in body:
        return {"embedding": vectors[0]}
    if "texts" in body:
        return {"embeddings": {body.get("embedding_types", ["float"])[0]: vectors}}
    if "contents" in body:
        return {"embeddings": vectors}
    if "inputs" in body:
        return {"results": [{"embedding": v} for v in vectors]} if "project_id" in body else vectors
    return {"data": [{"index": i, "embedding": v} for i, v in enumerate(vectors)][::-1]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script, seen, lock = [], [], Lock()

    def do_GET(self):
        self.respond(200, {}, json.dumps(self.seen).encode())

    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        is_json = "json" in self.headers.get("Content-Type", "")
        body = json.loads(raw) if is_json else {"form": raw.decode()}
        with self.lock:
            step = self.script[min(len(self.seen), len(self.script) - 1)]
            headers = {name.title(): value for name, value in self.headers.items()}
            entry = {"path": self.path, "headers": headers, "body": body, "at": time.time(), "sent": 0}
            self.seen.append(entry)
        time.sleep(step.get("delay", 0))
        entry["delayed"] = step.get("delay", 0)
        if "megabytes" in step:
            return self.stream(step["megabytes"], entry)
        if step.get("echo"):
            text = json.dumps({"error": {"message": f"no: {dict(self.headers.items())} {raw.decode()}"}})
        elif "form" in body:
            text = json.dumps({"access_token": "token-from-server", "expires_in": 3600})
        else:
            text = step.get("body") or json.dumps(embeddings_for(self.path, body, step.get("drop", 0)))
        self.respond(step.get("status", 200), step.get("headers", {}), text.encode(), step)

    def respond(self, status, headers, body, step=()):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        body = body[: step["cut"]] if "cut" in step else body
        if "drip" in step:
            for byte in body:
                time.sleep(step["drip"])
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
        else:
            self.wfile.write(body)
        self.close_connection = "cut" in step

    def stream(self, megabytes, entry):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        chunk = b"[0.25," * (1 << 17)
        for _ in range(int(megabytes * (1 << 20) / len(chunk))):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            entry["sent"] += len(chunk)

    def log_message(self, *_):
        pass

    def handle(self):
        try:
            super().handle()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


class Service:
    """A running server."""

    def __init__(self, url):
        self.url = url

    @property
    def requests(self):
        with urllib.request.urlopen(self.url, timeout=60) as response:
            return json.load(response)


@contextmanager
def scripted_service(*steps):
    """Run a server in a process of its own; without steps, it answers well."""
    yield from _run([sys.executable, __file__, json.dumps(list(steps) or [{}])])


@contextmanager
def openai_service():
    """Run the OpenAI-compatible server that embeds with the local MiniLM."""
    yield from _run([sys.executable, str(Path(__file__).with_name("openai_server.py"))])


def _run(command):
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}
    )
    try:
        yield Service(f"http://127.0.0.1:{int(process.stdout.readline())}")
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    Handler.script = json.loads(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
