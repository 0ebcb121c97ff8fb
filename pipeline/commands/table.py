"""The commands `history`, `restore`, `vacuum` and `verify`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from pipeline.commands.app import app
from pipeline.commands.arguments import Config, FormatOption, Overrides
from pipeline.table.history import Version
from pipeline.table.verify import Verification


@app.command(epilog="Example: python -m pipeline history run_configs/quickstart.yaml --limit 7")
def history(
    config: Config,
    overrides: Overrides = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the newest versions.")] = None,
    output: FormatOption = "table",
) -> None:
    """List the table's versions: what each run changed, and which can be restored."""
    from pipeline.config.load import load_config
    from pipeline.table.history import history as list_versions

    print_history(list_versions(load_config(config, overrides), limit), output)


@app.command(epilog="Example: python -m pipeline restore run_configs/quickstart.yaml 3")
def restore(
    config: Config,
    version: Annotated[int, typer.Argument(min=0, help="Version to go back to, as `history` shows it.")],
    overrides: Overrides = None,
    output: FormatOption = "table",
) -> None:
    """Publish the rows of an older version again, as a new version; the index follows."""
    from pipeline.config.load import load_config
    from pipeline.table.history import restore as restore_version

    print_restore(restore_version(load_config(config, overrides), version), output)


@app.command(epilog="Example: python -m pipeline vacuum run_configs/quickstart.yaml --dry-run")
def vacuum(
    config: Config,
    overrides: Overrides = None,
    older_than: Annotated[
        float, typer.Option("--older-than", metavar="DAYS", min=0, help="Keep what is younger than this.")
    ] = 7.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing, show what would go.")] = False,
    output: FormatOption = "table",
) -> None:
    """Delete the files of old versions and what killed runs left behind."""
    from pipeline.config.load import load_config
    from pipeline.table.vacuum import vacuum as clear_away

    result = clear_away(load_config(config, overrides), older_than_days=older_than, dry_run=dry_run)
    print_vacuum(result, output)


@app.command(epilog="Example: python -m pipeline verify run_configs/quickstart.yaml --format json")
def verify(config: Config, overrides: Overrides = None, output: FormatOption = "table") -> None:
    """Check the table against itself, its log and its index; exit code 1 when anything is wrong."""
    from pipeline.config.load import load_config
    from pipeline.table.verify import verify as verify_table

    found = verify_table(load_config(config, overrides))
    print_verification(found, output)
    if not found.ok:
        raise typer.Exit(1)


def print_history(versions: Sequence[Version], output: str) -> None:
    """Print versions to stdout."""
    if output == "json":
        print(json.dumps({"versions": [asdict(version) for version in versions]}, indent=2))
        return
    names = (
        "version",
        "time",
        "operation",
        "added",
        "changed",
        "deleted",
        "rows",
        "parts",
        "restorable",
        "run_id",
    )
    _print_table(names, [[getattr(version, name) for name in names] for version in versions])


def print_restore(result: dict[str, Any], output: str) -> None:
    """Print what `restore` did to stdout."""
    if output == "json":
        print(json.dumps(result, indent=2))
        return
    index = "" if result["index_version"] is None else f"; the index shows version {result['index_version']}"
    print(
        f"version {result['table_version']} has the {result['rows']:,} rows of version {result['restored']}{index}"
    )


def print_vacuum(result: dict[str, Any], output: str) -> None:
    """Print what `vacuum` removed to stdout."""
    if output == "json":
        print(json.dumps(result, indent=2))
        return
    _print_table(
        ("path", "why", "bytes"), [[one["path"], one["why"], one["bytes"]] for one in result["removed"]]
    )
    verb = "would be removed" if result["dry_run"] else "removed"
    print(
        f"{len(result['removed']):,} files, {result['bytes']:,} bytes {verb}; oldest version that can be restored: "
        f"{result['oldest_restorable']}"
    )


def _print_table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(
            *("" if value is None else f"{value:,}" if type(value) is int else str(value) for value in row)
        )
    # Piped into a file or a pager a line is never folded.
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)


def print_verification(found: Verification, output: str) -> None:
    """Print what was found to stdout."""
    if output == "json":
        print(json.dumps(found.to_json(), indent=2))
        return
    print(
        f"version {found.table_version}: {found.rows:,} documents, {found.chunks:,} chunks in {found.parts:,} parts; "
        f"{found.other_fingerprints:,} documents of an older mapping or model; {found.orphans:,} orphaned part files; "
        f"{found.open_runs:,} open runs; index: "
        + ("none" if found.index_version is None else f"version {found.index_version}")
    )
    for problem in found.problems:
        print(f"{problem.kind}: {problem.where}: {problem.detail}")
    print("everything holds" if found.ok else f"{len(found.problems):,} problems")
