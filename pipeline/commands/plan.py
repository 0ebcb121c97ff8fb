"""The command `plan`: what a run would do."""

from typing import Annotated, Any

import typer

from pipeline.commands.app import app
from pipeline.commands.arguments import Config, Format, Overrides
from pipeline.terminal.output import extraction_rows, print_json, print_table, skipped_files
from pipeline.terminal.text import one_line


@app.command(epilog="Example: semantic-ingest plan run_configs/quickstart.yaml --format json")
def plan(
    config: Config,
    overrides: Overrides = None,
    calibrate: Annotated[bool, typer.Option(help="Embed a few chunks to estimate the time of a run.")] = True,
    output: Format = "table",
) -> None:
    """Show what a run would do. Documents added, changed and deleted, chunks, tokens, truncations, time, size."""
    from pipeline.config.load import load_config

    loaded = load_config(config, overrides)  # a typo is found before Beam is imported, which takes seconds
    from pipeline.run.forecast import forecast

    result = forecast(loaded, calibrate=calibrate)
    if output == "json":
        print_json(result)
    else:
        _print_forecast(result)


def _print_forecast(result: dict[str, Any]) -> None:
    counts = [f"{count:,} {name.replace('_', ' ')}" for name, count in result["documents"].items() if count]
    print(f"documents: {', '.join(counts) or 'none'}")
    for name, value in extraction_rows(result["extraction"]).items():
        print(f"{name}: {one_line(value)}")
    if result["skipped_files"]:
        print(one_line(f"files: {skipped_files(result['skipped_files'])}"))
    if result["would_fail_mass_delete_guard"]:
        warning = "the run would stop: more deletions than source.max_delete_ratio allows"
        typer.secho(warning, fg="red", bold=True)
    fields = result["fields"].values()
    rows = [["endpoint", *(field["inference_id"] for field in fields)]]
    for count in ("chunks", "reused", "merged", "tokens", "truncated"):
        if count == "chunks" or any(field[count] for field in fields):
            rows.append([count, *(field[count] for field in fields)])
    for unit in ("words_per_chunk", "tokens_per_chunk"):
        if not any(field["chunks"] for field in fields):
            continue
        lengths = (" / ".join(map(str, field[unit].values())) for field in fields)
        rows.append([f"{unit.replace('_', ' ')}: median / 95 % / most", *lengths])
    if result["estimated_cost"] is not None:
        costs = (field["cost"] for field in fields)
        rows.append(["cost", *("–" if cost is None else f"{cost:,.4f}" for cost in costs)])
    print_table(["", *result["fields"]], rows)
    if result["estimated_cost"] is not None:
        print(
            f"cost: {result['estimated_cost']:,.4f} for {result['tokens']:,} tokens, by the prices in [models]"
        )
    if result["estimated_seconds"] is not None:
        size = result["estimated_bytes"] / 1e6
        seconds = result["estimated_seconds"]
        print(f"estimate: {seconds:,.0f} s of embedding, {size:,.1f} MB before compression")
