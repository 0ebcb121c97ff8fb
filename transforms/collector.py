"""Python's garbage collector, held back while documents pass through.

It looks for cycles among all objects that are alive: modules, models, and the documents that wait to be written. These
form no cycles, and what forms some is rare; at Python's usual pace the search takes a fifth of the time of a run whose
model is fast.
"""

import gc
import threading

_PACE = (50_000, 20, 20)
"""New objects, and collections of the younger generation, after which each generation is looked through."""

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


def let_go() -> None:
    """Collect at the usual pace again, once everybody has let go."""
    global _held
    with _lock:
        _held -= 1
        if _held == 0:
            gc.set_threshold(*_usual)
            gc.unfreeze()
