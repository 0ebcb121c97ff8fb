"""The command `search`: one query shown with its hits, or a file of queries as JSON lines."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipeline.commands.app import app, spare_pandas
from pipeline.commands.arguments import (
    DepthOption,
    Field,
    Filters,
    Format,
    Index,
    Overrides,
    PruningOption,
    RerankOption,
    depth_of,
    index_path,
    pruning_of,
    reranker_from,
)
from pipeline.errors import PipelineError
from pipeline.terminal.output import print_json, print_table
from pipeline.terminal.text import one_line, printable

if TYPE_CHECKING:
    from pipeline.search.hits.hit import ChunkHit, Hit
    from pipeline.search.open_index import FoundChunk, OpenUnit, SearchIndex
    from pipeline.search.search import SearchOptions

SHOWN_CHARACTERS = 200
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
    start: Annotated[
        int, typer.Option("--from", min=0, help="Number of documents to pass over, as in Elasticsearch.")
    ] = 0,
    fields: Annotated[
        str | None, typer.Option(metavar="A,B", help="Show these fields of each document.")
    ] = None,
    source: Annotated[bool, typer.Option("--source", help="Show each document's _source.")] = False,
    filters: Filters = None,
    fusion: Annotated[Literal["rrf", "linear"], typer.Option(help="How hybrid joins rankings.")] = "rrf",
    weights: Annotated[str, typer.Option(help="Weights of linear fusion.")] = "bm25=1,sparse=1,dense=1",
    pruning: PruningOption = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say which tokens met.")] = False,
    chunks: Annotated[int, typer.Option("--chunks", min=1, help="Best chunks of each document to show.")] = 1,
    neighbours: Annotated[
        int, typer.Option("--neighbours", min=0, help="Chunks to show before and after each of them.")
    ] = 0,
    min_score: Annotated[
        float | None, typer.Option("--min-score", help="Leave out documents that score less.")
    ] = None,
    rerank: RerankOption = None,
    depth: DepthOption = None,
    queries: Annotated[str | None, typer.Option(help="File of queries; prints a JSON line for each.")] = None,
    overrides: Overrides = None,
    output: Format = "table",
) -> None:
    """Search the index; a document's score is its best chunk's."""
    spare_pandas()
    from pipeline.search.filters import parse_filters
    from pipeline.search.open_index import SearchIndex
    from pipeline.search.search import SearchOptions

    opened = SearchIndex(index_path(index, overrides))
    options = SearchOptions(
        mode,
        field,
        start + k,
        parse_filters(filters or []),
        fusion,
        _weights(weights),
        pruning_of(pruning),
        explain,
        chunks,
        neighbours,
        min_score,
        reranker_from(rerank, index, overrides, opened),
        depth_of(depth, rerank),
    )
    names = [name.strip() for name in fields.split(",")] if fields else []
    shown = Shown(start, tuple(names), source)
    if query is not None and queries is None:
        _answer(opened, query, options, output, shown)
    elif queries is not None and query is None:
        _answer_file(opened, queries, options, shown)
    else:
        raise PipelineError("search takes a QUERY, or a file of queries with --queries")


def _weights(text: str) -> Mapping[str, float]:
    try:
        pairs = dict(pair.split("=") for pair in text.split(","))
        return {mode: float(weight) for mode, weight in pairs.items()}
    except ValueError:
        raise PipelineError(f"--weights [{text}] is not of the form bm25=1,sparse=1,dense=1") from None


def _answer_file(index: "SearchIndex", file: str, options: "SearchOptions", shown: "Shown") -> None:
    """Print a JSON line for each query of a file."""
    from pipeline.evaluation.judgements import load_queries
    from pipeline.search.search import search_many

    queries = load_queries(file)
    for name, hits in zip(queries, search_many(index, list(queries.values()), options), strict=True):
        print_json({"query_id": name, "hits": shown.hits(index, hits[shown.start :])}, indent=None)


@dataclass(frozen=True)
class Shown:
    """What is shown of the documents of a search.

    Attributes:
        start: documents to pass over.
        fields: fields to show.
        source: whether to show the whole ``_source``.
    """

    start: int
    fields: tuple[str, ...]
    source: bool

    def of(self, source: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a document that were asked for."""
        from transforms.field_values import raw_value

        shown: dict[str, Any] = {"_source": dict(source)} if self.source else {}
        if self.fields:
            shown["fields"] = {name: raw_value(source, name) for name in self.fields}
        return shown

    def hits(self, index: "SearchIndex", hits: Sequence["Hit"]) -> list[dict[str, Any]]:
        """Hits as JSON, with the fields that were asked for."""
        from pipeline.search.sources import read_sources

        is_asked = self.source or bool(self.fields)
        sources = read_sources(index, [hit.id for hit in hits]) if is_asked else {}
        return [{**hit.to_json(), **(self.of(sources.get(hit.id, {})) if is_asked else {})} for hit in hits]


def _answer(index: "SearchIndex", query: str, options: "SearchOptions", output: str, shown: Shown) -> None:
    from pipeline.search.search import search
    from pipeline.search.sources import read_sources, title_of

    hits = search(index, query, options)[shown.start :]
    if output == "json":
        print_json({"hits": shown.hits(index, hits)}, indent=None)
        return
    if not hits:
        print(f"{options.mode}: {one_line(query)}\nnothing found{_why_nothing(index, options)}")
        return
    from rich.text import Text

    sources = read_sources(index, [hit.id for hit in hits])
    names = [list(dict.fromkeys([title_of(sources.get(hit.id, {})) or hit.id, hit.id])) for hit in hits]
    # Two lines of the last column of the table, whatever stands before it.
    beside = len("#   score    ") + max(len(one) for name in names for one in name)
    width = min(SHOWN_CHARACTERS, 2 * max(get_terminal_size((200, 24)).columns - beside - 6, 40))
    rows = []
    for rank, (hit, name) in enumerate(zip(hits, names, strict=True), shown.start + 1):
        asked = shown.of(sources.get(hit.id, {}))
        chosen = asked.get("_source") or asked.get("fields") or {}
        chunk = _best_chunk(index, query, hit, options, chosen, width)
        rows.append((rank, f"{hit.score:.4f}", Text("\n".join(map(one_line, name))), chunk))
    title = f"{options.mode}{', reranked' if options.rerank is not None else ''}: {query}"
    shown_chunks = "best chunk" if options.chunks == 1 else "best chunks"
    print_table(("#", "score", "document", shown_chunks), rows, title=title, lines=True)


def _why_nothing(index: "SearchIndex", options: "SearchOptions") -> str:
    """How many documents a filter lets through, as the end of a line; empty where there is none."""
    from pipeline.search.search import allowed_documents

    allowed = allowed_documents(index, options.filter)
    if allowed is None:
        return ""
    return f": the filter lets {int((allowed & index.alive).sum()):,} of {len(index):,} documents through"


def _best_chunk(
    index: "SearchIndex",
    query: str,
    hit: "Hit",
    options: "SearchOptions",
    fields: Mapping[str, Any],
    width: int,
) -> Any:
    """So many characters of a hit's best chunks around the query's words, chosen fields, and the tokens that met."""
    from rich.text import Text

    unit = index.unit_of(options.field or index.text_fields()[0])
    texts = [_excerpt(unit, query, hit.chunk, width)]
    if hit.chunks:
        texts = [text for one in hit.chunks for text in _with_neighbours(unit, query, one, width)]
    shown = Text("\n").join(texts)
    if hit.retrieved is not None:
        shown.append(f"\nfound at {hit.retrieved.rank} with {hit.retrieved.score:.4f}", style="dim")
    for name, value in fields.items():
        shown.append("\n" + one_line(f"{name}: {_shown_value(value)}"), style="dim")
    if hit.chunk.page is not None:
        shown.append(f"\npage {hit.chunk.page}", style="dim")
    for name, matches in hit.explanation.items():
        if matches:  # a dense ranking has no tokens
            tokens = (f"{match.token} {match.score:.3g}" for match in matches[:SHOWN_TOKENS])
            shown.append("\n" + one_line(f"{name}: {', '.join(tokens)}"), style="dim")
    return shown


def _shown_value(value: Any) -> str:
    """A value of a document as one line: a text as it stands, everything else as JSON."""
    shown = (
        "–"
        if value is None
        else value
        if isinstance(value, str)
        else json.dumps(value, ensure_ascii=False, default=str)
    )
    return shown if len(shown) <= SHOWN_CHARACTERS else shown[:SHOWN_CHARACTERS] + "…"


def _with_neighbours(unit: "OpenUnit", query: str, found: "ChunkHit", width: int) -> list[Any]:
    """A chunk with its score, and the ones around it whole, as one reads them."""
    from rich.text import Text

    before, after = (
        [Text(printable(chunk.text.replace("\n", " ")), style="dim") for chunk in around]
        for around in (found.before, found.after)
    )
    excerpt = _excerpt(unit, query, found.chunk, width)
    return [*before, Text(f"{found.score:.4f} ", style="dim") + excerpt, *after]


def _excerpt(unit: "OpenUnit", query: str, chunk: "FoundChunk", width: int) -> Any:
    """So many characters of a chunk around the query's words, which are marked."""
    from rich.text import Text

    from pipeline.search.explain import highlighted
    from pipeline.search.sources import snippet

    whole = Text(printable(chunk.text.replace("\n", " ")))
    spans = highlighted(unit, chunk.text, query)
    for start, end in spans:
        whole.stylize("bold yellow", start, end)
    start, end = snippet(whole.plain, spans, width)
    return Text("…" if start else "") + whole[start:end] + ("…" if end < len(whole) else "")
