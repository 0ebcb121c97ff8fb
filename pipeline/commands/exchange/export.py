"""The commands of `export`: the table as files that other systems load."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import typer

from pipeline.commands.app import app
from pipeline.commands.arguments import Config, Format, Overrides, Quiet
from pipeline.terminal.output import counting, print_json, print_table
from pipeline.terminal.text import one_line

export = typer.Typer(
    help="Write the table as files that other systems load.",
    epilog="Example: semantic-ingest export chunks run_configs/quickstart.yaml out/chunks",
    no_args_is_help=True,
)
app.add_typer(export, name="export")

Since = Annotated[
    int | None,
    typer.Option(
        "--changes-since", metavar="VERSION", help="Only what changed since this version, deletions included."
    ),
]
Profile = Annotated[
    Literal["semantic_text", "nested"],
    typer.Option(help="Vectors in semantic_text fields, or in nested documents, which any cluster takes."),
]
InferenceIds = Annotated[
    list[str] | None,
    typer.Option("--inference-id", metavar="FIELD=ID", help="Endpoint that the target's mapping names."),
]
VectorIndex = Annotated[
    str | None,
    typer.Option(metavar="TYPE", help="How vectors are indexed: hnsw, int8_hnsw, bbq_hnsw, flat, …"),
]
ClusterVersion = Annotated[
    str, typer.Option(metavar="X.Y", help="Elasticsearch's version; base64 vectors need 9.3.")
]


@export.command(
    "elasticsearch",
    epilog="Example: semantic-ingest export elasticsearch run_configs/quickstart.yaml out/bulk --profile nested",
)
def export_elasticsearch(
    config: Config,
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Where index.json and bulk-*.ndjson go.")],
    profile: Profile = "semantic_text",
    legacy: Annotated[
        bool, typer.Option("--legacy", help="semantic_text as before 8.18: results inside the field.")
    ] = False,
    no_overlap: Annotated[
        bool,
        typer.Option("--no-overlap", help="The proposed form with own chunks: contiguous, one text a field."),
    ] = False,
    since: Since = None,
    max_bytes: Annotated[int, typer.Option(min=1, help="Largest size of a file.")] = 10 * 1024 * 1024,
    compress: Annotated[Literal["none", "gz", "zst"], typer.Option(help="Compression.")] = "none",
    vectors: Annotated[
        Literal["base64", "bfloat16", "array"], typer.Option(help="Vectors of nested documents.")
    ] = "base64",
    vector_index: VectorIndex = None,
    inference_ids: InferenceIds = None,
    cluster_version: ClusterVersion = "9.5",
    overrides: Overrides = None,
    quiet: Quiet = False,
    output: Format = "table",
) -> None:
    """Write documents and their vectors for _bulk."""
    from pipeline.config.load import load_config
    from pipeline.exchange.elasticsearch.bulk import export_bulk
    from pipeline.exchange.elasticsearch.index import index_body
    from pipeline.exchange.elasticsearch.options import document_form, parse_version
    from pipeline.exchange.rows import select_rows

    form = document_form(
        profile,
        legacy=legacy,
        no_overlap=no_overlap,
        vectors=vectors,
        version=parse_version(cluster_version),
        inference_ids=inference_ids or [],
    )
    rows = select_rows(load_config(config, overrides or []).table.path, since)
    body = index_body(rows, form, vector_index)
    with counting("documents", rows.count() + len(rows.deleted), quiet=quiet) as advance:
        manifest = export_bulk(
            rows, form, body, folder, max_bytes=max_bytes, compression=compress, advance=advance
        )
    told = {
        "table_version": rows.snapshot.version,
        "documents": manifest["documents"],
        "deletions": manifest["deletions"],
        "files": len(manifest["files"]),
        "bytes": sum(entry["size"] for entry in manifest["files"]),
        "oversized": [entry["oversized"] for entry in manifest["files"] if entry["oversized"]],
        "substituted_models": manifest["substituted_models"],
    }
    if output == "json":
        print_json(told)
    else:
        _tell(told)


def _tell(told: Mapping[str, Any]) -> None:
    """Print what was exported, and what whoever loads it has to know."""
    for asked, used in told["substituted_models"].items():
        typer.echo(f"warning: {used} stood in for {asked}; queries need the same model", err=True)
    for id_ in told["oversized"]:
        typer.echo(f"warning: document [{one_line(id_)}] alone is larger than --max-bytes", err=True)
    print_table((), [(name, value) for name, value in told.items() if type(value) is int])


@export.command(
    "chunks",
    epilog="Example: semantic-ingest export chunks run_configs/quickstart.yaml out/dense.parquet --field text_dense",
)
def export_chunks(
    config: Config,
    target: Annotated[str, typer.Argument(metavar="FILE.parquet|DIR", help="Where to.")],
    fields: Annotated[
        list[str] | None, typer.Option("--field", help="Semantic field; by default all of them.")
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--column", help="Plain column that each chunk repeats.")
    ] = None,
    overrides: Overrides = None,
    quiet: Quiet = False,
    output: Format = "table",
) -> None:
    """Write one row a chunk as Parquet. Ids, offsets, text, embedding or token ids and weights."""
    from pipeline.config.load import load_config
    from pipeline.exchange.chunk_files import export_chunks as write
    from pipeline.exchange.chunks import chunk_schemas
    from pipeline.exchange.rows import all_rows

    rows = all_rows(load_config(config, overrides or []).table.path)
    schemas = chunk_schemas(rows, fields or (), columns or ())
    with counting("chunks", None, quiet=quiet) as advance:
        told = write(rows, schemas, target, advance=advance)
    if output == "json":
        print_json(told)
    else:
        print_table((), list(told.items()))
