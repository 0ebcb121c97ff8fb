"""Search an index: which fields and kinds of ranking a search uses, what a hit shows, and the command."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from models.embeddings import DenseEmbeddings, SparseEmbeddings
from pipeline.errors import PipelineError
from pipeline.fuse import FusedHit, reciprocal_rank
from pipeline.query_embedding import embed_queries
from pipeline.rank import DenseField, Ranking, bm25_query, rank_dense, rank_query, sparse_query
from pipeline.search_index import Bools, FoundChunk, OpenUnit, SearchIndex

Mode = Literal["bm25", "sparse", "dense", "hybrid"]
RANK_WINDOW = 100
"""Documents of each ranking that a hybrid search joins, at least."""

_TASKS = {"sparse": "sparse_embedding", "dense": "text_embedding"}


@dataclass(frozen=True)
class Hit:
    """A document that was found.

    Attributes:
        id: its ``_id``.
        score: its score, that of its best chunk.
        chunk: the best chunk.
        parts: hybrid search: what each kind of ranking added to the score.
    """

    id: str
    score: float
    chunk: FoundChunk
    parts: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The hit as the command prints it."""
        shown: dict[str, Any] = {"_id": self.id, "score": self.score, "chunk": asdict(self.chunk)}
        return shown | ({"parts": self.parts} if self.parts else {})


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


def search(
    index: SearchIndex | str,
    query: str,
    *,
    mode: Mode = "hybrid",
    field: str | None = None,
    k: int = 10,
) -> list[Hit]:
    """Find the `k` best documents.

    Args:
        index: an open index, or its folder.
        query: what to look for.
        mode: how to rank; `hybrid` joins all rankings that `field` has by reciprocal rank fusion.
        field: a semantic field, or a text field; by default the first that fits the mode.
        k: number of documents.

    Raises:
        PipelineError: no index, no such field, or the field's model is another one now.
    """
    opened = SearchIndex(index) if isinstance(index, str) else index
    return search_many(opened, [query], mode=mode, field=field, k=k)[0]


def search_many(
    index: SearchIndex,
    queries: Sequence[str],
    *,
    mode: Mode = "hybrid",
    field: str | None = None,
    k: int = 10,
) -> list[list[Hit]]:
    """Find the `k` best documents of each query; see `search`."""
    legs = find_legs(index, mode, field)
    if mode != "hybrid":
        rankings = rank_leg(index, legs[0], queries, k) if legs else [None] * len(queries)
        return [_hits(index, ranking) for ranking in rankings]
    window = max(k, RANK_WINDOW)
    by_leg = [rank_leg(index, leg, queries, window) for leg in legs]
    return [
        _fused_hits(index, legs, rankings, reciprocal_rank(rankings, k))
        for rankings in zip(*by_leg, strict=True)
    ] or [[] for _ in queries]


def find_legs(index: SearchIndex, mode: Mode, field: str | None) -> list[Leg]:
    """The rankings of a search; none where the index is empty.

    Raises:
        PipelineError: the field is unknown, or has no such ranking.
    """
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
    index: SearchIndex, leg: Leg, queries: Sequence[str], k: int, allowed: Bools | None = None
) -> list[Ranking]:
    """Rank documents for each query by one leg."""
    if leg.mode == "bm25":
        return [
            rank_query(leg.unit, bm25_query(leg.unit, query, list(leg.sources)), k, allowed)
            for query in queries
        ]
    embeddings = embed_queries(index.state, leg.field, queries)
    if isinstance(embeddings, SparseEmbeddings):
        return [rank_sparse(index, leg, embeddings.row(at), k, allowed) for at in range(len(queries))]
    return rank_vectors(index, leg, embeddings, k, allowed)


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
    """Rank documents by the similarity of their vectors to each query's."""
    dense = DenseField(index.fields[leg.field], index.vectors(leg.field), index.norms(leg.field))
    if embeddings.values.shape[1] != dense.state.stored_dimensions:
        raise PipelineError(
            f"[{leg.field}] has embeddings of {dense.state.stored_dimensions} numbers, the query has"
            f" {embeddings.values.shape[1]}: it was embedded by another model"
        )
    alive = index.alive if allowed is None else index.alive & allowed
    return rank_dense(leg.unit, dense, embeddings.values, k, alive)


def _hits(index: SearchIndex, ranking: Ranking | None) -> list[Hit]:
    if ranking is None:
        return []
    return [
        Hit(index.document_id(int(document)), float(score), index.chunk(ranking.unit, int(row)))
        for document, score, row in zip(ranking.documents, ranking.scores, ranking.rows, strict=True)
    ]


def _fused_hits(
    index: SearchIndex, legs: Sequence[Leg], rankings: Sequence[Ranking], fused: Sequence[FusedHit]
) -> list[Hit]:
    hits = []
    for hit in fused:
        ranking = rankings[hit.best]
        row = int(ranking.rows[np.flatnonzero(ranking.documents == hit.document)[0]])
        parts = {leg.name: part for leg, part in zip(legs, hit.parts, strict=True) if part}
        hits.append(Hit(index.document_id(hit.document), hit.score, index.chunk(ranking.unit, row), parts))
    return hits


def index_path(config_or_index: str, overrides: Sequence[str] = ()) -> str:
    """The index that a command's first argument means: a folder with an index, or a run config that names one.

    Raises:
        PipelineError: it is neither.
    """
    from pipeline.config import load_config

    if Path(config_or_index).is_dir():
        return config_or_index
    config = load_config(config_or_index, list(overrides))
    if config.index is None:
        raise PipelineError(f"{config_or_index} has no `index` section; add `index: {{path: out/index}}`")
    return config.index.path


def search_command(
    index: str, query: str, *, mode: Mode, field: str | None, k: int, overrides: list[str], output: str
) -> None:
    """Search, and print the hits."""
    hits = search(index_path(index, overrides), query, mode=mode, field=field, k=k)
    if output == "json":
        print(json.dumps({"hits": [hit.to_json() for hit in hits]}, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("#", "score", "_id", "chunk", title=f"{mode}: {query}", show_lines=True)
    for rank, hit in enumerate(hits, 1):
        table.add_row(str(rank), f"{hit.score:.4f}", hit.id, hit.chunk.text[:300])
    Console(file=sys.stdout).print(table)
