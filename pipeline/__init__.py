"""The application: command line, run config, Beam graph, search and evaluation.

Importing it is cheap: the Python API (see `pipeline.api`) is imported when one of its names is first used. `run` and
`search` are packages of this one, so those two functions are only in `pipeline.api`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import (
        EvaluationResult,
        Frame,
        LoadedTable,
        OpenIndex,
        chunk,
        embed,
        evaluate,
        load_table,
        open_index,
        plan,
    )

__all__ = [
    "EvaluationResult",
    "Frame",
    "LoadedTable",
    "OpenIndex",
    "chunk",
    "embed",
    "evaluate",
    "load_table",
    "open_index",
    "plan",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from importlib import import_module

        return getattr(import_module("pipeline.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
