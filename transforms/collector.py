"""Memory while documents pass: Python's garbage collector is held back, and the C library keeps its heap.

The collector looks for cycles among all objects that are alive: modules, models, and the documents that wait to be
written. These form no cycles, and what forms some is rare; at Python's usual pace the search takes a fifth of the time
of a run whose model is fast.

The C library gives memory back to the system as soon as some of it lies free at the heap's end, and asks for it again
for the next batch; the system then clears every page of it. With a larger margin it does so once.
"""

import ctypes
import gc
import threading

_PACE = (50_000, 20, 20)
"""New objects, and collections of the younger generation, after which each generation is looked through."""

_MARGIN = 1 << 26
"""Bytes that may lie free at the heap's end, and size of an array from which on it lies outside the heap."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)

_lock = threading.Lock()
_held = 0
_usual = gc.get_threshold()


def hold_back() -> None:
    """Set aside what is alive, and collect at a slower pace, until as many have let go."""
    global _held, _usual
    with _lock:
        _held += 1
        if _held == 1:
            _usual = gc.get_threshold()
            gc.freeze()
            gc.set_threshold(*_PACE)
            _keep_heap()


def let_go() -> None:
    """Collect at the usual pace again, once everybody has let go."""
    global _held
    with _lock:
        _held -= 1
        if _held == 0:
            gc.set_threshold(*_usual)
            gc.unfreeze()


def _keep_heap() -> None:
    """Set the margin, where the C library is glibc; it holds for as long as the process lives."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _MARGIN)
        mallopt(_MMAP_THRESHOLD, _MARGIN // 2)
