"""The command `explore`: look at the index in a browser."""

from typing import Annotated

import typer

from pipeline.commands.app import app
from pipeline.commands.arguments import Index, Overrides, index_path


@app.command(epilog="Example: python -m pipeline explore run_configs/quickstart.yaml --port 8765")
def explore(
    index: Index,
    host: Annotated[
        str, typer.Option(help="Address to listen on; everyone who reaches it can read.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8765,
    overrides: Overrides = None,
) -> None:
    """Look at the index in a browser: search modes side by side, chunks and their tokens."""
    from pipeline.search.explore import explore as serve

    serve(index_path(index, overrides), host, port)
