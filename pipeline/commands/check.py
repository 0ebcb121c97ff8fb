"""The command `check`: everything that is wrong with a run config, before it runs."""

from typing import Annotated

import typer

from pipeline.commands.app import app, spare_pandas
from pipeline.commands.arguments import Config, Overrides
from pipeline.errors import ConfigError


@app.command(epilog="Example: semantic-ingest check run_configs/quickstart.yaml --print")
def check(
    config: Config,
    overrides: Overrides = None,
    print_config: Annotated[
        bool, typer.Option("--print", help="Print the config with every default.")
    ] = False,
) -> None:
    """Say everything that is wrong with a config before it runs."""
    spare_pandas()
    import yaml

    from pipeline.config.load import load_config

    loaded = load_config(config, overrides)  # a typo is found before Beam is imported, which takes seconds
    from pipeline.run.check import describe_engine, find_problems

    problems = find_problems(loaded)
    if problems:
        raise ConfigError(config, problems)
    if print_config:
        print(yaml.safe_dump(loaded.model_dump(mode="json"), sort_keys=False, allow_unicode=True), end="")
    else:
        print(f"{config}: ready to run")
        if engine := describe_engine(loaded):
            print(f"Local models compute on {engine}")
