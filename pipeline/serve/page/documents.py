"""The page's documents: browse the index, open one with its chunks drawn, read from the table."""

import bisect
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.endpoints.endpoint import parse_endpoint
from models.errors import InferenceError, bad_request
from models.open_model import open_model
from models.text import Utf16Text
from pipeline.errors import PipelineError
from pipeline.search.open_index import SearchIndex
from transforms import exact_json
from transforms.field_values import joined_values
from transforms.index.texts import PAGED_FIELD
from transforms.table.parts import open_part

SHOWN_TOKENS = 24
"""Tokens of a sparse embedding that are shown."""

LONGEST_TEXT = 2_000_000
"""UTF-16 code units of a field that the page gets; chunks beyond are listed without their text."""

TITLES = ("title", "name", "subject", "headline", "question")
PATHS = ("path", "url", "file", "filename")


def listed(index: SearchIndex, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Documents as a list shows them: id, title, path, the beginning of their text."""
    found = sources(index, numbers)
    return [{"_id": index.ids[number], **heading(index, found.get(number, {}))} for number in numbers]


def heading(index: SearchIndex, source: Mapping[str, Any]) -> dict[str, Any]:
    """What tells a person which document this is."""
    text = next((_text(source, name) for name in text_sources(index) if _text(source, name).strip()), "")
    title = next(
        (source[name] for name in TITLES if isinstance(source.get(name), str) and source[name]), None
    )
    path = next((source[name] for name in PATHS if isinstance(source.get(name), str) and source[name]), None)
    return {"title": title, "path": path, "beginning": " ".join(text[:400].split())[:240]}


def text_sources(index: SearchIndex) -> list[str]:
    """The fields whose values are embedded."""
    named = (name for state in index.fields.values() for name in state.definition["sources"])
    return [name for name in dict.fromkeys(named) if name not in index.fields]


def _text(source: Mapping[str, Any], name: str) -> str:
    try:
        return joined_values(source, name)
    except InferenceError:
        return ""


def browse(index: SearchIndex, text: str, allowed: Any, start: int, size: int) -> dict[str, Any]:
    """One page of the documents, in the order of the index.

    Args:
        index: the index.
        text: what their ids hold, in any case; empty for all.
        allowed: those that a filter lets through; None for all.
        start: how many to pass over.
        size: how many to show.
    """
    mask = index.alive if allowed is None else index.alive & allowed
    if text:
        ids = index.documents["_id"].combine_chunks()
        mask = mask & pc.match_substring(ids, text, ignore_case=True).to_numpy(zero_copy_only=False)
    numbers = np.flatnonzero(mask)
    return {"total": len(numbers), "documents": listed(index, numbers[start : start + size].tolist())}


def number_of(index: SearchIndex, wanted: str) -> int:
    """The number of the document with this id.

    Raises:
        InferenceError: 404, the index has none.
    """
    found = pc.equal(index.documents["_id"], pa.scalar(wanted, index.documents["_id"].type)).to_numpy()
    numbers = np.flatnonzero(found.astype(bool) & index.alive)
    if not len(numbers):
        bad_request(f"no document [{wanted}]", "resource_not_found_exception", 404)
    return int(numbers[0])


def document(index: SearchIndex, wanted: str) -> dict[str, Any]:
    """A document with its chunks.

    Raises:
        InferenceError: 404, there is none.
        PipelineError: the table no longer holds it.
    """
    number = number_of(index, wanted)
    row = _row(index, number)
    source = exact_json.loads(row["_source"])
    plain = {name: row[name] for name in index.state.plain if row.get(name) is not None}
    fields = [_field(index, name, row.get(name), source) for name in index.fields]
    return {"_id": wanted, **heading(index, source), "plain": plain, "_source": source, "fields": fields}


def _field(index: SearchIndex, name: str, value: Any, source: Mapping[str, Any]) -> dict[str, Any]:
    chunks = (value or {"chunks": []})["chunks"]
    texts = {one["source_field"]: Utf16Text(_text(source, one["source_field"])) for one in chunks}
    cut = {field: text.slice(0, min(text.length, LONGEST_TEXT)) for field, text in texts.items()}
    pieces = [texts[one["source_field"]].slice(one["start_offset"], one["end_offset"]) for one in chunks]
    tokens, window = _tokens(index, name, pieces)
    return {
        "name": name,
        "inference_id": index.fields[name].definition["inference_id"],
        "chunking_settings": index.fields[name].definition.get("chunking_settings"),
        "window": window,
        "texts": cut,
        "chunks": [
            {**_chunk(one), "tokens": count, "page": _page(source, one)}
            for one, count in zip(chunks, tokens, strict=True)
        ],
    }


def _chunk(chunk: Mapping[str, Any]) -> dict[str, Any]:
    """A chunk without its embedding: the heaviest tokens of a sparse one, nothing of a dense one."""
    shown = {name: chunk[name] for name in ("source_field", "start_offset", "end_offset", "is_truncated")}
    embedding = chunk["embeddings"]
    if embedding and isinstance(embedding[0], tuple):
        shown["weights"] = sorted(embedding, key=lambda pair: -pair[1])[:SHOWN_TOKENS]
    return shown


def _tokens(index: SearchIndex, name: str, texts: Sequence[str]) -> tuple[list[int | None], int | None]:
    """Tokens of each chunk as its model counts them, and the model's window; None where that is not known here."""
    definition = index.fields[name].definition
    body = {key: value for key, value in definition["endpoint"].items() if key != "inference_id"}
    try:
        endpoint = parse_endpoint(
            definition["inference_id"], body, folder=index.state.metadata.get("endpoints_path")
        )
        model = open_model(endpoint, index.state.metadata.get("models") or {})
        return [int(count) for count in model.count_tokens(list(texts))], model.max_tokens
    except InferenceError:
        return [None] * len(texts), None


def _page(source: Mapping[str, Any], chunk: Mapping[str, Any]) -> int | None:
    """The page, from 1, that a chunk begins on; None where that is not known."""
    starts = source.get("page_offsets")
    if chunk["source_field"] != PAGED_FIELD or not isinstance(starts, list) or not starts:
        return None
    if not all(type(start) is int for start in starts):
        return None
    return max(1, bisect.bisect_right(starts, chunk["start_offset"]))


def sources(index: SearchIndex, numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The documents themselves, by number; one that the table no longer holds is left out."""
    names = {number: name for name, number in index.state.parts.items()}
    path, parts = index.state.table["path"], index.documents["part"]
    found = {}
    for number in numbers:
        try:
            place = _rows_of(path, names[parts[number].as_py()]).get(index.ids[number])
            if place is not None:
                group, row = place
                column = _group(path, names[parts[number].as_py()], group)
                found[number] = exact_json.loads(column[row].as_py())
        except OSError:
            continue
    return found


@lru_cache(maxsize=64)
def _rows_of(path: str, part: str) -> dict[str, tuple[int, int]]:
    """Where each document of a part file is: row group and row. Part files never change."""
    file = open_part(path, part)
    found: dict[str, tuple[int, int]] = {}
    for group in range(file.num_row_groups):
        ids = file.read_row_group(group, columns=["_id"])["_id"].to_pylist()
        found |= {id_: (group, row) for row, id_ in enumerate(ids)}
    return found


@lru_cache(maxsize=32)
def _group(path: str, part: str, group: int) -> pa.ChunkedArray:
    return open_part(path, part).read_row_group(group, columns=["_source"])["_source"]


def _row(index: SearchIndex, number: int) -> dict[str, Any]:
    """A document's whole row in the table."""
    names = {number: name for name, number in index.state.parts.items()}
    part, path = names[index.documents["part"][number].as_py()], index.state.table["path"]
    try:
        group, row = _rows_of(path, part)[index.ids[number]]
        found: dict[str, Any] = open_part(path, part).read_row_group(group).slice(row, 1).to_pylist()[0]
        return found
    except (OSError, KeyError):
        reason = f"the table no longer holds [{index.ids[number]}] in {part}: bring the index up to date with `index`"
    raise PipelineError(reason)
