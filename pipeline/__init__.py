"""The application: command line, run config, Beam graph, search and evaluation.

Importing it is cheap: the Python API (see `pipeline.api`) is imported when one of its names is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import *  # noqa: F403

__all__ = [  # noqa: F405
    "EvaluationResult",
    "Frame",
    "LoadedTable",
    "OpenIndex",
    "evaluate",
    "load_table",
    "open_index",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from importlib import import_module

        return getattr(import_module("pipeline.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
