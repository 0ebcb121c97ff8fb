"""Arguments and options that several commands of the command line share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.errors import PipelineError

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


Folder = Annotated[str, typer.Option("--path", metavar="FOLDER", help="Folder of the definitions.")]
Target = Annotated[
    str, typer.Argument(metavar="[TASK/]ID", help="The endpoint's id, with or without its task type.")
]
ModelsFrom = Annotated[
    str | None,
    typer.Option("--config", metavar="CONFIG", help="Run config whose endpoints and models sections hold."),
]
Timeout = Annotated[
    float | None, typer.Option("--timeout", min=0.1, help="Seconds that a service may take for one attempt.")
]


def index_path(config_or_index: str, overrides: Sequence[str] = ()) -> str:
    """The index that a command's first argument means: a folder with an index, or a run config that names one.

    Raises:
        PipelineError: it is neither.
    """
    from pipeline.config.load import load_config

    if Path(config_or_index).is_dir():
        return config_or_index
    config = load_config(config_or_index, list(overrides))
    if config.index is None:
        raise PipelineError(f"{config_or_index} has no index section; add `index: {{path: out/index}}`")
    return config.index.path
