"""What a real index costs: the same queries against a loaded Elasticsearch index and the exact local ranking.

Quantization, pruning and the graph of approximate search all lose a little; how much depends on the corpus.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from models.embeddings import DenseEmbeddings
from pipeline.errors import PipelineError
from pipeline.evaluation.evaluate import MEASURES, Evaluation, ModeResult, evaluate, measured
from pipeline.evaluation.statistics import paired_tests
from pipeline.exchange.elasticsearch.forms import chunks_name
from pipeline.exchange.elasticsearch.load import ClusterIndex, LoadState, asked
from pipeline.search.fusion import RANK_CONSTANT
from pipeline.search.open_index import SearchIndex
from pipeline.search.pruning import Pruning
from pipeline.search.query_embedding import embed_queries
from pipeline.search.retrievers import find_retrievers
from pipeline.search.search import RANK_WINDOW

DEPTH = 100
"""Documents that are ranked for each query, here and there."""

BLOCK_QUERIES = 20
Runs = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Comparison:
    """One mode, here and there.

    Attributes:
        mode: ``dense``, ``sparse``, ``sparse pruned``, ``bm25``, ``hybrid`` or ``semantic``.
        local: the measures of the local ranking, which is exact for dense and sparse.
        cluster: those of the cluster's.
        differences: measure -> the cluster's mean minus the local one, and its p values, see `PairTest`.
        overlap: mean share of the ten best documents that both have.
        same_documents: share of queries whose ten best documents are the same.
        same_order: share of queries whose ten best documents are the same, in the same order.
    """

    mode: str
    local: dict[str, float]
    cluster: dict[str, float]
    differences: dict[str, dict[str, float]]
    overlap: float
    same_documents: float
    same_order: float


def compare_with_cluster(
    local: SearchIndex,
    remote: ClusterIndex,
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    *,
    field: str | None = None,
    candidates: int = 1_000,
) -> dict[str, Any]:
    """Measure both and compare them, mode by mode.

    Sparse search is compared twice: without pruning on either side, and with Elasticsearch's default on both.

    Args:
        local: the local index.
        remote: an index that `load elasticsearch` filled.
        queries: query -> text.
        qrels: query -> document -> relevance.
        field: the field to search; by default the first that fits each mode.
        candidates: candidates of a shard in approximate search.

    Returns:
        The versions on both sides, the pruning, and a `Comparison` for each mode as JSON.

    Raises:
        PipelineError: the index was not made by a load, or the cluster does not answer.
    """
    state = remote.state()
    if state is None:
        raise PipelineError(
            f"the cluster has no index [{remote.name}]; `semantic-ingest load elasticsearch` makes it"
        )
    plain = evaluate(local, queries, qrels, field=field, depth=DEPTH)
    pruned = evaluate(
        local, queries, qrels, modes=_pruned_modes(plain), field=field, depth=DEPTH, pruning=Pruning()
    )
    here = {**plain.modes, **{f"{mode} pruned": result for mode, result in pruned.modes.items()}}
    there = _Remote(local, remote, state, plain, field, candidates).runs()
    pairs = {
        mode: (here["hybrid" if mode == "semantic" else mode], measured(run, plain.qrels, plain.queries))
        for mode, run in there.items()
        if mode in here or (mode == "semantic" and "hybrid" in here)
    }
    comparisons = _compared(pairs)
    return {
        "index": remote.name,
        "cluster_version": ".".join(map(str, remote.version())),
        "table_version": {"local": plain.table_version, "index": state.version},
        "pruning": asdict(Pruning()),
        "queries": len(plain.queries),
        "modes": {
            one.mode: {key: value for key, value in asdict(one).items() if key != "mode"}
            for one in comparisons
        },
    }


def _pruned_modes(evaluation: Evaluation) -> list[Any]:
    return [mode for mode in ("sparse",) if mode in evaluation.modes]


def _compared(modes: Mapping[str, tuple[ModeResult, ModeResult]]) -> list[Comparison]:
    differences: dict[str, dict[str, dict[str, float]]] = {mode: {} for mode in modes}
    for measure in MEASURES:
        values = [
            ("local", here.values[measure], "cluster", there.values[measure])
            for here, there in modes.values()
        ]
        for mode, test in zip(modes, paired_tests(values), strict=True):
            differences[mode][measure] = test.figures()
    return [_comparison(mode, *pair, differences[mode]) for mode, pair in modes.items()]


def _comparison(
    mode: str, local: ModeResult, cluster: ModeResult, differences: dict[str, dict[str, float]]
) -> Comparison:
    pairs = [(list(local.run[query])[:10], list(cluster.run.get(query, {}))[:10]) for query in local.run]
    shared = [len(set(ours) & set(theirs)) / max(len(ours), 1) for ours, theirs in pairs]
    return Comparison(
        mode,
        {measure: local.mean(measure) for measure in MEASURES},
        {measure: cluster.mean(measure) for measure in MEASURES},
        differences,
        float(np.mean(shared)),
        float(np.mean([set(ours) == set(theirs) for ours, theirs in pairs])),
        float(np.mean([ours == theirs for ours, theirs in pairs])),
    )


class _Remote:
    """Ranks by the cluster what the local index ranks by itself."""

    def __init__(
        self,
        local: SearchIndex,
        remote: ClusterIndex,
        state: LoadState,
        evaluation: Evaluation,
        field: str | None,
        candidates: int,
    ) -> None:
        self._local, self._remote, self._state = local, remote, state
        self._queries, self._field, self._candidates = evaluation.queries, field, candidates
        self._modes = evaluation.modes

    def runs(self) -> dict[str, Runs]:
        """Mode -> query -> document -> score."""
        runs: dict[str, Runs] = {}
        if "bm25" in self._modes:
            runs["bm25"] = self._ask(self._text_bodies())
        if "sparse" in self._modes:
            runs["sparse"] = self._ask(self._sparse_bodies(prune=False))
            runs["sparse pruned"] = self._ask(self._sparse_bodies(prune=True))
        if "dense" in self._modes:
            runs["dense"] = self._ask(self._dense_bodies())
        if "hybrid" in self._modes:
            runs["hybrid"] = _fused([runs[mode] for mode in ("bm25", "sparse", "dense") if mode in runs])
        if self._state.form != "nested":
            runs |= self._semantic()
        return runs

    def _place(self, field: str) -> tuple[str, str]:
        """Where the chunks of a field lie, and where their embeddings."""
        if self._state.form == "nested":
            return chunks_name(field), f"{chunks_name(field)}.embedding"
        return f"{field}.inference.chunks", f"{field}.inference.chunks.embeddings"

    def _text_bodies(self) -> Iterator[dict[str, Any]]:
        (retriever,) = find_retrievers(self._local, "bm25", self._field)
        sources = [one for one in retriever.sources if one not in self._local.fields] or list(
            retriever.sources
        )
        for text in self._queries.values():
            yield {"query": {"multi_match": {"query": text, "fields": sources, "type": "most_fields"}}}

    def _sparse_bodies(self, *, prune: bool) -> Iterator[dict[str, Any]]:
        (retriever,) = find_retrievers(self._local, "sparse", self._field)
        path, field = self._place(retriever.field)
        embeddings: Any = embed_queries(self._local.state, retriever.field, list(self._queries.values()))
        for at in range(len(self._queries)):
            weights = {token: float(weight) for token, weight in embeddings.row(at).items()}
            query = {"sparse_vector": {"field": field, "query_vector": weights, "prune": prune}}
            yield {"query": {"nested": {"path": path, "score_mode": "max", "query": query}}}

    def _dense_bodies(self) -> Iterator[dict[str, Any]]:
        (retriever,) = find_retrievers(self._local, "dense", self._field)
        _, field = self._place(retriever.field)
        embeddings = embed_queries(self._local.state, retriever.field, list(self._queries.values()))
        assert isinstance(embeddings, DenseEmbeddings)
        for vector in embeddings.values:
            k = {"k": DEPTH, "num_candidates": self._candidates}
            yield {"knn": {"field": field, "query_vector": vector.tolist(), **k}}

    def _semantic(self) -> dict[str, Runs]:
        """The cluster's own `semantic` query, where it has the endpoint that it needs."""
        name = self._field or next(iter(self._local.fields))
        bodies = ({"query": {"semantic": {"field": name, "query": text}}} for text in self._queries.values())
        try:
            return {"semantic": self._ask(bodies)}
        except PipelineError:
            return {}

    def _ask(self, bodies: Iterator[dict[str, Any]]) -> Runs:
        runs: Runs = {}
        names = list(self._queries)
        searches = [{**body, "size": DEPTH, "_source": False} for body in bodies]
        for first in range(0, len(names), BLOCK_QUERIES):
            block = searches[first : first + BLOCK_QUERIES]
            lines = [line for body in block for line in ({"index": self._remote.name}, body)]
            answers = asked(partial(self._remote.client.msearch, searches=lines))["responses"]
            for name, answer in zip(names[first : first + BLOCK_QUERIES], answers, strict=True):
                if "error" in answer:
                    cause = answer["error"].get("root_cause") or [answer["error"]]
                    raise PipelineError(
                        f"the cluster cannot answer the query [{name}]: {cause[0].get('reason')}"
                    )
                runs[name] = {hit["_id"]: float(hit["_score"]) for hit in answer["hits"]["hits"]}
        return runs


def _fused(runs: Sequence[Runs]) -> Runs:
    """Reciprocal rank fusion, done here: clusters without a licence for it have none."""
    fused: Runs = {}
    for query in runs[0]:
        scores: dict[str, float] = {}
        for run in runs:
            for rank, id_ in enumerate(list(run[query])[:RANK_WINDOW], 1):
                scores[id_] = scores.get(id_, 0.0) + 1 / (RANK_CONSTANT + rank)
        fused[query] = dict(sorted(scores.items(), key=lambda pair: -pair[1])[:DEPTH])
    return fused
