"""The command `check`: everything that is wrong with a run config, before it runs."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.app import app, spare_pandas
from pipeline.commands.arguments import Config, Overrides
from pipeline.errors import ConfigError
from pipeline.terminal.output import print_table, skipped_files
from pipeline.terminal.text import one_line

if TYPE_CHECKING:
    from pipeline.config.run_config import RunConfig
    from pipeline.run.look import SourceSeen


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

    from pipeline.config.endings import ending_warnings
    from pipeline.config.load import load_config

    loaded = load_config(config, overrides)  # a typo is found before Beam is imported, which takes seconds
    from pipeline.run.check import describe_engine, find_problems

    problems, seen = find_problems(loaded)
    if problems:
        raise ConfigError(config, problems)
    engine = describe_engine(loaded)
    for warning in ending_warnings(loaded):
        typer.secho(f"warning: {one_line(warning)}", err=True, fg="yellow")
    if print_config:
        print(yaml.safe_dump(loaded.model_dump(mode="json"), sort_keys=False, allow_unicode=True), end="")
    else:
        _print_notes(loaded)
        if seen.files:
            print(one_line(_folder(seen)))
        print(f"{config}: ready to run")
        if engine:
            print(f"Local models compute on {engine}")


def _folder(seen: "SourceSeen") -> str:
    """What a folder holds, by type."""
    which = "" if seen.files == seen.of_files else f" of the first {seen.files:,} of {seen.of_files:,} files"
    types = ", ".join(f"{count:,} {kind}" for kind, count in seen.types.most_common())
    skipped = f"; {skipped_files(seen.skipped)}" if seen.skipped else ""
    return f"documents{which}: {types or 'none'}{skipped}"


def _print_notes(config: "RunConfig") -> None:
    """What each field becomes, and which files are not read."""
    from pipeline.config.field_notes import field_notes
    from pipeline.run.source import find_source

    notes = field_notes(config.mappings, config.endpoints.default)
    rows = [(note.name, note.type, note.becomes, ", ".join(note.without_effect)) for note in notes]
    print_table(("field", "type", "becomes", "without effect"), rows)
    skipped = find_source(config).skipped
    if skipped:
        print(one_line(f"files: {skipped_files(skipped)}"))
