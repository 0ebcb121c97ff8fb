"""The command `evaluate`."""

import json
from typing import Annotated, Any

import typer

from pipeline.commands.app import app
from pipeline.commands.arguments import FormatOption, Index, Overrides, index_path
from pipeline.evaluation.judgements import load_qrels, load_queries
from pipeline.search.open_index import SearchIndex


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


INTERVALS_TITLE = "95 % confidence intervals by bootstrap over queries"


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

    from pipeline.evaluation.evaluate import compare_version, evaluate
    from pipeline.evaluation.page import write_report

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
