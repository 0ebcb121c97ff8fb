"""PostgreSQL 18 with pgvector as WebAssembly, behind a socket. It serves one connection at a time."""

import pytest
from support.servers.process import SERVERS, ServerProcess


class PostgresServer(ServerProcess):
    """One database."""

    name = "PGlite"
    home = SERVERS / "pglite"

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres?sslmode=disable"

    def command(self) -> list[str]:
        if not (self.home / "node_modules").is_dir():
            pytest.fail(f"there is no {self.name} at {self.home}: run `make servers` (needs npm)")
        return ["node", str(self.home / "server.js"), str(self.port)]

    def is_ready(self) -> bool:
        """A connection that only knocks would take the only place that there is."""
        if "listening" in (self.folder / "server.log").read_text():
            return True
        raise OSError("not yet")
