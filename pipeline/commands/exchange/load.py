"""The commands of `load`: the table into other systems."""

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipeline.commands.app import app
from pipeline.commands.arguments import Config, Format, Overrides, Quiet
from pipeline.terminal.output import counting, print_json, print_table

if TYPE_CHECKING:
    from pipeline.exchange.engines.load import ChunkTarget

load = typer.Typer(
    help="Load the table into other systems. Each of them remembers what it shows.",
    epilog="Example: semantic-ingest load elasticsearch run_configs/quickstart.yaml http://127.0.0.1:9200"
    " --index docs-1 --alias docs --profile nested",
    no_args_is_help=True,
)
app.add_typer(load, name="load")

Url = Annotated[str, typer.Argument(metavar="URL", help="Where the system is.")]
ApiKey = Annotated[
    str | None, typer.Option("--api-key", metavar="env:NAME|file:PATH", help="Where the API key stands.")
]


@load.command(
    "elasticsearch",
    epilog="Example: semantic-ingest load elasticsearch run_configs/quickstart.yaml http://127.0.0.1:9200"
    " --index docs-1 --alias docs --profile nested",
)
def load_elasticsearch(
    source: Annotated[str, typer.Argument(metavar="CONFIG|DIR", help="Run config, or folder of an export.")],
    url: Url,
    index: Annotated[str, typer.Option("--index", help="The index; made when it is not there.")],
    alias: Annotated[
        str | None, typer.Option(help="Points to the index alone, once it is complete and checked.")
    ] = None,
    profile: Annotated[
        Literal["semantic_text", "nested"], typer.Option(help="How documents are written (CONFIG).")
    ] = "semantic_text",
    vectors: Annotated[
        Literal["base64", "bfloat16", "array"], typer.Option(help="Vectors of nested documents (CONFIG).")
    ] = "base64",
    vector_index: Annotated[
        str | None, typer.Option(metavar="TYPE", help="How vectors are indexed (CONFIG): hnsw, bbq_hnsw, …")
    ] = None,
    inference_ids: Annotated[
        list[str] | None,
        typer.Option("--inference-id", metavar="FIELD=ID", help="Endpoint in the cluster (CONFIG)."),
    ] = None,
    api_key: ApiKey = None,
    threads: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 2,
    max_failures: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of documents that the cluster may refuse.")
    ] = 0.0,
    dead_letters: Annotated[
        str, typer.Option(metavar="FILE", help="Where refused documents are told of.")
    ] = "dead-letters.jsonl",
    overrides: Overrides = None,
    quiet: Quiet = False,
    output: Format = "table",
) -> None:
    """Load documents with their vectors. A later load sends what has changed, a broken one goes on."""
    from pipeline.config.load import load_config
    from pipeline.exchange.elasticsearch.load import ClusterIndex, connect
    from pipeline.exchange.elasticsearch.load import load as load_into
    from pipeline.exchange.elasticsearch.options import document_form
    from pipeline.exchange.elasticsearch.sources import ExportSource, TableSource

    target = ClusterIndex(connect(url, api_key), index)
    loaded: TableSource | ExportSource
    if Path(source).is_dir():
        loaded = ExportSource(source)
    else:
        form = document_form(
            profile, vectors=vectors, version=target.version(), inference_ids=inference_ids or []
        )
        loaded = TableSource(load_config(source, overrides or []).table.path, form, vector_index)
    with counting("documents", loaded.count(), quiet=quiet) as advance:
        report = load_into(
            target,
            loaded,
            alias=alias,
            threads=threads,
            max_failures=max_failures,
            dead_letters=dead_letters,
            advance=advance,
        )
    _print(asdict(report), output)


def _print(told: dict[str, Any], output: str) -> None:
    if output == "json":
        print_json(told)
    else:
        print_table((), [(name.replace("_", " "), str(value)) for name, value in told.items()])


Fields = Annotated[list[str] | None, typer.Option("--field", help="Semantic field; by default all of them.")]
Columns = Annotated[list[str] | None, typer.Option("--column", help="Plain column that each chunk repeats.")]


@load.command(
    "opensearch",
    epilog="Example: semantic-ingest load opensearch run_configs/quickstart.yaml http://127.0.0.1:9200 --index docs",
)
def load_opensearch(
    config: Config,
    url: Url,
    index: Annotated[str, typer.Option("--index", help="The index; made when it is not there.")],
    fields: Fields = None,
    columns: Columns = None,
    overrides: Overrides = None,
    quiet: Quiet = False,
    output: Format = "table",
) -> None:
    """Load chunks into OpenSearch. knn_vector and rank_features, a document a chunk."""
    from pipeline.exchange.engines.opensearch import OpenSearchChunks

    _load_chunks(OpenSearchChunks(_resolved(url), index), config, fields, columns, overrides, quiet, output)


@load.command(
    "qdrant",
    epilog="Example: semantic-ingest load qdrant run_configs/quickstart.yaml out/qdrant --collection docs",
)
def load_qdrant(
    config: Config,
    url: Annotated[str, typer.Argument(metavar="URL|FOLDER", help="A server, or the folder of a local one.")],
    collection: Annotated[str, typer.Option("--collection", help="The collection.")],
    api_key: ApiKey = None,
    fields: Fields = None,
    columns: Columns = None,
    overrides: Overrides = None,
    quiet: Quiet = False,
    output: Format = "table",
) -> None:
    """Load chunks into Qdrant. A named vector for each field, a point a chunk."""
    from pipeline.exchange.engines.qdrant import QdrantChunks

    key = None if api_key is None else _resolved(api_key)
    with closing(QdrantChunks(url, collection, key)) as target:
        _load_chunks(target, config, fields, columns, overrides, quiet, output)


@load.command(
    "lancedb",
    epilog="Example: semantic-ingest load lancedb run_configs/quickstart.yaml out/lance --table docs"
    " --field text_dense",
)
def load_lancedb(
    config: Config,
    folder: Annotated[str, typer.Argument(metavar="FOLDER|URL", help="The database.")],
    table: Annotated[str, typer.Option("--table", help="The table.")],
    fields: Fields = None,
    columns: Columns = None,
    overrides: Overrides = None,
    quiet: Quiet = False,
    output: Format = "table",
) -> None:
    """Load the chunks of one dense field into LanceDB."""
    from pipeline.exchange.engines.lancedb import LanceChunks

    _load_chunks(LanceChunks(folder, table), config, fields, columns, overrides, quiet, output)


@load.command(
    "pgvector",
    epilog="Example: semantic-ingest load pgvector run_configs/quickstart.yaml env:DATABASE_URL --table docs",
)
def load_pgvector(
    config: Config,
    url: Annotated[
        str, typer.Argument(metavar="URL|env:NAME", help="postgresql://…, or the variable that holds it.")
    ],
    table: Annotated[str, typer.Option("--table", help="The table.")],
    fields: Fields = None,
    columns: Columns = None,
    overrides: Overrides = None,
    quiet: Quiet = False,
    output: Format = "table",
) -> None:
    """Load chunks into PostgreSQL. vector and sparsevec, a row a chunk."""
    from pipeline.exchange.engines.pgvector import PostgresChunks

    with closing(PostgresChunks(_resolved(url), table)) as target:
        _load_chunks(target, config, fields, columns, overrides, quiet, output)


def _resolved(value: str) -> str:
    """What an ``env:NAME`` or ``file:PATH`` stands for; any other value itself."""
    from models.endpoints.secrets import is_reference, resolve

    return resolve({"url": value}, None)["url"] if is_reference(value) else value


def _load_chunks(
    target: "ChunkTarget",
    config: str,
    fields: list[str] | None,
    columns: list[str] | None,
    overrides: list[str] | None,
    quiet: bool,
    output: str,
) -> None:
    from pipeline.config.load import load_config
    from pipeline.exchange.engines.load import load_chunks

    path = load_config(config, overrides or []).table.path
    with counting("chunks", None, quiet=quiet) as advance:
        report = load_chunks(target, path, fields or (), columns or (), advance=advance)
    _print(asdict(report), output)
