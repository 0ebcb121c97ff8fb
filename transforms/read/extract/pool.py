"""Child processes that extract documents side by side, each bounded in time, memory and output.

A document that crashes or hangs its process costs that document: the process is ended and another takes its place.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from transforms.read.extract.options import ExtractOptions

START_SECONDS = 60.0
"""A child that is not ready by then cannot be used at all."""

RECYCLE_BYTES = 512 << 20
"""A child that has needed this much is replaced after its document, so that memory stays flat."""

T = TypeVar("T")
R = TypeVar("R")

FRAGMENT = 64 * 1024


class ExtractionError(ValueError):
    """A document whose text cannot be had, with the reason."""


class LibraryMissingError(RuntimeError):
    """The extraction library is not installed or does not start."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """What extraction made of one document.

    Attributes:
        fields: ``text`` and the metadata that is known.
        seconds: processor time that it took.
    """

    fields: dict[str, Any]
    seconds: float


class Child:
    """One child process.

    Args:
        options: its bounds.
    """

    def __init__(self, options: ExtractOptions) -> None:
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def extract(self, content: bytes, type_name: str) -> Extracted:
        """Extract one document.

        Raises:
            ExtractionError: it has no text to be had, or went beyond a bound.
            LibraryMissingError: the library cannot be used at all.
        """
        process = self._process or self._start()
        request = json.dumps({"type": type_name, "size": len(content)}).encode() + b"\n"
        # Six bytes for one of the text is the most that JSON makes of a character.
        limit = 6 * self._options.text_bytes + (1 << 20)
        line, errors = _converse(process, request + content, self._options.seconds, limit)
        if not line.endswith(b"\n"):
            raise ExtractionError(self._ended(process, line, errors))
        answer = json.loads(line)
        if answer.pop("peak") > RECYCLE_BYTES:
            self.close()
        seconds = answer.pop("seconds")
        if "error" in answer:
            raise ExtractionError(answer["error"])
        return Extracted(answer, seconds)

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()

    def _start(self) -> subprocess.Popen[bytes]:
        options = self._options
        root = str(Path(__file__).parents[3])
        arguments = [str(options.memory_bytes), str(options.text_bytes), options.ocr or ""]
        # No secrets of ours reach it, and nothing of the user's site or working directory is imported.
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment |= {
            "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)]),
            "MALLOC_ARENA_MAX": "2",
        }
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "transforms.read.extract.child", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        self._process = process
        line, errors = _converse(process, b"", START_SECONDS, 1 << 10)
        if line != b"ready\n":
            self.close()
            raise LibraryMissingError(_start_problem(errors))
        return process

    def _ended(self, process: subprocess.Popen[bytes], line: bytes, errors: bytes) -> str:
        """Why there is no answer, in words; the process is ended."""
        code = process.poll()
        if code is None and not process.stdout.closed:  # type: ignore[union-attr]
            code = _wait_briefly(process) if not line else None
        self.close()
        text = errors.decode("utf-8", "replace")
        if "memory allocation of" in text or "MemoryError" in text or "bad_alloc" in text:
            return "the document needs more memory than source.extract.memory_bytes"
        if len(line) > self._options.text_bytes:
            return "the document has more text than source.max_document_bytes"
        if code is None:
            return f"the extraction took longer than source.extract.seconds [{self._options.seconds:g}]"
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"the document crashed the extraction: {how}"


_KEPT = ("PATH", "LD_LIBRARY_PATH", "TESSDATA_PREFIX", "SYSTEMROOT", "LANG", "VIRTUAL_ENV", "PYTHONHOME")


def _wait_briefly(process: subprocess.Popen[bytes]) -> int | None:
    """The exit code of a process that has closed its output and is about to end."""
    try:
        return process.wait(2)
    except subprocess.TimeoutExpired:
        return None


def _start_problem(errors: bytes) -> str:
    text = errors.decode("utf-8", "replace")
    if "No module named 'xberg'" in text or "No module named 'charset_normalizer'" in text:
        return "source.format [files] needs the extra `documents`: pip install 'semantic-ingest[documents]'"
    return f"the extraction process does not start: {text.strip()[-500:]}"


def _converse(
    process: subprocess.Popen[bytes], request: bytes, seconds: float, limit: int
) -> tuple[bytes, bytes]:
    """Send a request and read one line of answer, within a time and a length.

    Returns:
        The answer, without its line end where it was cut off, and the end of what went to standard error.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    deadline = time.monotonic() + seconds
    rest, answer, errors = memoryview(request), bytearray(), bytearray()
    for pipe in (process.stdin, process.stdout, process.stderr):
        os.set_blocking(pipe.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        if request:
            selector.register(process.stdin, selectors.EVENT_WRITE)
        while not answer.endswith(b"\n") and len(answer) <= limit:
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                break
            for key, _ in ready:
                if key.fileobj is process.stdin:
                    rest = _send(process.stdin.fileno(), rest)
                    if not rest:
                        selector.unregister(process.stdin)
                    continue
                piece = os.read(key.fd, FRAGMENT)
                if key.fileobj is process.stderr:
                    errors = (errors + piece)[-FRAGMENT:]
                    if not piece:
                        selector.unregister(process.stderr)
                elif piece:
                    answer += piece
                else:
                    return bytes(answer), bytes(errors) + _remaining(process.stderr.fileno())
    return bytes(answer), bytes(errors)


def _send(number: int, rest: memoryview) -> memoryview:
    try:
        return rest[os.write(number, rest[:FRAGMENT]) :]
    except BlockingIOError:
        return rest
    except BrokenPipeError:
        return rest[:0]  # it ended; its output says so


def _remaining(number: int) -> bytes:
    try:
        return os.read(number, FRAGMENT)
    except OSError:
        return b""


class Extractor:
    """A pool of child processes; documents go in and come out in order.

    Args:
        options: bounds and number of the processes.
    """

    def __init__(self, options: ExtractOptions) -> None:
        self.processes = options.processes or os.cpu_count() or 1
        self._idle: SimpleQueue[Child] = SimpleQueue()
        self._children = [Child(options) for _ in range(self.processes)]
        for child in self._children:
            self._idle.put(child)
        self._threads = ThreadPoolExecutor(self.processes, thread_name_prefix="extract")
        # Whoever lets go of the pool last ends its processes.
        self._finalizer = weakref.finalize(self, _close_all, self._threads, self._children)

    def extract(self, content: bytes, type_name: str) -> Extracted:
        """Extract one document in the next process that is free.

        Raises:
            ExtractionError: it has no text to be had, or went beyond a bound.
            LibraryMissingError: the library cannot be used at all.
        """
        child = self._idle.get()
        try:
            return child.extract(content, type_name)
        finally:
            self._idle.put(child)

    def ahead(self, items: Iterable[T], work: Callable[[T], R]) -> Iterator[R]:
        """Apply `work` to items on as many threads as there are processes; results in order, a few ahead at most."""
        running: deque[Future[R]] = deque()
        try:
            for item in items:
                running.append(self._threads.submit(work, item))
                if len(running) > 2 * self.processes:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()

    def close(self) -> None:
        """End all processes."""
        self._finalizer()


def _close_all(threads: ThreadPoolExecutor, children: Sequence[Child]) -> None:
    threads.shutdown(wait=False, cancel_futures=True)
    for child in children:
        child.close()
