"""The command `evaluate`: how well each search mode finds what was judged relevant."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.app import app
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
from pipeline.terminal.text import number_of

if TYPE_CHECKING:
    from pipeline.evaluation.evaluate import Evaluation
    from pipeline.search.open_index import SearchIndex


@app.command(
    epilog="Example: semantic-ingest evaluate run_configs/quickstart.yaml --queries data/xquad/queries.jsonl"
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
    pruning: PruningOption = None,
    filters: Filters = None,
    rerank: RerankOption = None,
    depth: DepthOption = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="URL/INDEX", help="Compare with an index that `load elasticsearch` filled."),
    ] = None,
    candidates: Annotated[
        int, typer.Option(min=1, help="Candidates of approximate search (--against).")
    ] = 1_000,
    api_key: Annotated[
        str | None, typer.Option("--api-key", metavar="env:NAME|file:PATH", help="The cluster's (--against).")
    ] = None,
    overrides: Overrides = None,
    output: Format = "table",
) -> None:
    """Measure retrieval in every mode. nDCG@10, recall@100, MRR@10 and MAP, and whether differences are real."""
    from pipeline.evaluation.evaluate import compare_version
    from pipeline.evaluation.evaluate import evaluate as measure
    from pipeline.evaluation.judgements import load_qrels, load_queries
    from pipeline.evaluation.runs import Reranking
    from pipeline.search.filters import parse_filters
    from pipeline.search.open_index import SearchIndex

    opened = SearchIndex(index_path(index, overrides))
    reranked = depth_of(depth, rerank)
    names: Any = modes.split(",") if modes else None
    if against is not None:
        alone = {"--modes": modes, "--per-query": per_query, "--report": report, "--compare": compare}
        _refuse_beside_against({**alone, "--pruning": pruning, "--filter": filters, "--rerank": rerank})
        asked, judged = load_queries(queries), load_qrels(qrels)
        return _compare(opened, against, api_key, asked, judged, field, candidates, output)
    reranker = reranker_from(rerank, index, overrides, opened)
    evaluation = measure(
        opened,
        load_queries(queries),
        load_qrels(qrels),
        modes=names,
        field=field,
        pruning=pruning_of(pruning),
        filter=parse_filters(filters or []),
        reranking=None if reranker is None else Reranking(reranker, reranked),
    )
    result = evaluation.to_json()
    before = None
    if compare is not None:
        before = compare_version(opened, compare, evaluation, modes=names, field=field)
        result["compare"] = evaluation.compared(before)
    _write(evaluation, before, per_query, report)
    if not filters:
        _keep(index, overrides, result, queries)
    if output == "json":
        print_json(result, indent=None)
    else:
        _print_measures(result)


def _refuse_beside_against(options: Mapping[str, Any]) -> None:
    """Refuse options that a comparison with a cluster would pass over."""
    for name, value in options.items():
        if value is not None:
            raise PipelineError(f"{name} does not go with --against, which compares whole rankings")


def _write(
    evaluation: "Evaluation", before: "Evaluation | None", per_query: str | None, report: str | None
) -> None:
    """Write the files that were asked for."""
    import pyarrow.parquet as pq

    from pipeline.evaluation.page import write_report
    from pipeline.logs import log

    if per_query:
        pq.write_table(evaluation.to_table(), per_query)
        log.info("wrote %s", per_query)
    if report:
        write_report(report, evaluation, before)
        log.info("wrote %s", report)


def _compare(
    opened: "SearchIndex",
    against: str,
    api_key: str | None,
    queries: dict[str, str],
    qrels: dict[str, dict[str, int]],
    field: str | None,
    candidates: int,
    output: str,
) -> None:
    """Print what a cluster's index finds beside what the exact local ranking does."""
    from pipeline.evaluation.against import compare_with_cluster
    from pipeline.exchange.elasticsearch.load import ClusterIndex, connect

    url, slash, name = against.rpartition("/")
    if not slash or "//" not in url or not name:
        raise PipelineError(f"--against [{against}] is not of the form http://HOST:PORT/INDEX")
    remote = ClusterIndex(connect(url, api_key), name)
    result = compare_with_cluster(opened, remote, queries, qrels, field=field, candidates=candidates)
    if output == "json":
        print_json(result, indent=None)
        return
    rows = []
    for mode, found in result["modes"].items():
        test = found["differences"]["ndcg@10"]
        means = (f"{found[side]['ndcg@10']:.4f}" for side in ("local", "cluster"))
        shares = (f"{found[share]:.3f}" for share in ("overlap", "same_documents", "same_order"))
        rows.append([mode, *means, f"{test['difference']:+.4f}", f"{test['p_holm']:.4f}", *shares])
    versions = result["table_version"]
    title = (
        f"{number_of(result['queries'], 'query')}; table version {versions['local']} here, {versions['index']} in"
        f" [{name}] on {result['cluster_version']}; `pruned` is --pruning elasticsearch on both sides"
    )
    print_table(
        (
            "mode",
            "ndcg@10 local",
            "cluster",
            "difference",
            "p (Holm)",
            "overlap@10",
            "same ten",
            "same order",
        ),
        rows,
        title=title,
    )


def _keep(config: str, overrides: list[str] | None, result: dict[str, Any], queries: str) -> None:
    """Keep an evaluation of a run config's index beside its table, where the page of `serve` plots them over time."""
    from pathlib import Path

    from pipeline.config.load import load_config
    from pipeline.evaluation.kept import keep_evaluation
    from pipeline.logs import log

    if Path(config).is_dir():
        return
    run_json = load_config(config, overrides).run_json
    try:
        if run_json is not None:
            keep_evaluation(run_json.with_name("evaluations.jsonl"), result, queries_path=queries)
    except OSError as error:
        log.warning("the evaluation could not be kept: %s", error)


def _print_measures(result: dict[str, Any]) -> None:
    from pipeline.evaluation.evaluate import shown

    measures = list(next(iter(result["modes"].values())))
    rows = []
    for mode, means in result["modes"].items():
        intervals = result["intervals"][mode]
        values = (shown(means[measure], intervals[measure]) for measure in measures)
        rows.append([mode, *values, f"{result['costs'][mode]['ms']:.1f}"])
    size = f"{number_of(result['queries'], 'query')}, table version {result['table_version']}"
    if result["pruning"]:
        size += (
            ", sparse queries pruned ({tokens_freq_ratio_threshold:g}, {tokens_weight_threshold:g})".format(
                **result["pruning"]
            )
        )
    if result["filter"]:
        size += ", among the documents that the filter lets through"
    title = f"{size} (95 % confidence intervals by bootstrap over queries)"
    print_table(("mode", *measures, "ms a query"), rows, title=title)
    for mode, cost in result["costs"].items():
        if "reranked_texts" in cost:
            tokens = f", {cost['reranked_tokens']:,.0f} tokens" if cost["reranked_tokens"] else ""
            print(f"{mode}: the model reads {cost['reranked_texts']:.0f} texts{tokens} a query")
    _print_tests("difference", [(" minus ".join(reversed(one["modes"])), one) for one in result["tests"]])
    if "compare" in result:
        before, modes = result["compare"]["table_version"], result["compare"]["modes"].items()
        name = f"version {result['table_version']} minus {before}"
        _print_tests(name, [(mode, measures["ndcg@10"]) for mode, measures in modes])


def _print_tests(name: str, tests: "list[tuple[str, dict[str, Any]]]") -> None:
    """Differences of nDCG@10 with their p values, corrected where there are several."""
    if not tests:
        return
    corrected = f", corrected by Holm for {len(tests)} tests" if len(tests) > 1 else ""
    print()
    rows = [(pair, f"{test['difference']:+.4f}", f"{test['p_holm']:.4f}") for pair, test in tests]
    title = f"ndcg@10, p by paired randomization{corrected}"
    print_table((name, "ndcg@10", "p"), rows, title=title)
