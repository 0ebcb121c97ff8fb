"""The command `index`: bring the index to the table's version, or compare it with the table."""

import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from pipeline.commands.app import app, spare_pandas
from pipeline.commands.arguments import Config, Format, Overrides
from pipeline.errors import PipelineError
from pipeline.terminal.output import print_json
from pipeline.terminal.text import one_line


@app.command(epilog="Example: semantic-ingest index run_configs/quickstart.yaml --verify")
def index(
    config: Config,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build it anew.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Only compare it with the table.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that index documents.")] = 1,
    overrides: Overrides = None,
    output: Format = "table",
) -> None:
    """Bring the index to the table's version."""
    spare_pandas()
    from pipeline.config.load import load_config

    loaded = load_config(config, overrides)
    if loaded.index is None:
        raise PipelineError(f"{config} has no index section; add `index: {{path: out/index}}`")
    from transforms.index.state import IndexUnusable
    from transforms.index.update import update_index
    from transforms.index.verify import verify_index

    table, path = loaded.table.path, loaded.index.path
    problems: list[str] = []
    try:
        if verify:
            problems = verify_index(table, path)
            result: dict[str, Any] = {"ok": not problems, "problems": problems}
        else:
            result = asdict(update_index(table, path, rebuild=rebuild, workers=workers))
    except IndexUnusable as error:
        raise PipelineError(str(error)) from None
    if output == "json":
        print_json(result, indent=None)
    else:
        for name, value in result.items():
            print(one_line(f"{name}: {value if not isinstance(value, list) else '; '.join(value) or 'none'}"))
    if problems:
        print(one_line(f"the index does not show the table: {problems[0]}"), file=sys.stderr)
        raise PipelineError("rebuild the index with `semantic-ingest index CONFIG --rebuild`")
