"""The commands `index` and `explore`."""

import json
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from pipeline.commands.app import app
from pipeline.commands.arguments import Config, FormatOption, Index, Overrides
from pipeline.errors import PipelineError
from transforms.index.state import IndexUnusable


@app.command(epilog="Example: python -m pipeline index run_configs/quickstart.yaml --verify")
def index(
    config: Config,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build it anew.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Only compare it with the table.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that index documents.")] = 1,
    overrides: Overrides = None,
    output: FormatOption = "table",
) -> None:
    """Bring the index to the table's version."""
    index_command(
        config, rebuild=rebuild, verify=verify, workers=workers, overrides=overrides or [], output=output
    )


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
    from pipeline.search.explore import explore_command

    explore_command(index, host, port, overrides or [])


def index_command(
    target: str, *, rebuild: bool, verify: bool, workers: int, overrides: list[str], output: str
) -> None:
    """Bring the index of a run config to the table's version, or check it against the table.

    Raises:
        PipelineError: there is nothing to index, or the index does not show the table.
    """
    from pipeline.config.load import load_config
    from transforms.index.update import update_index
    from transforms.index.verify import verify_index

    config = load_config(target, overrides)
    if config.index is None:
        raise PipelineError(f"{target} has no index section; add `index: {{path: out/index}}`")
    try:
        if verify:
            problems = verify_index(config.table.path, config.index.path)
            result: dict[str, Any] = {"ok": not problems, "problems": problems}
        else:
            result = asdict(
                update_index(config.table.path, config.index.path, rebuild=rebuild, workers=workers)
            )
    except IndexUnusable as error:
        raise PipelineError(str(error)) from None
    if output == "json":
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name}: {value if not isinstance(value, list) else '; '.join(value) or 'none'}")
    if not result.get("ok", True):
        print(f"the index does not show the table: {result['problems'][0]}", file=sys.stderr)
        raise PipelineError("rebuild the index with `index --rebuild`")
