"""Processes that work for another one end with it, however it ends."""

import os
import signal
import threading
import time

SECONDS_BETWEEN_LOOKS = 0.5

LAUNCHER_VARIABLE = "SEMANTIC_INGEST_LAUNCHER"
"""Variable that tells a process which one started it."""


def end_with_parent(parent: int) -> None:
    """Kill this process as soon as the one that started it is gone, even if that was killed itself.

    A thread looks, rather than Linux's parent-death signal: that one comes when the thread that started the process
    ends, though the launcher lives on.

    Args:
        parent: the process that started this one, as that one said itself. By the time this one has imported what it
            needs and asks the system, it may be gone, and its children be another's.
    """

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=look, name="parent", daemon=True).start()
