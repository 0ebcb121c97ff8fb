"""Send bodies to `_bulk`: several at once, slower when the cluster asks for it, each document until it is settled."""

import random
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from pipeline.exchange.elasticsearch.bulk import Body

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

BUSY = (429, 502, 503, 504)
ATTEMPTS = 12
"""Attempts without any progress, with pauses of 0.2 seconds at first and 20 at last: about two minutes."""


@dataclass(frozen=True)
class DeadLetter:
    """A document that the cluster refused.

    Attributes:
        id: its ``_id``.
        status: HTTP status of the item.
        type: kind of error.
        reason: the cluster's words.
    """

    id: str
    status: int
    type: str
    reason: str


class BulkSender:
    """Sends bodies to one index; safe to repeat, since every document has its id.

    Args:
        client: the official client, with its own retries turned off.
        index: the index.
        threads: requests at once.
        advance: is told of documents that are settled.
        pause: seconds of the first pause when the cluster is busy.
    """

    def __init__(
        self,
        client: "Elasticsearch",
        index: str,
        threads: int,
        advance: Callable[[int], None],
        pause: float = 0.2,
    ) -> None:
        self._client = client
        self._index = index
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="bulk")
        self._most = 2 * threads
        self._advance = advance
        self._pause = pause
        self._resume_at = 0.0
        self._stopped = threading.Event()

    def close(self) -> None:
        """Wait for what is on its way, and start nothing more."""
        self._stopped.set()
        self._pool.shutdown(cancel_futures=True)

    def send(self, bodies: Iterable[Body]) -> list[DeadLetter]:
        """Send bodies and wait until every document is settled.

        Raises:
            PipelineError: the cluster does not take documents any more.
        """
        refused: list[DeadLetter] = []
        running: set[Future[list[DeadLetter]]] = set()
        for body in bodies:
            if len(running) >= self._most:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                refused += [letter for future in done for letter in future.result()]
            running.add(self._pool.submit(self._settle, body))
        refused += [letter for future in running for letter in future.result()]
        return refused

    def _settle(self, body: Body) -> list[DeadLetter]:
        """Send one body until each of its documents is taken or refused."""
        refused: list[DeadLetter] = []
        left = dict(body.entries)
        attempt = 0
        while left:
            self._wait()
            before = len(left)
            problem = self._send(left, refused)
            self._advance(before - len(left))
            if not left:
                break
            attempt = attempt + 1 if len(left) == before else 1
            if attempt > ATTEMPTS:
                raise PipelineError(
                    f"{len(left):,} documents are not taken after {ATTEMPTS} attempts: {problem}. Load again when the "
                    "cluster has recovered; it goes on where it stopped."
                )
            self._slow_down(attempt)
        return refused

    def _send(self, left: dict[str, tuple[bytes, ...]], refused: list[DeadLetter]) -> str:
        """One request; takes what is settled out of `left`, and returns why the rest is not."""
        from elasticsearch import ApiError, TransportError

        # The client takes lines that are JSON already, whatever its annotation says.
        lines: Any = [line for entry in left.values() for line in entry]
        try:
            answer = self._client.bulk(index=self._index, operations=lines)
        except ApiError as error:
            if error.status_code == 413:
                return self._send_smaller(left, refused)
            if error.status_code not in BUSY:
                raise PipelineError(f"the cluster refuses bulk requests: {error}") from None
            return str(error)
        except TransportError as error:
            return f"{type(error).__name__}: {error}"
        return _settled(answer["items"], left, refused)

    def _send_smaller(self, left: dict[str, tuple[bytes, ...]], refused: list[DeadLetter]) -> str:
        """Halve a body that is too large for the cluster; a document that alone is too large is refused."""
        ids = list(left)
        if len(ids) == 1:
            refused.append(
                DeadLetter(ids[0], 413, "too_large", "the document is larger than a request may be")
            )
            left.clear()
            return ""
        problem = ""
        for half in (ids[: len(ids) // 2], ids[len(ids) // 2 :]):
            part = {id_: left.pop(id_) for id_ in half}
            problem = self._send(part, refused) or problem
            left.update(part)
        return problem

    def _wait(self) -> None:
        """All requests wait when one was told that the cluster is busy."""
        while not self._stopped.is_set() and (seconds := self._resume_at - time.monotonic()) > 0:
            self._stopped.wait(min(seconds, 1.0))
        if self._stopped.is_set():
            raise PipelineError("the load was stopped")

    def _slow_down(self, attempt: int) -> None:
        seconds = min(self._pause * 2 ** (attempt - 1), 100 * self._pause)
        # Some chance, so that several loaders do not come back at the same moment.
        self._resume_at = max(self._resume_at, time.monotonic() + seconds * random.uniform(0.5, 1.0))  # noqa: S311


def _settled(
    items: list[dict[str, Any]], left: dict[str, tuple[bytes, ...]], refused: list[DeadLetter]
) -> str:
    problem = ""
    for item in items:
        ((action, result),) = item.items()
        status, id_ = int(result["status"]), str(result["_id"])
        error = result.get("error") or {}
        if status in BUSY:
            problem = f"{status} {error.get('type')}: {error.get('reason')}"
            continue
        left.pop(id_, None)
        # What is not there any more need not be deleted.
        if status >= 300 and not (action == "delete" and status == 404):
            cause = error.get("caused_by") or {}
            reasons = [str(one) for one in (error.get("reason"), cause.get("reason")) if one]
            refused.append(DeadLetter(id_, status, str(error.get("type")), ": ".join(reasons)))
    return problem
