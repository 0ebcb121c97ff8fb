"""Ctrl-C and SIGTERM: answered at once, and the process is gone within three seconds.

Python hands a signal to the main thread when that comes back from native code, and a process ends when its threads
have ended. Building an index takes longer than a person waits, and so do Beam's threads. So a thread of its own hears
of a signal through a socket that Python's C code writes to: it answers, and when the main thread has not ended the
process in time, it does. Nothing is lost by that: whatever a run has finished lies in files with their final names.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

SECONDS_TO_END = 2.0
"""How long the main thread has to end the process, and then again a moment for the record of the run."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Work:
    """What is going on.

    Attributes:
        say: answers the person who stops it.
        record: keeps that it was stopped, where the main thread cannot.
    """

    say: Callable[[], None]
    record: Callable[[], None]


_going_on: list[Work] = []


@contextmanager
def stoppable(work: Work) -> Iterator[None]:
    """While the block runs, a signal is answered by `work`."""
    _going_on.append(work)
    try:
        yield
    finally:
        _going_on.remove(work)


def answer_signals() -> None:
    """Answer SIGINT and SIGTERM from now on; the main thread gets KeyboardInterrupt or SystemExit(143)."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    ears, mouth = socket.socketpair()
    mouth.setblocking(False)
    signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, leave)
    threading.Thread(target=_listen, args=(ears, mouth), name="signals", daemon=True).start()


@contextmanager
def stopping_by_itself() -> Iterator[None]:
    """While the block runs, it takes its own time to stop: a server answers what it has accepted first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ears = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        signal.set_wakeup_fd(ears, warn_on_full_buffer=False)


def _listen(ears: socket.socket, mouth: socket.socket) -> None:
    """Wait for a signal, answer it, and end the process after a while or at the second one."""
    number = _hear(ears)
    assert number is not None
    works = list(_going_on)
    for work in works:
        work.say()
    ears.settimeout(SECONDS_TO_END)
    if _hear(ears) is None and works:
        # A disk or an object store that does not answer must not keep the process alive either.
        record = threading.Thread(target=works[-1].record, name="last-word", daemon=True)
        record.start()
        record.join(0.5)
    mouth.close()
    end(128 + number)


def _hear(ears: socket.socket) -> int | None:
    """The next stop signal; None when there was none in time."""
    while True:
        try:
            heard = ears.recv(1)
        except TimeoutError:
            return None
        if heard and heard[0] in SIGNALS:
            return heard[0]


def end(code: int) -> NoReturn:
    """End the process now, whatever its threads are at."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(code)
