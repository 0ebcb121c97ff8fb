"""The log: on stderr, as text for people or one JSON object a line for machines."""

import json
import logging
import sys
from typing import Literal

from pipeline.errors import is_explained, original_error

log = logging.getLogger("semantic_ingest")


def configure_logging(log_format: Literal["text", "json"] = "text") -> None:
    """Send our log, and the warnings of others, to stderr.

    Called before Beam is imported: Beam warns of cloud packages that nobody asked for while it is being imported.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _JsonFormatter() if log_format == "json" else logging.Formatter("%(levelname)s: %(message)s")
    )
    handler.addFilter(_is_worth_showing)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    log.setLevel(logging.INFO)


def _is_worth_showing(record: logging.LogRecord) -> bool:
    """Leave out Beam's warning of absent cloud packages, and its traceback of errors that we explain in a sentence."""
    error = record.exc_info[1] if record.exc_info else None
    if record.name.startswith("apache_beam") and error is not None and is_explained(original_error(error)):
        return False
    return "apitools not found" not in record.getMessage()


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)
