"""The commands that look after the table: `history`, `restore`, `vacuum` and `verify`."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.app import app, spare_pandas
from pipeline.commands.arguments import Config, Format, Overrides
from pipeline.terminal.output import print_json, print_table
from pipeline.terminal.text import number_of, one_line

if TYPE_CHECKING:
    from pipeline.config.run_config import RunConfig
    from pipeline.table.verify import Verification

_HISTORY = (
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


@app.command(epilog="Example: semantic-ingest history run_configs/quickstart.yaml --limit 7")
def history(
    config: Config,
    overrides: Overrides = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the newest versions.")] = None,
    output: Format = "table",
) -> None:
    """List the table's versions. What each run changed, and which can be restored."""
    spare_pandas()
    from pipeline.config.load import load_config
    from pipeline.table.history import history as list_versions

    versions = list_versions(load_config(config, overrides), limit)
    if output == "json":
        print_json({"versions": [asdict(version) for version in versions]})
    else:
        headings = [name.replace("_", " ") for name in _HISTORY]
        print_table(headings, [[getattr(version, name) for name in _HISTORY] for version in versions])


@app.command(epilog="Example: semantic-ingest restore run_configs/quickstart.yaml 3")
def restore(
    config: Config,
    version: Annotated[int, typer.Argument(min=0, help="Version to go back to, as `history` shows it.")],
    overrides: Overrides = None,
    output: Format = "table",
) -> None:
    """Publish an older version again, as a new one. The index follows."""
    spare_pandas()
    from pipeline.config.load import load_config
    from pipeline.table.history import restore as restore_version

    result = restore_version(load_config(config, overrides), version)
    if output == "json":
        print_json(result)
        return
    index = "" if result["index_version"] is None else f"; the index shows version {result['index_version']}"
    rows = f"the {number_of(result['rows'], 'row')} of version {result['restored']}"
    print(f"version {result['table_version']} has {rows}{index}")


@app.command(epilog="Example: semantic-ingest vacuum run_configs/quickstart.yaml --dry-run")
def vacuum(
    config: Config,
    overrides: Overrides = None,
    older_than: Annotated[
        float, typer.Option("--older-than", metavar="DAYS", min=0, help="Keep what is younger than this.")
    ] = 7.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing, show what would go.")] = False,
    output: Format = "table",
) -> None:
    """Delete files of old versions and of killed runs."""
    spare_pandas()
    from pipeline.config.load import load_config
    from pipeline.table.vacuum import vacuum as clear_away

    result = clear_away(load_config(config, overrides), older_than_days=older_than, dry_run=dry_run)
    if output == "json":
        print_json(result)
        return
    names = ("path", "why", "bytes")
    print_table(names, [[one[name] for name in names] for one in result["removed"]])
    verb = "would be removed" if result["dry_run"] else "removed"
    oldest = f"oldest version that can be restored: {result['oldest_restorable']}"
    files = number_of(len(result["removed"]), "file")
    print(f"{files}, {number_of(result['bytes'], 'byte')} {verb}; {oldest}")


@app.command(epilog="Example: semantic-ingest verify run_configs/quickstart.yaml --format json")
def verify(
    config: Config,
    overrides: Overrides = None,
    rows: Annotated[
        bool, typer.Option("--rows", help="Also derive every row again; far slower than checksums.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make damaged documents again from the source, and the index.")
    ] = False,
    output: Format = "table",
) -> None:
    """Check the table against itself, its log and its index. Exit code 1 when anything is wrong."""
    spare_pandas()
    from pipeline.config.load import load_config
    from pipeline.table.verify import verify as verify_table

    loaded = load_config(config, overrides)
    found = verify_table(loaded, rows=rows)
    if repair and not found.ok:
        _repair(loaded, found)
        found = verify_table(loaded, rows=rows)
    if output == "json":
        print_json(found.to_json())
    else:
        index = "none" if found.index_version is None else f"version {found.index_version}"
        print(
            f"version {found.table_version}: {number_of(found.rows, 'document')},"
            f" {number_of(found.chunks, 'chunk')} in {number_of(found.parts, 'part')};"
            f" {number_of(found.other_fingerprints, 'document')} of an older mapping or model;"
            f" {number_of(found.orphans, 'orphaned part file')}; {number_of(found.open_runs, 'open run')};"
            f" index: {index}"
        )
        for problem in found.problems:
            print(one_line(f"{problem.kind}: {problem.where}: {problem.detail}"))
        print("everything holds" if found.ok else number_of(len(found.problems), "problem"))
    if not found.ok:
        raise typer.Exit(1)


def _repair(config: "RunConfig", found: "Verification") -> None:
    """Make again what is wrong: part files by a run over the source, the index from the table."""
    from pipeline.errors import PipelineError
    from pipeline.run.job import run_pipeline
    from pipeline.table.part_check import PART_DAMAGE

    if any(problem.kind == "log" for problem in found.problems):
        raise PipelineError(
            "the table's log is damaged, which no source can mend: `history` shows the versions, `restore` goes back"
            " to one of them, and the next run makes what is missing"
        )
    damaged = {problem.where for problem in found.problems if problem.kind in PART_DAMAGE}
    for problem in found.problems[:20]:
        print(one_line(f"{problem.kind}: {problem.where}: {problem.detail}"), file=sys.stderr)
    run_pipeline(config, damaged=damaged)
