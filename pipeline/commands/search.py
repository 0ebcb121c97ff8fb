"""The command `search`: one query shown with its hits, or a file of queries as JSON lines."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipeline.commands.app import app, spare_pandas
from pipeline.commands.arguments import (
    Field,
    Format,
    Index,
    Overrides,
    PruningOption,
    index_path,
    pruning_of,
)
from pipeline.commands.output import print_json, print_table, printable
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.search.open_index import SearchIndex
    from pipeline.search.search import Hit, SearchOptions

SHOWN_CHARACTERS = 500
SHOWN_TOKENS = 12


@app.command(
    epilog='Example: semantic-ingest search run_configs/quickstart.yaml "career sacks" --mode hybrid'
)
def search(
    index: Index,
    query: Annotated[str | None, typer.Argument(help="What to look for.")] = None,
    mode: Annotated[
        Literal["bm25", "sparse", "dense", "hybrid"], typer.Option(help="How to rank.")
    ] = "hybrid",
    field: Field = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Number of documents.")] = 10,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter", help="`year>=1970 AND kind=report`, or an Elasticsearch query in JSON; all must hold."
        ),
    ] = None,
    fusion: Annotated[Literal["rrf", "linear"], typer.Option(help="How hybrid joins rankings.")] = "rrf",
    weights: Annotated[str, typer.Option(help="Weights of linear fusion.")] = "bm25=1,sparse=1,dense=1",
    pruning: PruningOption = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say which tokens met.")] = False,
    queries: Annotated[str | None, typer.Option(help="File of queries; prints a JSON line for each.")] = None,
    overrides: Overrides = None,
    output: Format = "table",
) -> None:
    """Search the index; a document's score is its best chunk's."""
    spare_pandas()
    from pipeline.search.filters import parse_filters
    from pipeline.search.open_index import SearchIndex
    from pipeline.search.search import SearchOptions

    options = SearchOptions(
        mode, field, k, parse_filters(filters or []), fusion, _weights(weights), pruning_of(pruning), explain
    )
    opened = SearchIndex(index_path(index, overrides))
    if query is not None and queries is None:
        _answer(opened, query, options, output)
    elif queries is not None and query is None:
        _answer_file(opened, queries, options)
    else:
        raise PipelineError("search takes a QUERY, or a file of queries with --queries")


def _weights(text: str) -> Mapping[str, float]:
    try:
        pairs = dict(pair.split("=") for pair in text.split(","))
        return {mode: float(weight) for mode, weight in pairs.items()}
    except ValueError:
        raise PipelineError(f"--weights [{text}] is not of the form bm25=1,sparse=1,dense=1") from None


def _answer_file(index: "SearchIndex", file: str, options: "SearchOptions") -> None:
    """Print a JSON line for each query of a file."""
    from pipeline.evaluation.judgements import load_queries
    from pipeline.search.search import search_many

    queries = load_queries(file)
    for name, hits in zip(queries, search_many(index, list(queries.values()), options), strict=True):
        print_json({"query_id": name, "hits": [hit.to_json() for hit in hits]}, indent=None)


def _answer(index: "SearchIndex", query: str, options: "SearchOptions", output: str) -> None:
    from pipeline.search.search import search

    hits = search(index, query, options)
    if output == "json":
        print_json({"hits": [hit.to_json() for hit in hits]}, indent=None)
        return
    rows = [
        (rank, f"{hit.score:.4f}", hit.id, _best_chunk(index, query, hit, options))
        for rank, hit in enumerate(hits, 1)
    ]
    print_table(("#", "score", "_id", "best chunk"), rows, title=f"{options.mode}: {query}", lines=True)


def _best_chunk(index: "SearchIndex", query: str, hit: "Hit", options: "SearchOptions") -> Any:
    """A hit's best chunk with the query's words marked, and below it the tokens that met."""
    from rich.text import Text

    from pipeline.search.explain import highlighted

    shown = Text(printable(hit.chunk.text))
    unit = index.unit_of(options.field or index.text_fields()[0])
    for start, end in highlighted(unit, hit.chunk.text, query):
        shown.stylize("bold yellow", start, end)
    shown.truncate(SHOWN_CHARACTERS, overflow="ellipsis")
    if hit.chunk.page is not None:
        shown.append(f"\npage {hit.chunk.page}", style="dim")
    for name, matches in hit.explanation.items():
        if matches:  # a dense ranking has no tokens
            tokens = (f"{match.token} {match.score:.3g}" for match in matches[:SHOWN_TOKENS])
            shown.append(printable(f"\n{name}: {', '.join(tokens)}"), style="dim")
    return shown
