"""Servers for tests: the command `serve` as a process of its own, on a free port."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.paths import ROOT


class Serving:
    """A running server.

    Attributes:
        url: its address.
        process: the process.
        lines: what it has written to stderr.
    """

    def __init__(self, *arguments: str, folder: Path, **environment: str) -> None:
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "serve", *arguments, "--port", "0"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": paths, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._started = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._started.wait(120), "no sign of life"
        found = re.search(r"serving at (http://\S+?)/", "".join(self.lines))
        assert found, "".join(self.lines)
        self.url = found[1]

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if "serving at" in line:
                self._started.set()
        self._started.set()

    def stop(self) -> int:
        """Ask it to stop, as systemd or Kubernetes does; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def serving(*arguments: str, folder: Path, **environment: str) -> Iterator[Serving]:
    """A server for the length of a block."""
    server = Serving(*arguments, folder=folder, **environment)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()
