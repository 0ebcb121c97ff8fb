"""The commands `search`, `evaluate` and `index`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.explain import highlighted
from pipeline.filters import parse_filters
from pipeline.judgements import load_qrels, load_queries
from pipeline.prune import Pruning
from pipeline.search import Hit, SearchOptions, search, search_many
from pipeline.search_index import SearchIndex
from transforms.index_files import IndexUnusable

INTERVALS_TITLE = "95 % confidence intervals by bootstrap over queries"


def index_path(config_or_index: str, overrides: Sequence[str] = ()) -> str:
    """The index that a command's first argument means: a folder with an index, or a run config that names one.

    Raises:
        PipelineError: it is neither.
    """
    from pipeline.config import load_config

    if Path(config_or_index).is_dir():
        return config_or_index
    config = load_config(config_or_index, list(overrides))
    if config.index is None:
        raise PipelineError(f"{config_or_index} has no index section; add `index: {{path: out/index}}`")
    return config.index.path


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
    hits = search(index, query, options)
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


def evaluate_command(
    target: str,
    queries: str,
    qrels: str,
    *,
    modes: str | None,
    field: str | None,
    per_query: str | None,
    report: str | None,
    compare: int | None,
    overrides: list[str],
    output: str,
) -> None:
    """Evaluate an index, print the measures, and write what else was asked for."""
    import pyarrow.parquet as pq

    from pipeline.evaluation import compare_version, evaluate
    from pipeline.evaluation_report import write_report

    index = SearchIndex(index_path(target, overrides))
    names: Any = modes.split(",") if modes else None
    evaluation = evaluate(index, load_queries(queries), load_qrels(qrels), modes=names, field=field)
    other = None if compare is None else compare_version(index, compare, evaluation, modes=names, field=field)
    result = evaluation.to_json()
    if other is not None:
        result["compare"] = evaluation.compared(other)
    if per_query:
        pq.write_table(evaluation.to_table(), per_query)
    if report:
        write_report(report, evaluation, other)
    if output == "json":
        print(json.dumps(result))
    else:
        _print_measures(result)


def _print_measures(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    measures = list(next(iter(result["modes"].values())))
    title = f"{result['queries']} queries, table version {result['table_version']} ({INTERVALS_TITLE})"
    table = Table("mode", *measures, title=title)
    for mode, values in result["modes"].items():
        cells = []
        for measure in measures:
            low, high = result["intervals"][mode][measure]
            cells.append(f"{values[measure]:.4f} [{low:.3f}, {high:.3f}]")
        table.add_row(mode, *cells)
    console = Console()
    console.print(table)
    for test in result["tests"]:
        first, second = test["modes"]
        console.print(f"ndcg@10: {second} less {first}: {test['difference']:+.4f} (p = {test['p']:.4f})")
    for mode, compared in result.get("compare", {}).get("modes", {}).items():
        version = result["compare"]["table_version"]
        difference, p = compared["ndcg@10"]["difference"], compared["ndcg@10"]["p"]
        console.print(f"ndcg@10 of {mode} since version {version}: {difference:+.4f} (p = {p:.4f})")


def index_command(
    target: str, *, rebuild: bool, verify: bool, workers: int, overrides: list[str], output: str
) -> None:
    """Bring the index of a run config to the table's version, or check it against the table.

    Raises:
        PipelineError: there is nothing to index, or the index does not show the table.
    """
    from pipeline.config import load_config
    from transforms.verify_index import verify_index
    from transforms.write_index import update_index

    config = load_config(target, overrides)
    if config.index is None:
        raise PipelineError(f"{target} has no index section; add `index: {{path: out/index}}`")
    try:
        if verify:
            problems = verify_index(config.table.path, config.index.path)
            result: dict[str, Any] = {"ok": not problems, "problems": problems}
        else:
            result = asdict(
                update_index(config.table.path, config.index.path, rebuild=rebuild, workers=workers)
            )
    except IndexUnusable as error:
        raise PipelineError(str(error)) from None
    if output == "json":
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name}: {value if not isinstance(value, list) else '; '.join(value) or 'none'}")
    if not result.get("ok", True):
        print(f"the index does not show the table: {result['problems'][0]}", file=sys.stderr)
        raise PipelineError("rebuild the index with `index --rebuild`")


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
