"""The log: on stderr, as text for people or one JSON object a line for machines."""

import json
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any, Literal

from pipeline.errors import is_explained, original_error
from pipeline.terminal.text import one_line, printable, printable_json

log = logging.getLogger("semantic_ingest")


def configure_logging(log_format: Literal["text", "json"] = "text") -> None:
    """Send our log, and the warnings of others, to stderr.

    Called before Beam is imported: Beam warns of cloud packages that nobody asked for while it is being imported.
    """
    handler = _Stderr()
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    handler.addFilter(_is_worth_showing)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    log.setLevel(logging.INFO)
    if threading.excepthook is not _thread_failed:
        _previous_hooks.append(threading.excepthook)
        threading.excepthook = _thread_failed


def leave_out_noise() -> None:
    """Keep what Beam warns of though all is well out of the log of a program that uses us as a library."""
    root = logging.getLogger()
    if _is_worth_showing not in root.filters:
        root.addFilter(_is_worth_showing)


def logs_json() -> bool:
    """Whether the log is JSON, so that a program reads stderr and not a person."""
    return any(isinstance(handler.formatter, _JsonFormatter) for handler in logging.getLogger().handlers)


class _Stderr(logging.StreamHandler[Any]):
    """Writes to what `sys.stderr` is at the time: while a progress bar is shown, that puts lines above it."""

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, value: Any) -> None:
        """Nothing is kept."""


_previous_hooks: list[Callable[[threading.ExceptHookArgs], Any]] = []


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """Pass on what ended a thread, unless it is a worker's channel that an engine closes at the end of a job."""
    if not _is_closed_channel(failure.exc_value):
        _previous_hooks[-1](failure)


def _is_closed_channel(error: BaseException | None) -> bool:
    """Whether an error is a gRPC call that the engine ended because its job was over."""
    details = getattr(error, "details", None)
    return callable(details) and details() == "Runner closed connection"


# What Beam warns of though all is well: cloud packages that nobody asked for, what the local runner's worker processes
# do without, and a job server that starts and stops. One that does not start is an error of its own.
_NOT_WORTH_SHOWING = (
    "apitools not found",
    "direct_running_mode",
    "No semi_persistent_directory found",
    "Really starting service at",
    "Really destroying service at",
    "Waiting for grpc channel to be ready at",
)


def _is_worth_showing(record: logging.LogRecord) -> bool:
    """Leave out Beam's traceback of errors that we explain in a sentence, and what says nothing about the run."""
    error = record.exc_info[1] if record.exc_info else None
    if record.name.startswith("apache_beam") and error is not None:
        return not (is_explained(original_error(error)) or _is_closed_channel(error))
    message = record.getMessage()
    return not any(text in message for text in _NOT_WORTH_SHOWING)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = f"{record.levelname}: {one_line(record.getMessage())}"
        return f"{line}\n{printable(self.formatException(record.exc_info))}" if record.exc_info else line


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= getattr(record, "fields", {})
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return printable_json(json.dumps(entry, ensure_ascii=False))
