"""The retrievers that a search is made of: each ranks by one kind of evidence in one field."""

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
class Retriever:
    """One way to rank documents.

    Attributes:
        mode: its kind: ``bm25``, ``sparse`` or ``dense``.
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


def find_retrievers(index: SearchIndex, mode: Mode, field: str | None) -> list[Retriever]:
    """The retrievers of a search; none where the index is empty.

    Args:
        index: the index.
        mode: how to rank; `hybrid` takes all retrievers that the field has.
        field: a semantic field, or a text field; None takes the first that fits.

    Raises:
        PipelineError: the field is unknown, or has no such retriever.
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
        return [_bm25_retriever(index, field)]
    if mode != "hybrid":
        return [_semantic_retriever(index, mode, field)]
    retrievers = [_bm25_retriever(index, field)]
    for kind in _TASKS:
        name = _semantic_field(index, kind, field)
        if name is not None:
            retrievers.append(Retriever(kind, name, index.unit_of(name)))
    return retrievers


def _bm25_retriever(index: SearchIndex, field: str | None) -> Retriever:
    unit = index.unit_of(field) if field is not None else next(iter(index.units.values()))
    name = field or (unit.state.fields or unit.state.sources)[0]
    sources = [name] if name not in unit.state.fields else index.fields[name].definition["sources"]
    return Retriever("bm25", name, unit, tuple(sources))


def _semantic_retriever(index: SearchIndex, mode: str, field: str | None) -> Retriever:
    name = _semantic_field(index, mode, field)
    if name is None:
        having = [name for name, state in index.fields.items() if state.task_type == _TASKS[mode]]
        wanted = f"[{field}] has no {mode} embeddings" if field else f"the index has no {mode} embeddings"
        raise PipelineError(f"{wanted}; fields that have: {', '.join(having) or 'none'}")
    return Retriever(mode, name, index.unit_of(name))


def _semantic_field(index: SearchIndex, mode: str, field: str | None) -> str | None:
    """The first field with that kind of embeddings that is `field` itself or embeds it."""
    for name, state in index.fields.items():
        if state.task_type == _TASKS[mode] and field in (None, name, *state.definition["sources"]):
            return name
    return None


def retrieve(
    index: SearchIndex,
    retriever: Retriever,
    queries: Sequence[str],
    k: int,
    *,
    allowed: Bools | None = None,
    pruning: Pruning | None = None,
) -> list[Ranking]:
    """Rank documents for each query by one retriever.

    Args:
        index: the index.
        retriever: how to rank.
        queries: what to look for.
        k: number of documents.
        allowed: the documents that may be found; None for all.
        pruning: which tokens of a sparse query to leave out; None for none.
    """
    if retriever.mode == "bm25":
        return [
            rank_query(retriever.unit, bm25_query(retriever.unit, query, retriever.sources), k, allowed)
            for query in queries
        ]
    embeddings = embed_queries(index.state, retriever.field, queries)
    if isinstance(embeddings, DenseEmbeddings):
        return rank_vectors(index, retriever, embeddings, k, allowed)
    return [
        rank_sparse(index, retriever, sparse_weights(index, retriever, embeddings, at, pruning), k, allowed)
        for at in range(len(queries))
    ]


def sparse_weights(
    index: SearchIndex, retriever: Retriever, embeddings: SparseEmbeddings, at: int, pruning: Pruning | None
) -> dict[str, float]:
    """The tokens of one query and their weights, pruned if asked for."""
    weights = embeddings.row(at)
    if pruning is None:
        return weights
    return prune_tokens(weights, index.token_counts(retriever.field), retriever.unit.state.rows, pruning)


def rank_sparse(
    index: SearchIndex,
    retriever: Retriever,
    weights: Mapping[str, float],
    k: int,
    allowed: Bools | None = None,
) -> Ranking:
    """Rank documents by the dot product with a sparse embedding."""
    number = index.state.field_number(retriever.field)
    query = sparse_query(retriever.unit, number, index.fields[retriever.field], dict(weights))
    return rank_query(retriever.unit, query, k, allowed)


def rank_vectors(
    index: SearchIndex,
    retriever: Retriever,
    embeddings: DenseEmbeddings,
    k: int,
    allowed: Bools | None = None,
) -> list[Ranking]:
    """Rank documents by the similarity of their vectors to each query's.

    Raises:
        PipelineError: the query's vectors have another length.
    """
    dense = dense_field(index, retriever.field)
    if embeddings.values.shape[1] != dense.state.stored_dimensions:
        raise PipelineError(
            f"[{retriever.field}] has embeddings of {dense.state.stored_dimensions} numbers, the query has"
            f" {embeddings.values.shape[1]}: it was embedded by another model"
        )
    alive = index.alive if allowed is None else index.alive & allowed
    return rank_dense(retriever.unit, dense, embeddings.values, k, alive)


def dense_field(index: SearchIndex, name: str) -> DenseField:
    """The vectors of a field."""
    return DenseField(index.fields[name], index.vectors(name), index.norms(name))


def available_modes(index: SearchIndex, field: str | None) -> list[Mode]:
    """The modes that a field has; hybrid where there are two rankings to join."""
    kinds = {retriever.mode for retriever in find_retrievers(index, "hybrid", field)}
    return [mode for mode in MODES if mode in kinds or (mode == "hybrid" and len(kinds) > 1)]
