"""An OpenAI-compatible embeddings server that embeds with the local MiniLM: ``POST /v1/embeddings``."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from models.endpoints.registry import Registry
from models.open_model import open_model


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    embedder = None

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != "Bearer sk-planted-4711":
            return self.respond(401, {"error": {"message": "Incorrect API key provided"}})
        embeddings = self.embedder.embed(body["input"], "ingest").values
        rows = [
            {"object": "embedding", "index": i, "embedding": v.tolist()} for i, v in enumerate(embeddings)
        ]
        self.respond(
            200, {"object": "list", "data": rows, "model": body["model"], "usage": {"total_tokens": 1}}
        )

    def respond(self, status, answer):
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    Handler.embedder = open_model(Registry().get(".minilm-l6-v2")).load("cpu")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
