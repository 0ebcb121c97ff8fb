"""The process: it answers what it accepted before it stops, and an endpoint of ours can be a model of another."""

import asyncio
import json
import urllib.request
from pathlib import Path

from support.serving import serving

from models.endpoints.registry import Registry
from models.open_model import open_model

BODY = json.dumps({"input": ["how many career sacks did he have"], "input_type": "search"}).encode()


async def ask_until_closed(port: int, answered: list[int], broken: list[str], go: asyncio.Event) -> None:
    """Send requests on one connection for as long as the server keeps it open."""
    request = (
        f"POST /_inference/.minilm-l6-v2 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(BODY)}\r\n\r\n"
    ).encode() + BODY
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    last = False
    while not last:
        writer.write(request)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            broken.append(repr(error))
            break
        answered.append(int(head[9:12]))
        last = b"connection: close" in head
        if len(answered) > 200:
            go.set()
    writer.close()


def test_a_server_under_load_answers_what_it_accepted_before_it_stops(tmp_path: Path) -> None:
    answered: list[int] = []
    broken: list[str] = []

    async def play(server: object) -> int:
        port, go = int(server.url.rpartition(":")[2]), asyncio.Event()  # type: ignore[attr-defined]
        clients = [asyncio.create_task(ask_until_closed(port, answered, broken, go)) for _ in range(64)]
        await go.wait()
        code = await asyncio.to_thread(server.stop)  # type: ignore[attr-defined]
        await asyncio.gather(*clients)
        return code

    with serving(folder=tmp_path) as server:
        assert asyncio.run(play(server)) == 0
    assert broken == []
    assert set(answered) == {200}
    assert len(answered) > 264


def test_queries_of_a_cluster_get_the_embeddings_of_the_documents_model(tmp_path: Path) -> None:
    """The recipe of docs/serve.md, with the clients of both services that a cluster would use."""
    registry = Registry(tmp_path / "cluster")
    with serving("--api-key", "env:SERVE_KEY", folder=tmp_path, SERVE_KEY="sk-1") as server:
        openai = {"url": f"{server.url}/v1/embeddings", "model_id": ".minilm-l6-v2", "api_key": "sk-1"}
        registry.put("queries", {"service": "openai", "service_settings": openai}, "text_embedding")
        custom = {
            "url": f"{server.url}/v1/sparse_embeddings",
            "secret_parameters": {"api_key": "sk-1"},
            "headers": {"Authorization": "Bearer ${api_key}", "Content-Type": "application/json"},
            "request": '{"model": ".splade-tiny", "input": ${input}}',
            "response": {
                "json_parser": {
                    "token_path": "$.data[*].embedding[*].token",
                    "weight_path": "$.data[*].embedding[*].weight",
                }
            },
        }
        body = {"service": "custom", "service_settings": custom}
        registry.put("sparse-queries", body, "sparse_embedding")
        for inference_id, here in (("queries", ".minilm-l6-v2"), ("sparse-queries", ".splade-tiny")):
            theirs = open_model(registry.get(inference_id)).load().embed(["a fox"], "search")
            ours = open_model(Registry(None).get(here)).load().embed(["a fox"], "search")
            if here == ".minilm-l6-v2":
                assert theirs.values.tolist() == ours.values.tolist()
            else:
                assert {t: round(w, 5) for t, w in theirs.row(0).items()} == {
                    t: round(w, 5) for t, w in ours.row(0).items()
                }
        metrics = urllib.request.Request(f"{server.url}/metrics", headers={"Authorization": "Bearer sk-1"})
        assert b'texts_total{inference_id=".splade-tiny"} 1.0' in urllib.request.urlopen(metrics).read()
