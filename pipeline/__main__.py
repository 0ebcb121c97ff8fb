"""The command line: ``python -m pipeline COMMAND``. Each command is a few lines that call a module of this package.

Results go to stdout, progress and logs to stderr. Exit codes: 0 done, 1 error, 2 bad config, 3 a gate failed,
4 more failures than allowed.
"""

import sys
from typing import Annotated, Literal

import typer

from pipeline import endpoints_app
from pipeline.arguments import Config, FormatOption, Index, Overrides, Quiet

app = typer.Typer(
    help="Chunk, embed and publish documents in batch, with the same chunks as Elasticsearch's semantic_text.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich help would double the start-up time
    add_completion=False,
)
app.add_typer(endpoints_app.app, name="endpoints")


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
    from pipeline.config import load_config

    loaded = load_config(config, overrides)  # a typo is found before Beam is imported, which takes seconds
    from pipeline.report import print_summary
    from pipeline.run import run_pipeline

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
    from pipeline.config import load_config
    from pipeline.forecast import forecast, print_forecast

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
    from pipeline.check import check_config
    from pipeline.config import load_config

    check_config(load_config(config, overrides), config, print_config=print_config)


@app.command(
    epilog='Example: echo \'{"id": "1", "text": "One. Two.", "chunking_settings": {"strategy": "none"}}\''
    " | python -m pipeline chunk"
)
def chunk(
    file: Annotated[
        str | None, typer.Argument(help="A text file to show in the terminal; without it, stdin.")
    ] = None,
    settings: Annotated[str | None, typer.Option(help="chunking_settings as JSON.")] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="Endpoint whose settings, tokenizer and window count.")
    ] = None,
    endpoints: Annotated[
        str, typer.Option(help="Folder of user-defined endpoints.")
    ] = "run_configs/endpoints",
) -> None:
    """Chunk JSON lines from stdin, or show the chunks of one text file."""
    from pipeline.chunk_command import chunk as chunk_command

    chunk_command(file, settings=settings, endpoint=endpoint, endpoints_path=endpoints)


@app.command(
    epilog='Example: python -m pipeline search run_configs/quickstart.yaml "career sacks" --mode hybrid'
)
def search(
    index: Index,
    query: Annotated[str | None, typer.Argument(help="What to look for.")] = None,
    mode: Annotated[
        Literal["bm25", "sparse", "dense", "hybrid"], typer.Option(help="How to rank.")
    ] = "hybrid",
    field: Annotated[
        str | None, typer.Option(help="Field to search; by default the first that fits.")
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Number of documents.")] = 10,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", help="field=value, field>=value or an Elasticsearch query; all must hold."),
    ] = None,
    fusion: Annotated[Literal["rrf", "linear"], typer.Option(help="How hybrid joins rankings.")] = "rrf",
    weights: Annotated[str, typer.Option(help="Weights of linear fusion.")] = "bm25=1,sparse=1,dense=1",
    prune: Annotated[
        str | None,
        typer.Option(
            metavar="RATIO,WEIGHT",
            help="Leave frequent light tokens out of sparse queries; Elasticsearch's thresholds are 5,0.4.",
        ),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say which tokens met.")] = False,
    queries: Annotated[str | None, typer.Option(help="File of queries; prints a JSON line for each.")] = None,
    overrides: Overrides = None,
    output: FormatOption = "table",
) -> None:
    """Search the index; a document's score is its best chunk's."""
    from pipeline.search_commands import search_command, search_options

    options = search_options(mode, field, k, filters or [], fusion, weights, prune=prune, explain=explain)
    search_command(index, query, queries, options, overrides or [], output)


@app.command(
    epilog="Example: python -m pipeline evaluate run_configs/quickstart.yaml --queries data/xquad/queries.jsonl"
    " --qrels data/xquad/qrels.tsv"
)
def evaluate(
    index: Index,
    queries: Annotated[str, typer.Option(help="Queries: BEIR's JSON lines, TREC topics, or id<tab>text.")],
    qrels: Annotated[str, typer.Option(help="Judgements, BEIR or TREC.")],
    modes: Annotated[str | None, typer.Option(help="Modes, comma-separated; by default all.")] = None,
    field: Annotated[
        str | None, typer.Option(help="Field to search; by default the first that fits.")
    ] = None,
    per_query: Annotated[
        str | None, typer.Option(help="Write each query's measures to this Parquet file.")
    ] = None,
    report: Annotated[str | None, typer.Option(help="Write a page with plots to this HTML file.")] = None,
    compare: Annotated[int | None, typer.Option(help="Compare with this version of the table.")] = None,
    overrides: Overrides = None,
    output: FormatOption = "table",
) -> None:
    """Measure retrieval: nDCG@10, recall@100, MRR@10 and MAP of every mode, and whether differences are real."""
    from pipeline.search_commands import evaluate_command

    evaluate_command(
        index,
        queries,
        qrels,
        modes=modes,
        field=field,
        per_query=per_query,
        report=report,
        compare=compare,
        overrides=overrides or [],
        output=output,
    )


@app.command(epilog="Example: python -m pipeline index run_configs/quickstart.yaml --verify")
def index(
    config: Config,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build it anew.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Only compare it with the table.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that index documents.")] = 1,
    overrides: Overrides = None,
    output: FormatOption = "table",
) -> None:
    """Bring the index to the table's version."""
    from pipeline.search_commands import index_command

    index_command(
        config, rebuild=rebuild, verify=verify, workers=workers, overrides=overrides or [], output=output
    )


@app.command(epilog="Example: python -m pipeline explore run_configs/quickstart.yaml --port 8765")
def explore(
    index: Index,
    host: Annotated[
        str, typer.Option(help="Address to listen on; everyone who reaches it can read.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8765,
    overrides: Overrides = None,
) -> None:
    """Look at the index in a browser: search modes side by side, chunks and their tokens."""
    from pipeline.explore import explore_command

    explore_command(index, host, port, overrides or [])


app.command(
    epilog='Example: python -m pipeline infer .minilm-l6-v2 "the quick brown fox" --input-type search'
)(endpoints_app.infer)


@app.command(epilog="Example: python -m pipeline history run_configs/quickstart.yaml --limit 7")
def history(
    config: Config,
    overrides: Overrides = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the newest versions.")] = None,
    output: FormatOption = "table",
) -> None:
    """List the table's versions: what each run changed, and which can be restored."""
    from pipeline.config import load_config
    from pipeline.maintain import history as list_versions
    from pipeline.maintain import print_history

    print_history(list_versions(load_config(config, overrides), limit), output)


@app.command(epilog="Example: python -m pipeline restore run_configs/quickstart.yaml 3")
def restore(
    config: Config,
    version: Annotated[int, typer.Argument(min=0, help="Version to go back to, as `history` shows it.")],
    overrides: Overrides = None,
    output: FormatOption = "table",
) -> None:
    """Publish the rows of an older version again, as a new version; the index follows."""
    from pipeline.config import load_config
    from pipeline.maintain import print_restore
    from pipeline.maintain import restore as restore_version

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
    from pipeline.config import load_config
    from pipeline.maintain import print_vacuum
    from pipeline.maintain import vacuum as clear_away

    result = clear_away(load_config(config, overrides), older_than_days=older_than, dry_run=dry_run)
    print_vacuum(result, output)


@app.command(epilog="Example: python -m pipeline verify run_configs/quickstart.yaml --format json")
def verify(config: Config, overrides: Overrides = None, output: FormatOption = "table") -> None:
    """Check the table against itself, its log and its index; exit code 1 when anything is wrong."""
    from pipeline.config import load_config
    from pipeline.verify import print_verification
    from pipeline.verify import verify as verify_table

    found = verify_table(load_config(config, overrides))
    print_verification(found, output)
    if not found.ok:
        raise typer.Exit(1)


def _stop_on_sigterm() -> None:
    """Let SIGTERM (systemd, Kubernetes, `kill`) end a command the way Ctrl-C does, with exit code 143."""
    import signal
    import threading
    from types import FrameType

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code instead of leaving the process.

    Args:
        argv: arguments without the program's name; those of the process by default.
    """
    from pipeline.errors import PipelineError
    from pipeline.logs import configure_logging

    configure_logging()
    _stop_on_sigterm()
    try:
        app(args=argv, prog_name="python -m pipeline", standalone_mode=True)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        # A full disk, a missing right, a mount that went away: the system's own words say it best.
        where = f" [{error.filename}]" if error.filename else ""
        print(f"error: {error.strerror or error}{where}", file=sys.stderr)
        return 1
    except Exception as error:
        from models.errors import InferenceError

        if not isinstance(error, InferenceError):
            raise
        print(f"error: {error.reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
