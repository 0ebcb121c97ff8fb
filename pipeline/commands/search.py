"""The commands `search`, `evaluate` and `index`."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import typer

from pipeline.commands.app import app
from pipeline.commands.arguments import FormatOption, Index, Overrides, index_path
from pipeline.errors import PipelineError
from pipeline.evaluation.judgements import load_queries
from pipeline.search import search as searching
from pipeline.search.explain import highlighted
from pipeline.search.filters import parse_filters
from pipeline.search.open_index import SearchIndex
from pipeline.search.pruning import Pruning
from pipeline.search.search import Hit, SearchOptions, search_many


def search_command(
    target: str,
    query: str | None,
    queries: str | None,
    options: SearchOptions,
    overrides: list[str],
    output: str,
) -> None:
    """Search for one query and print the hits, or for a file of queries and print a JSON line for each."""
    index = SearchIndex(index_path(target, overrides))
    if (query is None) == (queries is None):
        raise PipelineError("search takes a QUERY, or a file of queries with --queries")
    if queries is not None:
        asked = load_queries(queries)
        for name, hits in zip(asked, search_many(index, list(asked.values()), options), strict=True):
            print(json.dumps({"query_id": name, "hits": [hit.to_json() for hit in hits]}, ensure_ascii=False))
        return
    assert query is not None
    hits = searching.search(index, query, options)
    if output == "json":
        print(json.dumps({"hits": [hit.to_json() for hit in hits]}, ensure_ascii=False))
    else:
        _print_hits(index, query, hits, options)


def _print_hits(index: SearchIndex, query: str, hits: Sequence[Hit], options: SearchOptions) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("#", "score", "_id", "best chunk", title=f"{options.mode}: {query}", show_lines=True)
    for rank, hit in enumerate(hits, 1):
        shown = Text(hit.chunk.text)
        unit = index.unit_of(options.field or next(iter(index.text_fields())))
        for start, end in highlighted(unit, hit.chunk.text, query):
            shown.stylize("bold yellow", start, end)
        shown.truncate(500, overflow="ellipsis")
        for name, matches in hit.explanation.items():
            if not matches:  # a dense ranking has no tokens
                continue
            tokens = ", ".join(f"{match.token} {match.score:.3g}" for match in matches[:12])
            shown.append(f"\n{name}: {tokens}", style="dim")
        table.add_row(str(rank), f"{hit.score:.4f}", hit.id, shown)
    Console().print(table)


def search_options(
    mode: Any,
    field: str | None,
    k: int,
    filters: list[str],
    fusion: Any,
    weights: str,
    *,
    prune: str | None,
    explain: bool,
) -> SearchOptions:
    """The options of a search as they stand on the command line.

    Raises:
        PipelineError: a filter, the weights or the thresholds of pruning are not understood.
    """
    try:
        pairs = dict(pair.split("=") for pair in weights.split(","))
        by_leg = {name: float(weight) for name, weight in pairs.items()}
    except ValueError:
        raise PipelineError(f"--weights [{weights}] is not of the form bm25=1,sparse=1,dense=1") from None
    return SearchOptions(
        mode=mode,
        field=field,
        k=k,
        filter=parse_filters(filters),
        fusion=fusion,
        weights=by_leg,
        pruning=None if prune is None else _pruning(prune),
        explain=explain,
    )


def _pruning(thresholds: str) -> Pruning:
    try:
        ratio, weight = map(float, thresholds.split(","))
    except ValueError:
        raise PipelineError(
            f"--prune [{thresholds}] is not of the form RATIO,WEIGHT, for example 5,0.4"
        ) from None
    try:
        return Pruning(ratio, weight)
    except ValueError as error:
        raise PipelineError(f"--prune [{thresholds}]: {error}") from None


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
    options = search_options(mode, field, k, filters or [], fusion, weights, prune=prune, explain=explain)
    search_command(index, query, queries, options, overrides or [], output)
