"""The command `run`: the whole job."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipeline.commands.app import app, spare_pandas
from pipeline.commands.arguments import Config, Format, Overrides, Quiet
from pipeline.terminal.output import counted, extraction_rows, print_json, print_table, skipped_files

if TYPE_CHECKING:
    from pipeline.config.run_config import RunConfig
    from pipeline.report.run_json import RunSummary


@app.command(epilog="Example: semantic-ingest run run_configs/quickstart.yaml --set runner.device=cpu")
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
    output: Format = "table",
) -> None:
    """Ingest: read, chunk, embed, publish, index. All of it becomes one new version of the table."""
    from pipeline.logs import configure_logging

    spare_pandas()
    configure_logging(log_format)
    if dry_run:
        from pipeline.commands.plan import plan

        return plan(config, overrides, output=output)
    from pipeline.config.load import load_config

    loaded = load_config(config, overrides)  # a typo is found before Beam is imported, which takes seconds
    from pipeline.run.job import run_pipeline

    summary = run_pipeline(loaded, allow_mass_delete=allow_mass_delete, lock=lock, quiet=quiet)
    if output == "json":
        print_json(summary.to_json(details=False))
    else:
        print_table((), {**_summary_rows(summary), **_records(loaded)}.items())


def _summary_rows(summary: "RunSummary") -> dict[str, str]:
    """What the table of a summary shows: heading -> value."""
    documents = summary.documents
    told_below = ("taken_over", "held_back")
    counts = [f"{count:,} {name}" for name, count in documents.items() if count and name not in told_below]
    rows = {
        "documents": ", ".join(counts) or "none",
        "chunks": f"{summary.chunks:,} ({summary.embedded:,} embedded, {summary.reused:,} reused)",
        **extraction_rows(summary.to_json()["extraction"]),
        "tokens": f"{summary.tokens:,}",
        "truncated": f"{summary.truncated:,} chunks were cut at the model's window",
        "time": f"{summary.seconds:.1f} s"
        + (f", {summary.tokens_per_second:,.0f} tokens/s while embedding" if summary.tokens else ""),
        "table": _version(summary.table_version),
        "index": _version(summary.index_version),
    }
    if summary.made_lists:
        rows["columns"] = f"{', '.join(summary.made_lists)}: now lists, since a document has several values"
    if summary.skipped_files:
        rows["files"] = skipped_files(summary.skipped_files)
    for asked, used in summary.substitutions.items():
        rows[asked] = f"substituted by {used}"
    if summary.retries:
        rows["retries"] = (
            f"{summary.retries:,} requests were tried again: {counted(summary.retries_by_endpoint)}"
        )
    for gate in summary.gates:
        verdict = "; ".join(gate.problems) or "passed"
        rows[f"gate {gate.measure}"] = f"{gate.value:.4f}, {verdict}"
    if summary.failures_path:
        rows["failures"] = f"{counted(summary.failures_by_reason)}; each in {summary.failures_path}"
    if documents.get("taken_over"):
        rows["taken over"] = (
            f"{documents['taken_over']:,} of these documents were finished by a run that was stopped"
        )
    if documents.get("held_back"):
        rows["held back"] = f"{documents['held_back']:,} deletions wait until the whole source can be read"
    return rows


def _records(config: "RunConfig") -> dict[str, str]:
    """The files that tell more of the run."""
    path = config.run_json
    return {} if path is None else {"report": f"{path.with_name('report.html')}, {path}"}


def _version(number: int | None) -> str:
    return "none" if number is None else f"version {number}"
