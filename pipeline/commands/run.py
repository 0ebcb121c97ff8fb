"""The commands `run`, `plan` and `check`."""

import json
from typing import Annotated, Any, Literal

import typer

from pipeline.commands.app import app
from pipeline.commands.arguments import Config, FormatOption, Overrides, Quiet


@app.command(epilog="Example: python -m pipeline run run_configs/quickstart.yaml --set runner.device=cpu")
def run(
    config: Config,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done, like `plan`.")
    ] = False,
    allow_mass_delete: Annotated[
        bool, typer.Option("--allow-mass-delete", help="Let a full sync delete more than max_delete_ratio.")
    ] = False,
    lock: Annotated[
        bool, typer.Option("--lock", help="Fail at once when another run of this table is in progress.")
    ] = False,
    log_format: Annotated[
        Literal["text", "json"], typer.Option(help="Format of the log on stderr.")
    ] = "text",
    quiet: Quiet = False,
    output: FormatOption = "table",
) -> None:
    """Ingest: read, chunk, embed, publish one new version of the table, bring the index up to date."""
    from pipeline.logs import configure_logging

    configure_logging(log_format)
    if dry_run:
        return plan(config, overrides, output=output)
    from pipeline.config.load import load_config

    loaded = load_config(config, overrides)  # a typo is found before Beam is imported, which takes seconds
    from pipeline.run.job import run_pipeline

    summary = run_pipeline(loaded, allow_mass_delete=allow_mass_delete, lock=lock, quiet=quiet)
    print_summary(summary, output)


@app.command(epilog="Example: python -m pipeline plan run_configs/quickstart.yaml --format json")
def plan(
    config: Config,
    overrides: Overrides = None,
    calibrate: Annotated[bool, typer.Option(help="Embed a few chunks to estimate the time of a run.")] = True,
    output: FormatOption = "table",
) -> None:
    """Show what a run would do: documents added, changed and deleted, chunks, tokens, truncations, time, size."""
    from pipeline.config.load import load_config
    from pipeline.run.forecast import forecast

    print_forecast(forecast(load_config(config, overrides), calibrate=calibrate), output)


@app.command(epilog="Example: python -m pipeline check run_configs/quickstart.yaml --print")
def check(
    config: Config,
    overrides: Overrides = None,
    print_config: Annotated[
        bool, typer.Option("--print", help="Print the config with every default.")
    ] = False,
) -> None:
    """Say everything that is wrong with a config before it runs."""
    from pipeline.config.load import load_config
    from pipeline.run.check import check_config

    check_config(load_config(config, overrides), config, print_config=print_config)


def print_forecast(result: dict[str, Any], output: Literal["table", "json"]) -> None:
    """Print a forecast to stdout."""
    if output == "json":
        print(json.dumps(result, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    counts = [f"{count:,} {name.replace('_', ' ')}" for name, count in result["documents"].items() if count]
    console.print(f"documents: {', '.join(counts) or 'none'}")
    if result["would_fail_mass_delete_guard"]:
        console.print("[bold red]the run would stop: more deletions than source.max_delete_ratio allows[/]")
    fields = result["fields"]
    table = Table("", *fields)
    table.add_row("endpoint", *(field["inference_id"] for field in fields.values()))
    for count in ("chunks", "reused", "merged", "tokens", "truncated"):
        table.add_row(count, *(f"{field[count]:,}" for field in fields.values()))
    for unit in ("words_per_chunk", "tokens_per_chunk"):
        lengths = (" / ".join(map(str, field[unit].values())) for field in fields.values())
        table.add_row(f"{unit.replace('_', ' ')}: median / 95 % / most", *lengths)
    console.print(table)
    if result["estimated_seconds"] is not None:
        size = result["estimated_bytes"] / 1e6
        console.print(
            f"estimate: {result['estimated_seconds']:,.0f} s of embedding, {size:,.1f} MB before compression"
        )


def print_summary(summary: dict[str, Any], output: Literal["table", "json"]) -> None:
    """Print the summary of a run to stdout."""
    if output == "json":
        print(json.dumps(summary, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    documents = summary["documents"]
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    rows = {
        "documents": ", ".join(
            f"{count:,} {name.replace('_', ' ')}" for name, count in documents.items() if count
        )
        or "none",
        "chunks": f"{summary['chunks']:,} ({summary['embedded']:,} embedded, {summary['reused']:,} reused)",
        "tokens": f"{summary['tokens']:,}",
        "truncated": f"{summary['truncated']:,} chunks were cut at the model's window",
        "time": f"{summary['seconds']:.1f} s, {summary['tokens_per_second']:,.0f} tokens/s while embedding",
        "table": _version(summary["table_version"]),
        "index": _version(summary["index_version"]),
    }
    for asked, used in summary["substitutions"].items():
        rows[f"{asked}"] = f"substituted by {used}"
    if summary["retries"]:
        rows["retries"] = f"{summary['retries']:,} requests were tried again {summary['retries_by_endpoint']}"
    for gate in summary.get("gates", []):
        verdict = "; ".join(gate["problems"]) or "passed"
        rows[f"gate {gate['measure']}"] = f"{gate['value']:.4f}, {verdict}"
    if summary["failures_path"]:
        rows["failures"] = f"{summary['failures_path']} {summary['failures_by_reason']}"
    if documents.get("held_back"):
        rows["held back"] = f"{documents['held_back']:,} deletions wait until the whole source can be read"
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)


def _version(number: int | None) -> str:
    return "none" if number is None else f"version {number}"
