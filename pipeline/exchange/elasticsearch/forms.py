"""What a document looks like that brings its own vectors to Elasticsearch.

Elasticsearch keeps the result of inference beside the document's own values (`_inference_fields`, since 8.18), or
inside the field (`legacy`, before). A result that is there already is taken as it is. `own_chunks` is the form of the
route that is proposed and not yet merged: one text, whose chunks follow each other without a gap or an overlap. A
`nested` document is understood by every cluster and licence.
"""

import base64
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import orjson

from models.embeddings import SparseEmbeddings
from models.text import Utf16Text
from pipeline.exchange.rows import TableRows
from transforms.field_values import field_values, joined_values
from transforms.table.columns import ChunkColumn, from_arrow

Form = Literal["semantic_text", "legacy", "own_chunks", "nested"]
Vectors = Literal["array", "base64", "bfloat16"]

_JSON = orjson.OPT_SERIALIZE_NUMPY


def dump(value: Any) -> bytes:
    """A value as JSON, in as many bytes as that takes."""
    # orjson's own answer keeps the 32 KiB and more that it was written into; a body holds thousands of them.
    return memoryview(orjson.dumps(value, option=_JSON)).tobytes()


@dataclass(frozen=True)
class DocumentForm:
    """How documents are written.

    Attributes:
        form: where a result stands in the document.
        vectors: dense embeddings as arrays, or as base64 of big-endian float32 or bfloat16 (`nested` only).
        inference_ids: semantic field -> endpoint that the target's mapping names instead of the table's.
    """

    form: Form
    vectors: Vectors = "array"
    inference_ids: Mapping[str, str] = field(default_factory=dict)

    def inference_id(self, name: str, described: Mapping[str, Any]) -> str:
        """The endpoint of a field in the target."""
        return str(self.inference_ids.get(name, described["inference_id"]))


def chunks_name(name: str) -> str:
    """Field of a `nested` document that holds the chunks of a semantic field."""
    # It stands at the top: below a text that has the semantic field as a multi-field there is no place for it.
    return f"{name.replace('.', '_')}_chunks"


def documents(rows: TableRows, part: str, form: DocumentForm) -> Iterator[tuple[str, bytes]]:
    """Yield id and JSON of each wanted document of a part file, in order."""
    write = _WRITERS[form.form]
    for table in rows.read(part, ["_id", "_source", *rows.fields]):
        fields = {
            name: _Field(described, ChunkColumn.of(table[name]), form, form.inference_id(name, described))
            for name, described in rows.fields.items()
            if name in table.column_names
        }
        ids, sources = table["_id"].to_pylist(), table["_source"].to_pylist()
        for row, (id_, source) in enumerate(zip(ids, sources, strict=True)):
            yield id_, write(source, {name: one.of_row(row) for name, one in fields.items()})


@dataclass(frozen=True)
class _Result:
    """The chunks of one field of one document; empty where it has no text."""

    settings: Mapping[str, Any]
    inference_id: str
    chunks: list[tuple[str, int, int, Any]]


class _Field:
    """A semantic field of some rows, its embeddings as they stand in JSON."""

    def __init__(
        self, described: Mapping[str, Any], column: ChunkColumn, form: DocumentForm, inference_id: str
    ) -> None:
        settings = described["model_settings"].items()
        self._settings = {key: value for key, value in settings if value is not None}
        self._inference_id = inference_id
        self._places = list(column.places())
        self._embeddings = _embeddings(column, form.vectors) if self._places else []
        self._ends = [0, *np.cumsum(column.lengths).tolist()]

    def of_row(self, row: int) -> _Result:
        inside = slice(self._ends[row], self._ends[row + 1])
        pairs = zip(self._places[inside], self._embeddings[inside], strict=True)
        return _Result(self._settings, self._inference_id, [(*place, one) for place, one in pairs])


def _embeddings(column: ChunkColumn, vectors: Vectors) -> list[Any]:
    embeddings = from_arrow(column.chunks)
    if isinstance(embeddings, SparseEmbeddings):
        return _weights(embeddings)
    values = embeddings.values
    if vectors == "array" or values.dtype != np.float32:
        return list(values)
    bits = values.astype(">f4") if vectors == "base64" else _bfloat16(values)
    return [base64.b64encode(row.tobytes()).decode() for row in bits]


def _weights(embeddings: SparseEmbeddings) -> list[orjson.Fragment]:
    """Each embedding as JSON, the heaviest token first, as Elasticsearch stores it."""
    tokens = np.array(embeddings.vocabulary, object)[embeddings.token_ids]
    found = []
    for first, last in itertools.pairwise(embeddings.indptr.tolist()):
        weights = embeddings.weights[first:last]
        order = np.argsort(-weights, kind="stable")
        pairs = dict(zip(tokens[first:last][order].tolist(), weights[order], strict=True))
        found.append(orjson.Fragment(dump(pairs)))
    return found


def _bfloat16(values: Any) -> Any:
    """The upper halves of float32 numbers, rounded to the nearest, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(">u2")


def _semantic_text(source: str, results: Mapping[str, _Result]) -> bytes:
    written = {}
    for name, result in results.items():
        by_source: dict[str, list[dict[str, Any]]] = {}
        for source_field, start, end, embedding in result.chunks:
            chunk = {"start_offset": start, "end_offset": end, "embeddings": embedding}
            by_source.setdefault(source_field, []).append(chunk)
        if by_source:
            written[name] = {"inference": _inference(result, by_source)}
    return _with(source, {"_inference_fields": written} if written else {})


def _inference(result: _Result, chunks: Any) -> dict[str, Any]:
    return {"inference_id": result.inference_id, "model_settings": result.settings, "chunks": chunks}


def _legacy(source: str, results: Mapping[str, _Result]) -> bytes:
    document = orjson.loads(source)
    texts = _Texts(document)
    written = {}
    for name, result in results.items():
        own = field_values(document, name)
        chunks = [
            {"text": texts.slice(place, start, end), "embeddings": embedding}
            for place, start, end, embedding in result.chunks
        ]
        if chunks:
            value: dict[str, Any] = {"text": own[0] if len(own) == 1 else own} if own else {}
            written[name] = {**value, "inference": _inference(result, chunks)}
    for name, value in written.items():
        _put(document, name, value)
    return _dump(document)


def _own_chunks(source: str, results: Mapping[str, _Result]) -> bytes:
    """One text a field: its sources' values in a row. A chunk begins where the one before it ended."""
    document = orjson.loads(source)
    written = {}
    for name, result in results.items():
        begins, texts, length = {}, [], 0
        for source_field in dict.fromkeys(chunk[0] for chunk in result.chunks):
            text = joined_values(document, source_field)
            begins[source_field] = length
            texts.append(text)
            length += Utf16Text(text).length + 1
        if texts:
            spans = [
                (begins[place] + start, begins[place] + end, one) for place, start, end, one in result.chunks
            ]
            written[name] = {"text": "\n".join(texts), "chunks": _contiguous(spans, length - 1)}
    for name, value in written.items():
        _put(document, name, value)
    return _dump(document)


def _contiguous(spans: Sequence[tuple[int, int, Any]], length: int) -> list[dict[str, Any]]:
    """Cut overlaps off and close gaps: each chunk ends where the next one has something new to say."""
    ordered = sorted(spans, key=lambda span: span[:2])
    kept: list[dict[str, Any]] = []
    at = 0
    for start, end, embedding in ordered:
        if end <= at:
            continue  # all of it stands in the chunk before, as a piece of a long sentence may
        if kept and start > at:
            kept[-1]["end_offset"] = at = start
        kept.append({"start_offset": at, "end_offset": end, "embeddings": embedding})
        at = end
    if kept:
        kept[-1]["end_offset"] = length
    return kept


def _nested(source: str, results: Mapping[str, _Result]) -> bytes:
    texts = _Texts(orjson.loads(source)) if any(result.chunks for result in results.values()) else None
    written = {}
    for name, result in results.items():
        if texts is not None and result.chunks:
            written[chunks_name(name)] = [
                {
                    "source_field": source_field,
                    "start_offset": start,
                    "end_offset": end,
                    "text": texts.slice(source_field, start, end),
                    "embedding": embedding,
                }
                for source_field, start, end, embedding in result.chunks
            ]
    return _with(source, written)


_WRITERS: dict[str, Callable[[str, Mapping[str, _Result]], bytes]] = {
    "semantic_text": _semantic_text,
    "legacy": _legacy,
    "own_chunks": _own_chunks,
    "nested": _nested,
}


class _Texts:
    """The texts of a document's fields, cut by UTF-16 offsets."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._whole: dict[str, Utf16Text] = {}

    def slice(self, name: str, start: int, end: int) -> str:
        if name not in self._whole:
            self._whole[name] = Utf16Text(joined_values(self._document, name))
        return self._whole[name].slice(start, end)


def _put(document: dict[str, Any], name: str, value: Any) -> None:
    """Set a field by its full name, in the objects that are there."""
    first, _, rest = name.partition(".")
    if name not in document and rest and isinstance(document.get(first), dict):
        _put(document[first], rest, value)
    else:
        document[name] = value


def _with(source: str, extra: Mapping[str, Any]) -> bytes:
    """Add fields to a document that is JSON already, without reading it where its keys allow that."""
    text = source.encode("utf-8", "surrogatepass")
    if b'"_' in text:
        document = orjson.loads(text)
        return dump({**_without_metadata(document), **extra})
    if not extra:
        return text
    added = orjson.dumps(extra, option=_JSON)
    return added if text == b"{}" else text[:-1] + b"," + added[1:]


def _dump(document: dict[str, Any]) -> bytes:
    return dump(_without_metadata(document))


_METADATA = {
    "_id",
    "_index",
    "_routing",
    "_source",
    "_type",
    "_version",
    "_seq_no",
    "_ignored",
    "_inference_fields",
}


def _without_metadata(document: dict[str, Any]) -> dict[str, Any]:
    """Leave out what may not stand inside a document."""
    return {name: value for name, value in document.items() if name not in _METADATA}
