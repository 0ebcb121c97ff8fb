"""The commands `init`, a config from what lies there, and `schema`, what a config may hold."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.app import app, spare_pandas
from pipeline.errors import PipelineError
from pipeline.terminal.output import print_json
from pipeline.terminal.text import printable

SCHEMA_FILE = ".semantic-ingest.schema.json"


@app.command(
    epilog="Examples: semantic-ingest init notes/ && semantic-ingest run notes.yaml; "
    "semantic-ingest init env:DATABASE_URL --table articles"
)
def init(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH|URL",
            help="A file, a folder of files, or a database: sqlite:///shop.db, or another URL of SQLAlchemy's; "
            "one with a password as env:NAME.",
        ),
    ],
    table: Annotated[str | None, typer.Option(help="Table of the database; by default its only one.")] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Where the config goes; - prints it.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a config that is there.")] = False,
) -> None:
    """Propose a run config for files or a database. What was seen of them stands in comments."""
    spare_pandas()
    from pipeline.config.propose import propose, to_yaml
    from transforms import files

    proposal = propose(path, table)
    text = to_yaml(proposal, f"./{SCHEMA_FILE}")
    if output == "-":
        print(text, end="")
        return
    target = Path(output or f"{Path(proposal.config['table']['path']).parts[1]}.yaml")
    if target.exists() and not force:
        raise PipelineError(
            f"[{target}] is there already; name another with --output, or replace it with --force"
        )
    with files.create(str(target)) as handle:
        handle.write(text.encode())
    with files.create(str(target.with_name(SCHEMA_FILE))) as handle:
        handle.write(_schema())
    for notes in proposal.notes.values():
        for note in notes:
            print(printable(note))
    print(f"wrote {target}; next: semantic-ingest run {target}")


@app.command(epilog="Example: semantic-ingest schema > config.schema.json")
def schema() -> None:
    """Print the JSON Schema of a run config, for editors and checks."""
    from pipeline.config.schema import config_schema

    print_json(config_schema())


def _schema() -> bytes:
    import json

    from pipeline.config.schema import config_schema

    return json.dumps(config_schema(), indent=1).encode()
