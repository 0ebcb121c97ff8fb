"""A rate limit that the processes of one machine share: a request reserves the next free moment in a file."""

import fcntl
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from models.errors import InferenceError

_LONGEST_QUEUE = 3600.0  # seconds; a later moment in the file is left over from a clock that was set back


_LARGEST = 200_000  # tokens of one request, at most


class RateLimit:
    """At most so many of something a minute, evenly spaced, over all threads and processes of this user."""

    def __init__(self, key: str, per_minute: float) -> None:
        """Open the limit.

        Args:
            key: who shares it; everything with the same key does.
            per_minute: the limit, of requests or of tokens.
        """
        self._interval = 60.0 / per_minute
        self._longest_queue = max(_LONGEST_QUEUE, _LARGEST * self._interval)
        self._file = _folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.slot"

    def acquire(self, amount: int = 1) -> None:
        """Wait until one more request may be sent.

        Args:
            amount: how much of the limit it takes: 1, or its tokens. The next one waits until that is over.
        """
        wait = self._reserve(amount) - time.time()
        if wait > 0:
            time.sleep(wait)

    def _reserve(self, amount: int) -> float:
        """Take the next free moment and leave the one after it in the file."""
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+", encoding="ascii") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            now = time.time()
            moment = _number(stream.read())
            if not 0 <= moment - now <= self._longest_queue:
                moment = now
            stream.seek(0)
            stream.truncate()
            stream.write(repr(moment + self._interval * amount))
        return moment


def unlimited(amount: int = 1) -> None:
    """Wait for nothing."""


def rate_limit(key: str, per_minute: float | None) -> Callable[..., None]:
    """Return the function that waits for the limit of `key`, and takes an amount; None is no limit."""
    return unlimited if per_minute is None else RateLimit(key, per_minute).acquire


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _folder() -> Path:
    """A folder of this user in the temporary folder; nobody else may own or open it."""
    folder = Path(tempfile.gettempdir()) / f"semantic-ingest-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise InferenceError(
            f"{folder} holds the rate limits and must be a folder that only you can open; remove it",
            status=500,
        )
    return folder
