"""The command `evaluate`: how well each search mode finds what was judged relevant."""

from typing import Annotated, Any

import typer

from pipeline.commands.app import app
from pipeline.commands.arguments import Field, Format, Index, Overrides, index_path
from pipeline.commands.output import print_json, print_table


@app.command(
    epilog="Example: python -m pipeline evaluate run_configs/quickstart.yaml --queries data/xquad/queries.jsonl"
    " --qrels data/xquad/qrels.tsv"
)
def evaluate(
    index: Index,
    queries: Annotated[str, typer.Option(help="Queries: BEIR's JSON lines, TREC topics, or id<tab>text.")],
    qrels: Annotated[str, typer.Option(help="Judgements, BEIR or TREC.")],
    modes: Annotated[str | None, typer.Option(help="Modes, comma-separated; by default all.")] = None,
    field: Field = None,
    per_query: Annotated[
        str | None, typer.Option(help="Write each query's measures to this Parquet file.")
    ] = None,
    report: Annotated[str | None, typer.Option(help="Write a page with plots to this HTML file.")] = None,
    compare: Annotated[int | None, typer.Option(help="Compare with this version of the table.")] = None,
    overrides: Overrides = None,
    output: Format = "table",
) -> None:
    """Measure retrieval: nDCG@10, recall@100, MRR@10 and MAP of every mode, and whether differences are real."""
    import pyarrow.parquet as pq

    from pipeline.evaluation.evaluate import compare_version
    from pipeline.evaluation.evaluate import evaluate as measure
    from pipeline.evaluation.judgements import load_qrels, load_queries
    from pipeline.evaluation.page import write_report
    from pipeline.search.open_index import SearchIndex

    opened = SearchIndex(index_path(index, overrides))
    names: Any = modes.split(",") if modes else None
    evaluation = measure(opened, load_queries(queries), load_qrels(qrels), modes=names, field=field)
    result = evaluation.to_json()
    before = None
    if compare is not None:
        before = compare_version(opened, compare, evaluation, modes=names, field=field)
        result["compare"] = evaluation.compared(before)
    if per_query:
        pq.write_table(evaluation.to_table(), per_query)
    if report:
        write_report(report, evaluation, before)
    if output == "json":
        print_json(result, indent=None)
    else:
        _print_measures(result)


def _print_measures(result: dict[str, Any]) -> None:
    from pipeline.evaluation.evaluate import shown

    measures = list(next(iter(result["modes"].values())))
    rows = []
    for mode, means in result["modes"].items():
        intervals = result["intervals"][mode]
        rows.append([mode, *(shown(means[measure], intervals[measure]) for measure in measures)])
    size = f"{result['queries']} queries, table version {result['table_version']}"
    title = f"{size} (95 % confidence intervals by bootstrap over queries)"
    print_table(("mode", *measures), rows, title=title)
    for test in result["tests"]:
        first, second = test["modes"]
        print(f"ndcg@10: {second} less {first}: {test['difference']:+.4f} (p = {test['p']:.4f})")
    for mode, compared in result.get("compare", {}).get("modes", {}).items():
        version = result["compare"]["table_version"]
        difference, p = compared["ndcg@10"]["difference"], compared["ndcg@10"]["p"]
        print(f"ndcg@10 of {mode} since version {version}: {difference:+.4f} (p = {p:.4f})")
