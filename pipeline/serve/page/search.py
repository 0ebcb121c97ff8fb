"""The page's search: hits of one mode as a person reads them, and what a filter can say."""

import html
import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import PipelineError
from pipeline.search.filter_columns import open_column
from pipeline.search.filters import Filter, matching, parse_filters
from pipeline.search.hits.hit import Hit
from pipeline.search.open_index import Bools, SearchIndex
from pipeline.search.retrievers import MODES, available_modes
from pipeline.search.search import SearchOptions, search
from pipeline.serve.corpus import Corpus
from pipeline.serve.page.documents import SHOWN_TOKENS, heading, number_of, sources
from pipeline.serve.page.parameters import WrongParameter, whole_number
from pipeline.serve.page.reranking import reranking, reranking_endpoints

SNIPPET = 260
"""Characters of a hit's text: two lines on a wide screen."""

MOST_HITS = 100
MOST_CHUNKS = 20
SUGGESTED = 12
_MARKED = re.compile(r"<em>(.*?)</em>", re.DOTALL)


def filter_of(index: SearchIndex, query: Mapping[str, str]) -> tuple[Filter | None, Bools | None]:
    """The filter of a request, and which documents it lets through.

    Raises:
        WrongParameter: it is not understood.
    """
    text = query.get("filter", "").strip()
    try:
        parsed = parse_filters([text] if text else [])
        return parsed, None if parsed is None else matching(index, parsed)
    except (PipelineError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        reason = str(error).removeprefix("--filter ")
    raise WrongParameter("filter", reason)


def search_hits(corpus: Corpus, query: Mapping[str, str]) -> dict[str, Any]:
    """The hits of one search mode.

    Args:
        corpus: what is served.
        query: ``q``, ``mode``, and where wanted ``field``, ``filter``, ``k``, ``chunks``, ``neighbours``, ``rerank``
            and ``depth``.

    Raises:
        WrongParameter: one of them is wrong.
    """
    index = corpus.index
    text, mode, field = query.get("q", ""), query.get("mode", "hybrid"), query.get("field") or None
    if not text.strip():
        raise WrongParameter("q", "type what to look for")
    if mode not in MODES:
        raise WrongParameter("mode", f"[mode] is one of {', '.join(MODES)}, not [{mode}]")
    if field is not None and field not in index.text_fields():
        raise WrongParameter("field", f"there is no field [{field}] to search")
    k = whole_number(query, "k", 10, 1, MOST_HITS)
    chunks = whole_number(query, "chunks", 1, 1, MOST_CHUNKS)
    neighbours = whole_number(query, "neighbours", 0, 0, MOST_CHUNKS)
    allowed, _ = filter_of(index, query)
    again = reranking(corpus, query, k)
    started = time.perf_counter()
    try:
        options = SearchOptions(
            mode, field, k, allowed, explain=True, chunks=chunks, neighbours=neighbours, **again
        )
        hits = search(index, text, options)
    except PipelineError as error:
        raise WrongParameter("mode", str(error)) from None
    took = round((time.perf_counter() - started) * 1000, 1)
    return {"mode": mode, "ms": took, "hits": _shown(index, hits)}


def _shown(index: SearchIndex, hits: list[Hit]) -> list[dict[str, Any]]:
    numbers = [number_of(index, hit.id) for hit in hits]
    found = sources(index, numbers)
    return [
        {
            "_id": hit.id,
            "score": hit.score,
            **heading(index, found.get(number, {})),
            "chunk": {name: value for name, value in hit.chunk.to_json().items() if name != "text"},
            "snippet": snippet(hit.highlight),
            "parts": hit.parts,
            **({"chunks": [one.to_json() for one in hit.chunks]} if hit.chunks else {}),
            **({"retrieved": asdict(hit.retrieved)} if hit.retrieved is not None else {}),
            "tokens": {
                name: [asdict(match) for match in matches[:SHOWN_TOKENS]]
                for name, matches in hit.explanation.items()
                if matches
            },
        }
        for number, hit in zip(numbers, hits, strict=True)
    ]


def snippet(highlight: str, length: int = SNIPPET) -> list[tuple[str, bool]]:
    """Cut the text around its first match: pieces of plain text, each with whether it is a match.

    Args:
        highlight: the text as HTML with ``<em>`` around the matches, as a `Hit` has it.
        length: characters to keep.
    """
    pieces = [
        (html.unescape(piece), at % 2 == 1) for at, piece in enumerate(_MARKED.split(highlight)) if piece
    ]
    before = 0
    for text, is_match in pieces:
        if is_match:
            break
        before += len(text)
    else:
        before = 0
    start = max(0, before - length // 3)
    cut, at = [], 0
    for text, is_match in pieces:
        shown = text[max(0, start - at) : max(0, start + length - at)]
        if shown:
            cut.append((shown, is_match))
        at += len(text)
    if start and cut:
        first, is_match = cut[0]
        cut[0] = (
            first if is_match else first.partition(" ")[2] or first,
            is_match,
        )  # begins with a whole word
        cut.insert(0, ("… ", False))
    if at > start + length:
        cut.append((" …", False))
    return cut


def suggestions(index: SearchIndex, query: Mapping[str, str]) -> dict[str, Any]:
    """The values that a plain field has, the most frequent first.

    Args:
        index: the index.
        query: ``field``, and ``prefix`` that the values begin with.
    """
    field, prefix = query.get("field", ""), query.get("prefix", "").lower()
    if field not in index.state.plain:
        return {"values": []}
    column = open_column(index, field)
    counted = pc.value_counts(column.values.filter(pa.array(index.alive[column.rows]))).to_pylist()
    if column.field.type == "date":
        for one in counted:
            one["values"] = datetime.fromtimestamp(one["values"] / 1000, UTC).isoformat()
    counted.sort(key=lambda one: (-one["counts"], str(one["values"])))
    fitting = [one for one in counted if str(one["values"]).lower().startswith(prefix)]
    found = [{"value": one["values"], "documents": one["counts"]} for one in fitting[:SUGGESTED]]
    return {"values": found}


def overview(corpus: Corpus) -> dict[str, Any]:
    """What the index holds, and what can rank its documents again."""
    index = corpus.index
    return {
        "table": index.state.table,
        "documents": index.state.documents,
        "chunks": index.state.chunks,
        "fields": [{"name": name, "modes": available_modes(index, name)} for name in index.text_fields()],
        "modes": available_modes(index, None),
        "rerankers": reranking_endpoints(corpus),
        "filters": {name: field["type"] for name, field in index.state.plain.items()},
    }
