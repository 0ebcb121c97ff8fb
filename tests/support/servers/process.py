"""One server process: a folder of its own, a port of its own, ready when it answers, gone when the test ends."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
SERVERS = ROOT / "build" / "servers"
START_SECONDS = 180


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def java_home(newest: int, oldest: int) -> Path:
    """A Java of at least `oldest` and at most `newest`; a test that needs it fails where there is none."""
    homes = [*Path("/usr/lib/jvm").glob("*"), Path(os.environ.get("JAVA_HOME", "/nowhere"))]
    for home in homes:
        release = home / "release"
        found = re.search(r'JAVA_VERSION="(\d+)', release.read_text()) if release.is_file() else None
        if found and oldest <= int(found[1]) <= newest:
            return home
    pytest.fail(f"no Java of version {oldest} to {newest} in /usr/lib/jvm or JAVA_HOME")


class ServerProcess(ABC):
    """Starts a server in a folder that is its own and readable by the user `nobody`, and kills it at the end.

    Attributes:
        name: the server, in messages.
        port: where it listens, on loopback.
        folder: its configuration, data and log.
    """

    name = "server"

    def __init__(self) -> None:
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @abstractmethod
    def command(self) -> list[str]:
        """Write what the server needs into `folder`; returns the command that starts it."""

    def environment(self) -> dict[str, str]:
        return {}

    def is_ready(self) -> bool:
        return self.get("/_cluster/health")["status"] in ("green", "yellow")

    def __enter__(self) -> "ServerProcess":
        SERVERS.mkdir(parents=True, exist_ok=True)
        # Not pytest's folder: that one is closed to every other user.
        self.folder = Path(tempfile.mkdtemp(prefix="running-", dir=SERVERS))
        command = self.command()
        with (self.folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                [*self._as_nobody(), *command],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                env={**os.environ, **self.environment()},
            )
        self._wait()
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _as_nobody(self) -> list[str]:
        """These servers refuse to run as root."""
        if os.geteuid() != 0:
            return []
        for path in [self.folder, *self.folder.rglob("*")]:
            shutil.chown(path, "nobody", "nogroup")
        return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]

    def _wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if self.is_ready():
                    return
            except (OSError, ValueError):
                time.sleep(0.3)
        log = (self.folder / "server.log").read_text(errors="replace")
        self.__exit__()
        pytest.fail(f"{self.name} has not started:\n{log[-3000:]}")

    def get(self, path: str) -> Any:
        return self.ask("GET", path)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the server by plain HTTP; the answer's JSON."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            text = response.read()
        return json.loads(text) if text else None
