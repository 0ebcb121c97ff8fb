"""Say why a chunk was found: which tokens of the query met which of the chunk, and where they stand in its text."""

import html
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.search.open_index import OpenUnit, SearchIndex
from pipeline.search.ranking import bm25_terms, sparse_query
from pipeline.search.retrievers import Retriever
from transforms.index.state import CHUNK_BITS
from transforms.index.tantivy_schema import spaced

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class TokenMatch:
    """A token of the query that the chunk has too.

    Attributes:
        token: the token, or BM25's term.
        query_weight: its weight in the query (BM25: how often it occurs).
        chunk_weight: its weight in the chunk, as the index holds it (BM25: 0, it has none apart from the score).
        score: what it adds to the chunk's score.
    """

    token: str
    query_weight: float
    chunk_weight: float
    score: float


def address_of(unit: OpenUnit, row: int) -> Any:
    """Where tantivy holds a chunk."""
    import tantivy

    document = int(unit.documents[row])
    query = tantivy.Query.term_set_query(unit.schema, "document", [document])
    rows = unit.rows_of(document)
    hits = unit.searcher.search(query, rows.stop - rows.start, count=False).hits
    addresses = [address for _, address in hits]
    chunk = (document << CHUNK_BITS) + row - rows.start
    return addresses[unit.searcher.fast_field_values("chunk", addresses).index(chunk)]


def explain_bm25(retriever: Retriever, text: str, row: int) -> list[TokenMatch]:
    """What each term of a query adds to a chunk's BM25 score, most first."""
    import tantivy

    address, unit = address_of(retriever.unit, row), retriever.unit
    matches = []
    for term, count in bm25_terms(unit, text).items():
        score = 0.0
        for source in retriever.sources:
            name = f"text{unit.state.sources.index(source)}"
            query = tantivy.Query.term_query(unit.schema, name, term, index_option="freq")
            score += count * _score(query, unit, address)
        matches.append(TokenMatch(term, count, 0.0, score))
    return _sorted(matches)


def explain_sparse(
    index: SearchIndex, retriever: Retriever, weights: Mapping[str, float], row: int
) -> list[TokenMatch]:
    """What each token of a query adds to a chunk's dot product, most first."""
    address, unit = address_of(retriever.unit, row), retriever.unit
    number, field = index.state.field_number(retriever.field), index.fields[retriever.field]
    matches = []
    for token, weight in weights.items():
        chunk_weight = _score(sparse_query(unit, number, field, {token: 1.0}), unit, address)
        matches.append(TokenMatch(token, weight, chunk_weight, weight * chunk_weight))
    return _sorted(matches)


def _score(query: Any, unit: OpenUnit, address: Any) -> float:
    try:
        return float(json.loads(query.explain(unit.searcher, address).to_json())["value"])
    except ValueError:  # tantivy's way of saying that the document does not match
        return 0.0


def _sorted(matches: Iterable[TokenMatch]) -> list[TokenMatch]:
    return sorted((match for match in matches if match.score > 0), key=lambda match: -match.score)


def highlighted(unit: OpenUnit, text: str, query: str, tokens: Iterable[str] = ()) -> list[tuple[int, int]]:
    """Where a chunk's text has the words of a query, or other tokens: (start, end) in characters.

    A word is marked when one of its BM25 terms is a term of the query (so "sacks" marks "sack"), or when it
    is one of `tokens`, which are compared in lower case.
    """
    terms = set(bm25_terms(unit, query))
    wanted = {token.lower() for token in tokens}
    return [
        match.span()
        for match in _WORD.finditer(text)
        if match[0].lower() in wanted or not terms.isdisjoint(unit.analyzer.analyze(spaced(match[0])))
    ]


def marked(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """The text as HTML with ``<em>`` around each span."""
    pieces, at = [], 0
    for start, end in spans:
        pieces += [html.escape(text[at:start]), "<em>", html.escape(text[start:end]), "</em>"]
        at = end
    return "".join([*pieces, html.escape(text[at:])])
