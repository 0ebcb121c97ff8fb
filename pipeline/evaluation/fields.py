"""Two embeddings of the same field on the same queries: how well each finds, how fast, and how much it stores."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np

from pipeline.evaluation.evaluate import MEASURES, evaluate
from pipeline.evaluation.statistics import Floats, paired_test
from pipeline.search.open_index import SearchIndex
from pipeline.search.retrievers import Mode, available_modes
from pipeline.search.search import search

TIMED_QUERIES = 50
"""Queries that are asked one by one, for the time of an answer."""


@dataclass(frozen=True)
class Loser:
    """A query that the second field answers worse.

    Attributes:
        query_id: the query.
        query: its text.
        before: the measure with the first field.
        after: with the second.
    """

    query_id: str
    query: str
    before: float
    after: float


@dataclass(frozen=True)
class Measured:
    """One measure of both fields.

    Attributes:
        ranking: ``vectors``, or ``hybrid`` with BM25 beside them.
        measure: the measure.
        before: mean over the queries with the first field.
        after: with the second.
        p: how probable so large a difference is by chance, by a paired test.
    """

    ranking: str
    measure: str
    before: float
    after: float
    p: float


@dataclass(frozen=True)
class FieldComparison:
    """What moving from one field to the other changes.

    Attributes:
        queries: number of judged queries.
        measures: every measure of both rankings.
        losers: the queries that lose most of nDCG@10 by vectors, the worst first.
        seconds: field -> median time of one answer.
    """

    queries: int
    measures: tuple[Measured, ...]
    losers: tuple[Loser, ...]
    seconds: Mapping[str, float]

    def to_json(self) -> dict[str, object]:
        """JSON values, as the command prints them."""
        return asdict(self)


def compare_fields(
    index: SearchIndex,
    fields: tuple[str, str],
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    losers: int = 5,
) -> FieldComparison:
    """Measure two fields with the same queries.

    Args:
        index: an index that has both.
        fields: the first and the second.
        queries: query -> text; those without a judgement are left out.
        qrels: query -> document -> relevance.
        losers: how many of the worst losers to name at most.

    Raises:
        PipelineError: no query has a judgement.
    """
    modes = [_modes(index, field) for field in fields]
    before, after = (
        evaluate(index, queries, qrels, modes=list(of_field.values()), field=field)
        for field, of_field in zip(fields, modes, strict=True)
    )
    measures, worst = [], []
    for ranking in modes[0]:
        old, new = before.modes[modes[0][ranking]].values, after.modes[modes[1][ranking]].values
        measures += [_measured(ranking, measure, old[measure], new[measure]) for measure in MEASURES]
        if ranking == "vectors":
            worst = _losers(before.queries, old["ndcg@10"], new["ndcg@10"], losers)
    seconds = {
        field: _seconds(index, field, of_field["vectors"], list(before.queries.values()))
        for field, of_field in zip(fields, modes, strict=True)
    }
    return FieldComparison(len(before.queries), tuple(measures), tuple(worst), seconds)


def _modes(index: SearchIndex, field: str) -> dict[str, Mode]:
    """What the rankings of a field are called: one field may have dense embeddings and the other sparse ones."""
    available = available_modes(index, field)
    return {"vectors": "dense" if "dense" in available else "sparse", "hybrid": "hybrid"}


def _measured(ranking: str, measure: str, before: Floats, after: Floats) -> Measured:
    difference, p = paired_test(before, after)
    mean = float(before.mean())
    return Measured(ranking, measure, mean, mean + difference, p)


def _losers(queries: Mapping[str, str], before: Floats, after: Floats, most: int) -> list[Loser]:
    order = np.argsort(after - before, kind="stable")[:most]
    names = list(queries)
    return [
        Loser(names[at], queries[names[at]], float(before[at]), float(after[at]))
        for at in order.tolist()
        if after[at] < before[at]
    ]


def _seconds(index: SearchIndex, field: str, mode: Mode, queries: Sequence[str]) -> float:
    """Median time of an answer, the query's embedding included; the first one loads the model and does not count."""
    times = []
    for query in [queries[0], *queries[:TIMED_QUERIES]]:
        begun = time.perf_counter()
        search(index, query, mode=mode, field=field)
        times.append(time.perf_counter() - begun)
    return median(times[1:])
