"""Arguments and options that several commands of the command line share."""

from typing import Annotated, Literal

import typer

Format = Literal["table", "json"]
Config = Annotated[str, typer.Argument(metavar="CONFIG", help="Run config, a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one value of the config, e.g. runner.workers=2."
    ),
]
FormatOption = Annotated[Format, typer.Option("--format", help="What stdout gets.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Index = Annotated[str, typer.Argument(metavar="CONFIG|INDEX", help="Run config, or folder of an index.")]
