"""The command line's application, which every module of commands adds to."""

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

# Pydantic would look for plugins in the metadata of every installed package, at every start; there are none of ours.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

_PREFIX = "Value error, "
"""What pydantic, by which typer reads arguments, puts before some reasons."""


class _Group(TyperGroup):
    """Commands whose wrong arguments are told without the name of a Python exception."""

    def invoke(self, ctx: Any) -> Any:
        """See `typer.core.TyperGroup.invoke`."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix(_PREFIX)
            raise


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich help would double the start-up time
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"semantic-ingest {version('semantic-ingest')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Chunk, embed and publish documents in batch, with the same chunks as Elasticsearch's semantic_text."""


class _NoPandas(MetaPathFinder):
    """Finds no pandas, even where it is installed."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def spare_pandas() -> None:
    """Let pyarrow find no pandas in this process.

    It looks for pandas at the first list that it converts, to recognise pandas' own arrays, and only then; where pandas
    is installed, importing it takes longer than many a command. No command has such arrays.
    """
    if "pandas" in sys.modules or "pyarrow" in sys.modules:
        return
    blocked = _NoPandas()
    sys.meta_path.insert(0, blocked)
    try:
        import pyarrow as pa

        pa.array([0])
    finally:
        sys.meta_path.remove(blocked)
