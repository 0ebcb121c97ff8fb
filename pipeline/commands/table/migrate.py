"""The command `migrate`: a semantic field moves to another endpoint."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.app import app, spare_pandas
from pipeline.commands.arguments import Config, Format, Overrides, Quiet
from pipeline.errors import PipelineError
from pipeline.terminal.output import print_json, print_table
from pipeline.terminal.text import number_of, one_line

if TYPE_CHECKING:
    from pipeline.config.migration import Embedding
    from pipeline.config.run_config import RunConfig
    from pipeline.report.run_json import RunSummary

_NEXT = {
    "--to": "both are searchable; next comes --switch, or --drop-next",
    "--switch": "the old one stays beside it; give the field the new settings in the config, then --drop-old",
}


@app.command(
    epilog="Example: semantic-ingest migrate nightly.yaml --field body_dense --to .minilm-l6-v2; look at both; then"
    " --switch, and one day --drop-old"
)
def migrate(
    config: Config,
    field: Annotated[
        str | None, typer.Option(help="The semantic field; without it, show what is on its way.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="ENDPOINT", help="Embed it with this one too, beside it.")
    ] = None,
    chunking: Annotated[
        str | None, typer.Option(metavar="JSON", help="Other chunking_settings for the new one.")
    ] = None,
    context: Annotated[
        str | None, typer.Option(metavar="TEMPLATE", help="What stands before each of its chunks.")
    ] = None,
    late_chunking: Annotated[
        bool | None,
        typer.Option(
            "--late-chunking/--no-late-chunking",
            help="Embed its chunks within their document, or each alone.",
        ),
    ] = None,
    switch: Annotated[bool, typer.Option("--switch", help="Make the new embedding the field's own.")] = False,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="After the switch: let the old one go.")
    ] = False,
    drop_next: Annotated[
        bool, typer.Option("--drop-next", help="Before the switch: let the new one go.")
    ] = False,
    queries: Annotated[
        str | None, typer.Option(help="Queries that both are measured with; by default those of the gates.")
    ] = None,
    qrels: Annotated[str | None, typer.Option(help="Their judgements.")] = None,
    overrides: Overrides = None,
    quiet: Quiet = False,
    output: Format = "table",
) -> None:
    """Move a semantic field to another endpoint. It stays searchable, and the source is not read."""
    spare_pandas()
    from pipeline.config.load import load_config
    from pipeline.run.migrate import begin, drop
    from pipeline.run.migrate import switch as switch_over

    loaded = load_config(config, overrides)
    step = _step({"--to": to, "--switch": switch, "--drop-old": drop_old, "--drop-next": drop_next})
    if step != "--to" and any(one is not None for one in (chunking, context, late_chunking)):
        raise PipelineError("--chunking, --context and --late-chunking go with --to")
    if step is None:
        return _show(loaded, output)
    if field is None:
        raise PipelineError(f"{step} needs --field; the mapping has {', '.join(loaded.mappings.semantic())}")
    compared = None
    if to is not None:
        embedding = _embedding(loaded, field, to, chunking, context, late_chunking)
        summary = begin(loaded, field, embedding, quiet=quiet)
        compared = _compare(loaded, field, queries or loaded.gates.queries, qrels or loaded.gates.qrels)
    elif step == "--switch":
        summary = switch_over(loaded, field, quiet=quiet)
    else:
        summary = drop(loaded, field, old=drop_old, quiet=quiet)
    if output == "json":
        return print_json({**summary.to_json(details=False), "comparison": compared})
    _print_summary(summary)
    if compared is not None:
        _print_comparison(compared)
    print(_NEXT.get(step, f"[{field}] is on its way no more"))


def _step(asked: dict[str, Any]) -> str | None:
    """The one step that is asked for, if any."""
    steps = [name for name, wanted in asked.items() if wanted]
    if len(steps) > 1:
        raise PipelineError(f"{' and '.join(steps)} are steps of their own; name one")
    return steps[0] if steps else None


def _embedding(
    config: "RunConfig",
    field: str,
    to: str,
    chunking: str | None,
    context: str | None,
    late_chunking: bool | None,
) -> "Embedding":
    """What `--to` and its options ask for; without them the field's own settings stay."""
    from models.chunking_settings import parse_chunking_settings
    from models.errors import InferenceError
    from models.json_text import parse_json
    from pipeline.config.migration import Embedding

    mapped = config.mappings.semantic().get(field)
    settings = mapped.chunking_settings if mapped else None
    if context is not None and late_chunking:
        raise PipelineError("--context and --late-chunking exclude each other; name one")
    # What is asked for takes the place of the other that the field has.
    if context is None and mapped and not late_chunking:
        context = mapped.context
    late = (
        bool(mapped and mapped.late_chunking and context is None) if late_chunking is None else late_chunking
    )
    if chunking is not None:
        try:
            settings = parse_json(chunking)
            parse_chunking_settings(settings, return_defaults=False)
        except ValueError as error:
            raise PipelineError(f"--chunking is not JSON: {error}") from None
        except InferenceError as error:
            raise PipelineError(f"--chunking: {error.reason}") from None
    return Embedding(to, None, settings, context, late)


def _compare(
    config: "RunConfig", field: str, queries: str | None, qrels: str | None
) -> dict[str, Any] | None:
    """Measure both embeddings with the same queries; None where there are none, or no index."""
    from pipeline.config.migration import second_field
    from pipeline.evaluation.fields import compare_fields
    from pipeline.evaluation.judgements import load_qrels, load_queries
    from pipeline.search.open_index import SearchIndex
    from pipeline.table.column_sizes import column_bytes

    if config.index is None or queries is None or qrels is None:
        return None
    both = (field, second_field(config.mappings, field, switched=False))
    found = compare_fields(SearchIndex(config.index.path), both, load_queries(queries), load_qrels(qrels))
    return {**found.to_json(), "bytes": column_bytes(config.table.path, both)}


def _show(config: "RunConfig", output: str) -> None:
    """List the fields that are on their way."""
    from pipeline.config.migration import reminders
    from pipeline.table.migrations import read_migrations

    migrations = read_migrations(config.table.path)
    if output == "json":
        return print_json({name: one.to_json() for name, one in migrations.items()})
    for reminder in reminders(config, migrations):
        print(one_line(reminder))
    if not migrations:
        print("no field is on its way to another endpoint;")
        print("`semantic-ingest migrate CONFIG --field F --to ENDPOINT` begins")


def _print_summary(summary: "RunSummary") -> None:
    counts = (f"{count:,} {name.replace('_', ' ')}" for name, count in summary.documents.items() if count)
    rows = {
        "documents": ", ".join(counts),
        "chunks": f"{summary.chunks:,} ({summary.embedded:,} embedded, {summary.reused:,} reused)",
        "time": f"{summary.seconds:.1f} s for {summary.tokens:,} tokens",
        "table": f"version {summary.table_version}",
    }
    print_table((), rows.items())


def _print_comparison(found: dict[str, Any]) -> None:
    """Print quality, then what it costs, then the queries that lose."""
    before, after = found["seconds"]
    rows = []
    for one in found["measures"]:
        values = (f"{one['before']:.4f}", f"{one['after']:.4f}", f"{one['after'] - one['before']:+.4f}")
        rows.append((one["ranking"], one["measure"], *values, f"{one['p']:.4f}"))
    title = number_of(found["queries"], "query")
    print_table(("ranking", "measure", before, after, "difference", "p"), rows, title=title)
    seconds, sizes = found["seconds"], found["bytes"]
    cost = [(name, f"{seconds[name] * 1000:.1f} ms", sizes[name]) for name in (before, after)]
    print_table(("field", "median answer", "bytes in the table"), cost)
    losers = [
        (one["query_id"], one["query"], f"{one['before']:.3f}", f"{one['after']:.3f}")
        for one in found["losers"]
    ]
    if losers:
        print_table(("query", "text", before, after), losers, title="what loses most of ndcg@10")
