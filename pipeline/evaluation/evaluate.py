"""Measure retrieval: how well each search mode finds what judges found relevant, and whether a difference is real."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import PipelineError
from pipeline.evaluation.judgements import load_qrels, load_queries
from pipeline.evaluation.runs import RANKED, ModeRun, Reading, Reranking, run_modes
from pipeline.evaluation.statistics import Floats, PairTest, bootstrap_interval, paired_tests
from pipeline.logs import log
from pipeline.search.filters import Filter
from pipeline.search.open_index import Bools, SearchIndex, opened
from pipeline.search.pruning import Pruning
from pipeline.search.retrievers import Mode, available_modes
from pipeline.search.search import allowed_documents
from transforms.index.snapshot import Snapshot
from transforms.index.state import IndexUnusable
from transforms.index.update import update_index

MEASURES = {"ndcg@10": "nDCG@10", "recall@100": "R@100", "mrr@10": "RR@10", "map": "AP"}
"""Our name of each measure -> that of ir-measures."""


@dataclass(frozen=True)
class ModeResult:
    """What one search mode achieved.

    Attributes:
        run: query -> documents, best first, with their scores.
        values: measure -> value of each query, in the order of `Evaluation.queries`.
        seconds: time of one query on average, with its embedding and reranking; many queries are ranked together.
        reranked: what a reranking read; None for a mode without one.
    """

    run: dict[str, dict[str, float]]
    values: dict[str, Floats]
    seconds: float = 0.0
    reranked: Reading | None = None

    def mean(self, measure: str) -> float:
        """The measure over all queries."""
        return float(self.values[measure].mean())

    def interval(self, measure: str) -> tuple[float, float]:
        """The 95 % bootstrap confidence interval of the mean over queries."""
        return bootstrap_interval(self.values[measure])


@dataclass(frozen=True)
class Evaluation:
    """The measures of one index.

    Attributes:
        queries: judged query -> its text.
        qrels: query -> document -> relevance.
        modes: search mode -> its result.
        table_version: version of the table that was searched.
        pruning: which tokens sparse queries left out; None for none.
        filter: which documents could be found, as it was asked for; None for all.
    """

    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    modes: dict[str, ModeResult]
    table_version: int
    pruning: Pruning | None = None
    filter: Filter | str | None = None

    def to_json(self) -> dict[str, Any]:
        """The means, as the command prints them, with intervals and the tests between modes."""
        return {
            "queries": len(self.queries),
            "table_version": self.table_version,
            "pruning": None if self.pruning is None else asdict(self.pruning),
            "filter": self.filter,
            "modes": {
                name: {measure: result.mean(measure) for measure in MEASURES}
                for name, result in self.modes.items()
            },
            "intervals": {
                name: {measure: list(result.interval(measure)) for measure in MEASURES}
                for name, result in self.modes.items()
            },
            "costs": {name: _cost(result, len(self.queries)) for name, result in self.modes.items()},
            "tests": [
                {"modes": [one.first, one.second], "measure": "ndcg@10", **one.figures()}
                for one in self.tests("ndcg@10")
            ],
        }

    def tests(self, measure: str) -> list[PairTest]:
        """Test each pair of modes by one measure."""
        pairs = list(combinations(self.modes.items(), 2))
        return paired_tests(
            [(a, old.values[measure], b, new.values[measure]) for (a, old), (b, new) in pairs]
        )

    def compared(self, before: "Evaluation") -> dict[str, Any]:
        """How the measures differ from those of another version, and whether by chance."""
        modes: dict[str, dict[str, Any]] = {mode: {} for mode in self.modes if mode in before.modes}
        for measure in MEASURES:
            pairs = [(before.modes[mode].values[measure], self.modes[mode].values[measure]) for mode in modes]
            tests = paired_tests([("before", old, "now", new) for old, new in pairs])
            for mode, (old, _), test in zip(modes, pairs, tests, strict=True):
                modes[mode][measure] = {"before": float(old.mean()), **test.figures()}
        return {"table_version": before.table_version, "modes": modes}

    def to_table(self) -> pa.Table:
        """One row a query and mode: the measures, and the ten best documents."""
        rows: dict[str, list[Any]] = {
            name: [] for name in ("mode", "query_id", "query", "documents", "scores", *MEASURES)
        }
        for mode, result in self.modes.items():
            for at, (query_id, text) in enumerate(self.queries.items()):
                best = list(result.run.get(query_id, {}).items())[:10]
                row = (mode, query_id, text, [id_ for id_, _ in best], [score for _, score in best])
                for name, value in zip(rows, (*row, *(result.values[m][at] for m in MEASURES)), strict=True):
                    rows[name].append(value)
        return pa.table(rows)


def _cost(result: ModeResult, queries: int) -> dict[str, float]:
    """What one query of a mode takes."""
    cost = {"ms": round(result.seconds * 1000, 3)}
    if result.reranked is None:
        return cost
    return {
        **cost,
        "reranked_texts": result.reranked.texts / queries,
        "reranked_tokens": result.reranked.tokens / queries,
    }


def shown(mean: float, interval: Sequence[float]) -> str:
    """A mean with its confidence interval, as tables show it."""
    low, high = interval
    return f"{mean:.4f} [{low:.3f}, {high:.3f}]"


def evaluate(
    index: SearchIndex | str,
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    *,
    modes: Sequence[Mode] | None = None,
    field: str | None = None,
    depth: int = RANKED,
    pruning: Pruning | None = None,
    filter: Filter | str | None = None,
    reranking: Reranking | None = None,
) -> Evaluation:
    """Run the judged queries in each mode and measure the rankings.

    With a filter, only the documents that it lets through can be found, and only they count as relevant: it tells how
    well they are found among themselves. A query of which no judged document is left is left out.

    Args:
        index: an open index, or its folder.
        queries: query -> text; those without a judgement are left out.
        qrels: query -> document -> relevance.
        modes: search modes; by default all that the index has.
        field: the field to search, see `search`.
        depth: documents ranked for each query; recall@100 needs at least 100.
        pruning: which tokens of sparse queries to leave out; None for none.
        filter: which documents may be found, see `SearchOptions`; None for all.
        reranking: a further mode, for example ``hybrid, reranked``: what to rank again and by which model.

    Raises:
        PipelineError: no query has a judgement, or the index has no such field.
    """
    index = opened(index)
    allowed = allowed_documents(index, filter)
    if allowed is not None:
        qrels = _within(index, allowed, qrels)
    judged = {query: text for query, text in queries.items() if query in qrels}
    if not judged:
        raise PipelineError(
            "no query has a judgement: the ids of the queries and of the judgements do not meet"
            if allowed is None
            else "no query has a judgement of a document that the filter lets through"
        )
    relevant = {query: dict(qrels[query]) for query in judged}
    _warn_of_missing(index, relevant)
    modes = modes or available_modes(index, field)
    runs = run_modes(
        index, judged, modes, field, depth, pruning=pruning, allowed=allowed, reranking=reranking
    )
    return _evaluation(index, judged, relevant, runs, pruning, filter)


def _evaluation(
    index: SearchIndex,
    queries: dict[str, str],
    qrels: dict[str, dict[str, int]],
    runs: Mapping[str, ModeRun],
    pruning: Pruning | None,
    filter: Filter | str | None,
) -> Evaluation:
    results = {mode: _result(run, qrels, queries) for mode, run in runs.items()}
    return Evaluation(queries, qrels, results, int(index.state.table["version"]), pruning, filter)


def _warn_of_missing(index: SearchIndex, qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Say it where relevant documents are not in the index: ids that are written otherwise look like bad retrieval."""
    relevant = {id_ for judged in qrels.values() for id_, relevance in judged.items() if relevance > 0}
    missing = relevant - {index.ids[number] for number in np.flatnonzero(index.alive)}
    if missing:
        log.warning(
            "%s of %s relevant documents are not in the index and count as not found, for example [%s]; ids there look"
            " like [%s]",
            f"{len(missing):,}",
            f"{len(relevant):,}",
            min(missing),
            index.ids[int(np.argmax(index.alive))] if len(index) else "",
        )


def _within(
    index: SearchIndex, allowed: Bools, qrels: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, int]]:
    """The judgements without the documents of the index that may not be found, and without empty queries."""
    judged = {document for judgements in qrels.values() for document in judgements}
    hidden = {index.ids[number] for number in np.flatnonzero(index.alive & ~allowed)} & judged
    left = {
        query: {id_: relevance for id_, relevance in judgements.items() if id_ not in hidden}
        for query, judgements in qrels.items()
    }
    return {query: judgements for query, judgements in left.items() if judgements}


def evaluate_index(
    index_path: str,
    queries_path: str,
    qrels_path: str,
    *,
    modes: Sequence[Mode] | None = None,
    field: str | None = None,
) -> dict[str, dict[str, float]]:
    """Measure an index by files of queries and judgements: mode -> measure -> mean over the queries."""
    evaluation = evaluate(
        index_path, load_queries(queries_path), load_qrels(qrels_path), modes=modes, field=field
    )
    measures: dict[str, dict[str, float]] = evaluation.to_json()["modes"]
    return measures


def _result(run: ModeRun, qrels: Mapping[str, Mapping[str, int]], queries: Mapping[str, str]) -> ModeResult:
    result = measured(run.scores, qrels, queries)
    return replace(result, seconds=run.seconds / max(len(queries), 1), reranked=run.reranked)


def measured(
    run: dict[str, dict[str, float]], qrels: Mapping[str, Mapping[str, int]], queries: Mapping[str, str]
) -> ModeResult:
    """Measure the rankings of one mode: query -> document -> score, best first."""
    return ModeResult(run, _measure(run, qrels, queries))


def _measure(
    run: Mapping[str, Mapping[str, float]], qrels: Mapping[str, Mapping[str, int]], queries: Mapping[str, str]
) -> dict[str, Floats]:
    import ir_measures

    parsed = {ir_measures.parse_measure(theirs): ours for ours, theirs in MEASURES.items()}
    # ir-measures orders equal scores by document id; ranks in place of scores keep the order that was shown.
    ranked = {query: {id_: -float(rank) for rank, id_ in enumerate(scores)} for query, scores in run.items()}
    position = {query: at for at, query in enumerate(queries)}
    values = {measure: np.zeros(len(queries)) for measure in MEASURES}
    for metric in ir_measures.iter_calc(list(parsed), qrels, ranked):
        values[parsed[metric.measure]][position[metric.query_id]] = metric.value
    return values


def compare_version(
    index: SearchIndex,
    version: int,
    evaluation: Evaluation,
    *,
    modes: Sequence[Mode] | None = None,
    field: str | None = None,
) -> Evaluation:
    """Measure another version of the index's table with the same queries; a passing index is made for it.

    The judgements stay those of the evaluation, whatever its filter lets through in the other version.

    Raises:
        PipelineError: the table has no such version any more.
    """
    path = str(index.state.table["path"])
    with tempfile.TemporaryDirectory(prefix="semantic-ingest-") as folder:
        try:
            update_index(path, folder, snapshot=Snapshot.of_table(path, version))
        except IndexUnusable as error:
            raise PipelineError(f"version {version} cannot be measured: {error}") from None
        other, pruning = SearchIndex(folder), evaluation.pruning
        allowed = allowed_documents(other, evaluation.filter)
        chosen = modes or available_modes(other, field)
        runs = run_modes(other, evaluation.queries, chosen, field, RANKED, pruning=pruning, allowed=allowed)
        return _evaluation(other, evaluation.queries, evaluation.qrels, runs, pruning, evaluation.filter)
