"""A standalone Flink cluster of real processes on loopback: a job manager, task managers, a pool of workers."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.engines import ROOT, flink_jar

LIBRARIES = Path(os.environ.get("FLINK_HOME", ROOT / "build" / "flink" / "pyflink")) / "lib"

# Flink opens these up in its start scripts; the package has jars only.
OPENED = ["lang", "lang.reflect", "net", "io", "nio", "text", "time", "util", "util.concurrent"]
OPENED += ["util.concurrent.atomic", "util.concurrent.locks"]
JAVA = ["java", *(f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in OPENED)]
JAVA += ["--add-opens=java.base/sun.nio.ch=ALL-UNNAMED", "--add-exports=java.base/sun.net.util=ALL-UNNAMED"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class FlinkCluster:
    """Starts the processes and stops them; each can be killed on the way."""

    def __init__(self, folder: Path, task_managers: int = 2) -> None:
        if not LIBRARIES.is_dir():
            pytest.fail(f"there is no Flink at {LIBRARIES}: run `make cluster`")
        self.folder = folder
        self.rest_port, self.pool_port = free_port(), free_port()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.task_managers: list[subprocess.Popen[bytes]] = []
        self._count = task_managers

    def __enter__(self) -> "FlinkCluster":
        (self.folder / "conf").mkdir(parents=True)
        (self.folder / "conf" / "flink-conf.yaml").write_text(self._settings())
        self._start_java("jobmanager", "entrypoint.StandaloneSessionClusterEntrypoint", "-Xmx768m")
        for number in range(self._count):
            self.task_managers.append(self.start_task_manager(number))
        self.pool = self._start_pool()
        self._wait_for_slots()
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self.workers():
            worker.kill()
        for process in self.processes:
            process.kill()
            process.wait()

    def _settings(self) -> str:
        settings = {
            "jobmanager.rpc.address": "127.0.0.1",
            "jobmanager.rpc.port": free_port(),
            "jobmanager.bind-host": "127.0.0.1",
            "rest.address": "127.0.0.1",
            "rest.bind-address": "127.0.0.1",
            "rest.port": self.rest_port,
            "taskmanager.bind-host": "127.0.0.1",
            "taskmanager.host": "127.0.0.1",
            # Either task manager alone has room for the job, so that it can go on without the other.
            "taskmanager.numberOfTaskSlots": 2,
            "cluster.evenly-spread-out-slots": "true",
            "taskmanager.cpu.cores": 1.0,
            "taskmanager.memory.task.heap.size": "384m",
            "taskmanager.memory.task.off-heap.size": "64m",
            "taskmanager.memory.framework.heap.size": "128m",
            "taskmanager.memory.framework.off-heap.size": "64m",
            "taskmanager.memory.jvm-metaspace.size": "256m",
            "taskmanager.memory.jvm-overhead.min": "64m",
            "taskmanager.memory.jvm-overhead.max": "64m",
            "taskmanager.memory.network.min": "64m",
            "taskmanager.memory.network.max": "64m",
            "taskmanager.memory.managed.size": "64m",
            "heartbeat.interval": 1000,
            "heartbeat.timeout": 10000,
            "restart-strategy.type": "fixed-delay",
            "restart-strategy.fixed-delay.attempts": 5,
            "restart-strategy.fixed-delay.delay": "2 s",
            "io.tmp.dirs": str(self.folder / "tmp"),
            "blob.storage.directory": str(self.folder / "blobs"),
        }
        (self.folder / "tmp").mkdir()
        return "".join(f"{name}: {value}\n" for name, value in settings.items())

    def _start(self, name: str, command: list[str]) -> "subprocess.Popen[bytes]":
        log = (self.folder / f"{name}.log").open("wb")
        # The pool starts its workers as `python`: the one that runs this test.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=ROOT, env={**os.environ, "PATH": path}
        )
        self.processes.append(process)
        return process

    def _start_java(self, name: str, main: str, heap: str) -> "subprocess.Popen[bytes]":
        command = [*JAVA, heap, "-cp", f"{LIBRARIES}/*", f"org.apache.flink.runtime.{main}"]
        return self._start(name, [*command, "--configDir", str(self.folder / "conf")])

    def start_task_manager(self, number: int) -> "subprocess.Popen[bytes]":
        """Start one more task manager."""
        return self._start_java(f"taskmanager-{number}", "taskexecutor.TaskManagerRunner", "-Xmx640m")

    def _start_pool(self) -> "subprocess.Popen[bytes]":
        module = "apache_beam.runners.worker.worker_pool_main"
        return self._start("pool", [sys.executable, "-m", module, f"--service_port={self.pool_port}"])

    def get(self, path: str) -> Any:
        """Ask the job manager's REST interface."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.rest_port}{path}", timeout=10) as response:
            return json.load(response)

    def _wait_for_slots(self) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                if self.get("/overview")["slots-total"] == 2 * self._count:
                    return
            except OSError:
                pass
            time.sleep(0.5)
        logs = "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in self.folder.glob("*.log"))
        pytest.fail(f"the Flink cluster has not started:\n{logs}")

    def workers(self) -> list[psutil.Process]:
        """The Python processes that run our code."""
        try:
            return psutil.Process(self.pool.pid).children()
        except psutil.NoSuchProcess:
            return []

    def kill_task_manager(self) -> None:
        """Kill the first task manager, as a machine that is lost."""
        self.task_managers[0].send_signal(signal.SIGKILL)
        self.task_managers[0].wait()

    def runner(self) -> dict[str, Any]:
        """The `runner` section that names this cluster."""
        return {
            "name": "flink",
            "master": f"127.0.0.1:{self.rest_port}",
            "job_server_jar": flink_jar(),
            "parallelism": 2,
            "environment": "EXTERNAL",
            "environment_config": f"127.0.0.1:{self.pool_port}",
        }
