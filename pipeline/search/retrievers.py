"""The rankings that a search is made of: which field, which kind, which unit of the index."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from models.embeddings import DenseEmbeddings, SparseEmbeddings
from pipeline.errors import PipelineError
from pipeline.search.dense import DenseField, rank_dense
from pipeline.search.open_index import Bools, OpenUnit, SearchIndex
from pipeline.search.pruning import Pruning, prune_tokens
from pipeline.search.query_embedding import embed_queries
from pipeline.search.ranking import Ranking, bm25_query, rank_query, sparse_query

Mode = Literal["bm25", "sparse", "dense", "hybrid"]
MODES: tuple[Mode, ...] = ("bm25", "sparse", "dense", "hybrid")
_TASKS = {"sparse": "sparse_embedding", "dense": "text_embedding"}


@dataclass(frozen=True)
class Leg:
    """One ranking of a search.

    Attributes:
        mode: ``bm25``, ``sparse`` or ``dense``.
        field: the semantic field, or the text field for BM25.
        unit: the unit to search.
        sources: source fields that BM25 looks into.
    """

    mode: str
    field: str
    unit: OpenUnit
    sources: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How results are labelled."""
        return f"{self.mode}:{self.field}"


def find_legs(index: SearchIndex, mode: Mode, field: str | None) -> list[Leg]:
    """The rankings of a search; none where the index is empty.

    Raises:
        PipelineError: the field is unknown, or has no such ranking.
    """
    if mode not in MODES:
        raise PipelineError(f"unknown mode [{mode}]; known modes: {', '.join(MODES)}")
    if not index.units:
        return []
    if field is not None and field not in index.text_fields():
        raise PipelineError(
            f"the index has no field [{field}] to search; it has {', '.join(index.text_fields())}"
        )
    if mode == "bm25":
        return [_bm25_leg(index, field)]
    if mode != "hybrid":
        return [_semantic_leg(index, mode, field)]
    legs = [_bm25_leg(index, field)]
    for kind in _TASKS:
        name = _semantic_field(index, kind, field)
        if name is not None:
            legs.append(Leg(kind, name, index.unit_of(name)))
    return legs


def _bm25_leg(index: SearchIndex, field: str | None) -> Leg:
    unit = index.unit_of(field) if field is not None else next(iter(index.units.values()))
    name = field or (unit.state.fields or unit.state.sources)[0]
    sources = [name] if name not in unit.state.fields else index.fields[name].definition["sources"]
    return Leg("bm25", name, unit, tuple(sources))


def _semantic_leg(index: SearchIndex, mode: str, field: str | None) -> Leg:
    name = _semantic_field(index, mode, field)
    if name is None:
        having = [name for name, state in index.fields.items() if state.task_type == _TASKS[mode]]
        wanted = f"[{field}] has no {mode} embeddings" if field else f"the index has no {mode} embeddings"
        raise PipelineError(f"{wanted}; fields that have: {', '.join(having) or 'none'}")
    return Leg(mode, name, index.unit_of(name))


def _semantic_field(index: SearchIndex, mode: str, field: str | None) -> str | None:
    """The first field with that kind of embeddings that is `field` itself or embeds it."""
    for name, state in index.fields.items():
        if state.task_type == _TASKS[mode] and field in (None, name, *state.definition["sources"]):
            return name
    return None


def rank_leg(
    index: SearchIndex,
    leg: Leg,
    queries: Sequence[str],
    k: int,
    *,
    allowed: Bools | None = None,
    pruning: Pruning | None = None,
) -> list[Ranking]:
    """Rank documents for each query by one leg.

    Args:
        index: the index.
        leg: the ranking.
        queries: what to look for.
        k: number of documents.
        allowed: the documents that may be found; None for all.
        pruning: which tokens of a sparse query to leave out; None for none.
    """
    if leg.mode == "bm25":
        return [
            rank_query(leg.unit, bm25_query(leg.unit, query, leg.sources), k, allowed) for query in queries
        ]
    embeddings = embed_queries(index.state, leg.field, queries)
    if isinstance(embeddings, DenseEmbeddings):
        return rank_vectors(index, leg, embeddings, k, allowed)
    return [
        rank_sparse(index, leg, sparse_weights(index, leg, embeddings, at, pruning), k, allowed)
        for at in range(len(queries))
    ]


def sparse_weights(
    index: SearchIndex, leg: Leg, embeddings: SparseEmbeddings, at: int, pruning: Pruning | None
) -> dict[str, float]:
    """The tokens of one query and their weights, pruned if asked for."""
    weights = embeddings.row(at)
    return (
        prune_tokens(weights, index.token_counts(leg.field), leg.unit.state.rows, pruning)
        if pruning
        else weights
    )


def rank_sparse(
    index: SearchIndex, leg: Leg, weights: Mapping[str, float], k: int, allowed: Bools | None = None
) -> Ranking:
    """Rank documents by the dot product with a sparse embedding."""
    number = index.state.field_number(leg.field)
    query = sparse_query(leg.unit, number, index.fields[leg.field], dict(weights))
    return rank_query(leg.unit, query, k, allowed)


def rank_vectors(
    index: SearchIndex, leg: Leg, embeddings: DenseEmbeddings, k: int, allowed: Bools | None = None
) -> list[Ranking]:
    """Rank documents by the similarity of their vectors to each query's.

    Raises:
        PipelineError: the query's vectors have another length.
    """
    dense = DenseField(index.fields[leg.field], index.vectors(leg.field), index.norms(leg.field))
    if embeddings.values.shape[1] != dense.state.stored_dimensions:
        raise PipelineError(
            f"[{leg.field}] has embeddings of {dense.state.stored_dimensions} numbers, the query has"
            f" {embeddings.values.shape[1]}: it was embedded by another model"
        )
    alive = index.alive if allowed is None else index.alive & allowed
    return rank_dense(leg.unit, dense, embeddings.values, k, alive)


def available_modes(index: SearchIndex, field: str | None) -> list[Mode]:
    """The modes that a field has; hybrid where there are two rankings to join."""
    legs = {leg.mode for leg in find_legs(index, "hybrid", field)}
    return [mode for mode in MODES if mode in legs or (mode == "hybrid" and len(legs) > 1)]
