"""Measure retrieval: how well each search mode finds what judges found relevant, and whether a difference is real."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import PipelineError
from pipeline.evaluation.judgements import load_qrels, load_queries
from pipeline.evaluation.statistics import Floats, bootstrap_interval, paired_test
from pipeline.search.open_index import SearchIndex, opened
from pipeline.search.pruning import Pruning
from pipeline.search.ranking import Ranking
from pipeline.search.retrievers import Mode, Retriever, available_modes, find_retrievers, retrieve
from pipeline.search.search import RANK_WINDOW, SearchOptions, join
from transforms.index.snapshot import Snapshot
from transforms.index.state import IndexUnusable
from transforms.index.update import update_index

MEASURES = {"ndcg@10": "nDCG@10", "recall@100": "R@100", "mrr@10": "RR@10", "map": "AP"}
"""Our name of each measure -> that of ir-measures."""

DEPTH = 1000
"""Documents that are ranked for each query."""

BLOCK_QUERIES = 256
"""Queries that are embedded and ranked at a time."""


@dataclass(frozen=True)
class ModeResult:
    """What one search mode achieved.

    Attributes:
        run: query -> documents, best first, with their scores.
        values: measure -> value of each query, in the order of `Evaluation.queries`.
    """

    run: dict[str, dict[str, float]]
    values: dict[str, Floats]

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
    """

    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    modes: dict[str, ModeResult]
    table_version: int
    pruning: Pruning | None = None

    def to_json(self) -> dict[str, Any]:
        """The means, as the command prints them, with intervals and the tests between modes."""
        return {
            "queries": len(self.queries),
            "table_version": self.table_version,
            "pruning": None if self.pruning is None else asdict(self.pruning),
            "modes": {
                name: {measure: result.mean(measure) for measure in MEASURES}
                for name, result in self.modes.items()
            },
            "intervals": {
                name: {measure: list(result.interval(measure)) for measure in MEASURES}
                for name, result in self.modes.items()
            },
            "tests": [
                {"modes": [first, second], "measure": "ndcg@10", "difference": difference, "p": p}
                for first, second, difference, p in self.tests("ndcg@10")
            ],
        }

    def tests(self, measure: str) -> list[tuple[str, str, float, float]]:
        """Each pair of modes: the difference of the means (second less first) and its p value."""
        names = list(self.modes)
        pairs = [(first, second) for at, first in enumerate(names) for second in names[at + 1 :]]
        return [
            (a, b, *paired_test(self.modes[a].values[measure], self.modes[b].values[measure]))
            for a, b in pairs
        ]

    def compared(self, before: "Evaluation") -> dict[str, Any]:
        """How the measures differ from those of another version, and whether by chance."""
        modes = {}
        for mode in [mode for mode in self.modes if mode in before.modes]:
            old, new = before.modes[mode].values, self.modes[mode].values
            tests = {measure: paired_test(old[measure], new[measure]) for measure in MEASURES}
            modes[mode] = {
                measure: {"before": float(old[measure].mean()), "difference": difference, "p": p}
                for measure, (difference, p) in tests.items()
            }
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
    depth: int = DEPTH,
    pruning: Pruning | None = None,
) -> Evaluation:
    """Run the judged queries in each mode and measure the rankings.

    Args:
        index: an open index, or its folder.
        queries: query -> text; those without a judgement are left out.
        qrels: query -> document -> relevance.
        modes: search modes; by default all that the index has.
        field: the field to search, see `search`.
        depth: documents ranked for each query; recall@100 needs at least 100.
        pruning: which tokens of sparse queries to leave out; None for none.

    Raises:
        PipelineError: no query has a judgement, or the index has no such field.
    """
    index = opened(index)
    judged = {query: text for query, text in queries.items() if query in qrels}
    if not judged:
        raise PipelineError(
            "no query has a judgement: the ids of the queries and of the judgements do not meet"
        )
    relevant = {query: dict(qrels[query]) for query in judged}
    runs = run_modes(index, judged, modes or available_modes(index, field), field, depth, pruning)
    results = {mode: measured(run, relevant, judged) for mode, run in runs.items()}
    return Evaluation(judged, relevant, results, int(index.state.table["version"]), pruning)


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


def run_modes(
    index: SearchIndex,
    queries: Mapping[str, str],
    modes: Sequence[Mode],
    field: str | None,
    depth: int,
    pruning: Pruning | None = None,
) -> dict[str, dict[str, dict[str, float]]]:
    """Rank documents for each query: mode -> query -> document id -> score.

    Modes share retrievers: `hybrid` joins what the others have ranked already.
    """
    retrievers = {mode: find_retrievers(index, mode, field) for mode in modes}
    runs: dict[str, dict[str, dict[str, float]]] = {mode: {} for mode in modes}
    names = list(queries)
    # Many queries at a time make one matrix product; all of them at once could take more memory than there is.
    for first in range(0, len(names), BLOCK_QUERIES):
        block = names[first : first + BLOCK_QUERIES]
        texts = [queries[name] for name in block]
        needed = dict.fromkeys(one for found in retrievers.values() for one in found)
        ranked = {one: retrieve(index, one, texts, depth, pruning=pruning) for one in needed}
        for mode, found in retrievers.items():
            for at, name in enumerate(block):
                runs[mode][name] = _scores(index, mode, found, [ranked[one][at] for one in found], depth)
    return runs


def _scores(
    index: SearchIndex,
    mode: Mode,
    retrievers: Sequence[Retriever],
    rankings: Sequence[Ranking],
    depth: int,
) -> dict[str, float]:
    """Document id -> score of one query, best first."""
    if mode == "hybrid":  # joins as many documents of each ranking as a search does
        rankings = [ranking.first(RANK_WINDOW) for ranking in rankings]
    hits = join(rankings, retrievers, SearchOptions(mode, k=depth))
    return {index.ids[hit.document]: hit.score for hit in hits}


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

    Raises:
        PipelineError: the table has no such version any more.
    """
    path = str(index.state.table["path"])
    with tempfile.TemporaryDirectory(prefix="semantic-ingest-") as folder:
        try:
            update_index(path, folder, snapshot=Snapshot.of_table(path, version))
        except IndexUnusable as error:
            raise PipelineError(f"version {version} cannot be measured: {error}") from None
        return evaluate(
            SearchIndex(folder),
            evaluation.queries,
            evaluation.qrels,
            modes=modes,
            field=field,
            pruning=evaluation.pruning,
        )
