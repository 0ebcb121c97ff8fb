"""How well an index finds what was judged relevant."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from models.reranker import Reranker
from pipeline.api.frame import Frame
from pipeline.api.open_index import OpenIndex
from pipeline.evaluation.evaluate import Evaluation, ModeResult
from pipeline.evaluation.evaluate import evaluate as _evaluate
from pipeline.evaluation.judgements import load_qrels, load_queries
from pipeline.evaluation.page import delta_plot, recall_plot, write_report
from pipeline.evaluation.runs import Reranking
from pipeline.search.hits.reranking import DEPTH, reranker_of
from pipeline.search.retrievers import Mode


class EvaluationResult:
    """What an evaluation found."""

    def __init__(self, raw: Evaluation) -> None:
        self.raw = raw

    def measures(self) -> Frame:
        """One row a mode: every measure's mean and its 95 % confidence interval."""
        result = self.raw.to_json()
        rows = []
        for mode, means in result["modes"].items():
            row: dict[str, Any] = {"mode": mode}
            for measure, mean in means.items():
                low, high = result["intervals"][mode][measure]
                row |= {measure: mean, f"{measure} low": low, f"{measure} high": high}
            rows.append(row)
        return Frame(pa.Table.from_pylist(rows))

    def costs(self) -> Frame:
        """One row a mode: milliseconds of a query on average, and what a reranking reads for one."""
        names = ("ms", "reranked_texts", "reranked_tokens")
        costs = self.raw.to_json()["costs"].items()
        return Frame(
            pa.Table.from_pylist([{"mode": mode, **{n: cost.get(n) for n in names}} for mode, cost in costs])
        )

    def queries(self) -> Frame:
        """One row a query and mode: the measures, and the ten best documents with their scores."""
        return Frame(self.raw.to_table())

    def differences(self, measure: str = "ndcg@10") -> Frame:
        """One row a pair of modes: the difference of the means (second minus first), its p value alone (``p``), and
        corrected for the number of pairs by Holm's method (``p_holm``).
        """
        return Frame(pa.Table.from_pylist([asdict(test) for test in self.raw.tests(measure)]))

    def recall_plot(self) -> str:
        """Recall by depth as SVG."""
        return recall_plot(self.raw)

    def delta_plot(self, first: str, second: str, measure: str = "ndcg@10") -> str:
        """The difference of two modes, query by query, as SVG."""
        return delta_plot(self._mode(first), self._mode(second), measure)

    def write_report(self, path: str | Path) -> None:
        """Write everything as one HTML page."""
        write_report(str(path), self.raw)

    def _mode(self, name: str) -> ModeResult:
        return self.raw.modes[name]


def evaluate(
    index: OpenIndex | str,
    queries: str | Path | Mapping[str, str],
    qrels: str | Path | Mapping[str, Mapping[str, int]],
    *,
    modes: Sequence[Mode] | None = None,
    field: str | None = None,
    filter: Mapping[str, Any] | str | None = None,
    rerank: Reranker | str | None = None,
    depth: int = DEPTH,
) -> EvaluationResult:
    """Measure retrieval.

    Args:
        index: an open index, or its folder.
        queries: a file (BEIR, TREC topics, tab-separated), or query id -> text.
        qrels: a file (BEIR, TREC), or query id -> document id -> relevance.
        modes: search modes; by default all that the index has.
        field: the field to search; by default the first that fits.
        filter: only documents with ``year>=1970 AND kind=report``, or an Elasticsearch query; only they are
            found, and only they count as relevant.
        rerank: a further mode, in which an endpoint of task type `rerank`, or its loaded model, ranks again.
        depth: documents of each query that it ranks again.
    """
    opened = OpenIndex(index) if isinstance(index, str) else index
    asked = queries if isinstance(queries, Mapping) else load_queries(queries)
    judged = qrels if isinstance(qrels, Mapping) else load_qrels(qrels)
    reranking = None if rerank is None else Reranking(reranker_of(opened.raw, rerank), depth)
    return EvaluationResult(
        _evaluate(opened.raw, asked, judged, modes=modes, field=field, filter=filter, reranking=reranking)
    )
