"""What reaches stderr: real failures do, an engine that closes its workers' channels does not."""

import logging
import threading

import pytest

from pipeline import logs


class ClosedChannel(Exception):
    """What gRPC raises in the thread of a call."""

    def __init__(self, details: str) -> None:
        self._details = details

    def details(self) -> str:
        return self._details


def fail_in_thread(error: Exception) -> None:
    def fail() -> None:
        raise error

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()


def test_only_a_closed_channel_ends_a_thread_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda failure: seen.append(failure.exc_value))
    monkeypatch.setattr(logs, "_previous_hooks", [])
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    level = root.level
    try:
        logs.configure_logging()
        logs.configure_logging()
    finally:
        root.setLevel(level)
    real = [ClosedChannel("Socket closed"), ValueError("Runner closed connection"), ClosedChannel("")]
    for error in [ClosedChannel("Runner closed connection"), *real]:
        fail_in_thread(error)
    assert seen == real


def record(message: str, error: Exception | None = None, name: str = "apache_beam.x") -> logging.LogRecord:
    info = (type(error), error, None) if error else None
    return logging.LogRecord(name, logging.ERROR, __file__, 1, message, None, info)


def test_the_log_leaves_out_what_says_nothing_about_the_run() -> None:
    shown = logs._is_worth_showing
    assert not shown(record("Failed to read inputs", ClosedChannel("Runner closed connection")))
    assert not shown(record("apitools not found, and bigquery ..."))
    assert not shown(record('Worker: severity: WARN message: "No semi_persistent_directory found: ..."'))
    assert not shown(record("Really destroying service at localhost:1 with cmd: java"))
    assert shown(record("Failed to read inputs", ClosedChannel("Socket closed")))
    assert shown(record("Failed to read inputs", ValueError("bad")))
    assert shown(record("a warning of Beam's"))
