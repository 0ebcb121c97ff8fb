"""The process that serves: its socket, and an end that leaves no accepted request without its answer."""

import asyncio
import gc
import ipaddress
import socket
from contextlib import suppress

import uvicorn

from pipeline.errors import PipelineError
from pipeline.logs import log
from pipeline.serve.app import create_app
from pipeline.serve.corpus import Corpus
from pipeline.serve.security import Door, open_door
from pipeline.stop import stopping_by_itself

DRAIN_SECONDS = 1.0
"""How long a connection that is open when the server stops may still bring a request."""

FINISH_SECONDS = 30
"""How long requests that were accepted may take when the server stops."""

CONNECTIONS = 2048
"""Connections and requests at the same time; beyond it the answer is 503 at once."""

GARBAGE = 20_000
"""New objects after which cycles of garbage are looked for; Python's own 700 are those of a few requests."""


def serve(corpus: Corpus, host: str, port: int, api_key: str | None = None) -> None:
    """Serve until interrupted.

    Args:
        corpus: what is served.
        host: address to listen on.
        port: its port; 0 takes a free one.
        api_key: reference to the key that requests must bring, ``env:NAME`` or ``file:PATH``; None for none.

    Raises:
        PipelineError: the address cannot be listened on, or is not on this machine and there is no key.
    """
    door = open_door(host, api_key)
    listener = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    log.info("serving at http://%s:%s/ (Ctrl-C ends it)", shown, listener.getsockname()[1])
    config = uvicorn.Config(
        create_app(corpus, door),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=FINISH_SECONDS,
    )
    # What has been imported stays: no collection of garbage goes through it again. Requests make hundreds of objects
    # and hardly any cycles.
    gc.freeze()
    gc.set_threshold(GARBAGE)
    # uvicorn raises the signal that ended it once more; a server that was told to stop, and did, has not failed.
    with stopping_by_itself(), suppress(SystemExit, KeyboardInterrupt):
        Server(config, door).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    try:
        is_v6 = ipaddress.ip_address(host).version == 6
    except ValueError:
        is_v6 = False
    family = socket.AF_INET6 if is_v6 else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=CONNECTIONS)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    raise PipelineError(f"[{host}:{port}] cannot be listened on: {reason}; name another --port or --host")


class Server(uvicorn.Server):
    """Stops in order: no new connection, then the answers to what was sent on those that are open."""

    def __init__(self, config: uvicorn.Config, door: Door) -> None:
        super().__init__(config)
        self._door = door

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; see `uvicorn.Server.shutdown`."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        # From here on each answer ends its connection. One that is open may have a request under way to us, which is
        # read and answered before idle connections are closed.
        self._door.is_closing = True
        loop = asyncio.get_running_loop()
        end = loop.time() + DRAIN_SECONDS
        while self.server_state.connections and loop.time() < end:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)
