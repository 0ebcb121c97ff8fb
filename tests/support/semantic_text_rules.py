"""What a `semantic_text` index accepts in `_bulk` when the vectors come with the documents, as a strict checker.

Written from the rules alone (storage since 8.18: `_inference_fields` beside the values), not from the code that writes
such documents: another walk through the mapping, another way to count UTF-16, another spelling of numbers.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

MAX_CHUNKS = 512
MAX_NESTED = 10_000
SETTINGS = {"service", "task_type", "dimensions", "similarity", "element_type"}


class Refused(Exception):
    """A document that the index would not take, or would take wrongly."""


def _refuse(condition: object, message: str) -> None:
    if condition:
        raise Refused(message)


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    _refuse(len(set(names)) < len(names), f"a key occurs twice: {names}")
    return dict(pairs)


def _no_constant(name: str) -> float:
    raise Refused(f"{name} is no JSON number")


def strict_json(line: bytes | str) -> Any:
    """JSON without NaN, infinity or a key that occurs twice in one object."""
    return json.loads(line, object_pairs_hook=_no_twice, parse_constant=_no_constant)


def java_spelling(value: Any) -> str:
    """A scalar of `_source` as the server turns it into text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    digits = Decimal(repr(value))
    if value == 0:
        return "-0.0" if math.copysign(1, value) < 0 else "0.0"
    if 1e-3 <= abs(value) < 1e7:
        plain = format(digits, "f")
        return plain if "." in plain else plain + ".0"
    sign, figures, exponent = digits.normalize().as_tuple()
    text = "".join(map(str, figures))
    power = int(exponent) + len(text) - 1
    return f"{'-' if sign else ''}{text[0]}.{text[1:] or '0'}E{power}"


def units(text: str) -> list[int]:
    """The UTF-16 code units of a text."""
    found = []
    for character in text:
        code = ord(character)
        if code > 0xFFFF:
            code -= 0x10000
            found += [0xD800 + (code >> 10), 0xDC00 + (code & 0x3FF)]
        else:
            found.append(code)
    return found


def fields_of(properties: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any], str]]:
    """Full name, definition and the name under which documents hold the value: a multi-field has its parent's."""
    for name, definition in properties.items():
        full = prefix + name
        if "properties" in definition:
            yield from fields_of(definition["properties"], f"{full}.")
            continue
        yield full, definition, full
        for inner, inner_definition in definition.get("fields", {}).items():
            yield f"{full}.{inner}", inner_definition, full


def values_at(document: Any, path: str) -> list[Any]:
    """Every value of a field, however objects, arrays and dotted keys spell the path."""
    if isinstance(document, list):
        return [value for item in document for value in values_at(item, path)]
    if not path:
        return [document]
    if not isinstance(document, dict):
        return []
    found = []
    for key, value in document.items():
        if path == key:
            found += values_at(value, "")
        elif path.startswith(key + "."):
            found += values_at(value, path[len(key) + 1 :])
    return found


def texts_at(document: Any, path: str) -> list[str]:
    found = []
    for value in values_at(document, path):
        _refuse(isinstance(value, dict), f"[semantic_text] field [{path}] does not support object values")
        if value is not None:
            found.append(java_spelling(value))
    return found


def is_blank(text: str) -> bool:
    """Java's `isBlank`: white space by `Character.isWhitespace`, which leaves out the no-break spaces."""
    return (
        re.fullmatch(r"[\t-\r\x1c-\x20\u1680\u2000-\u2006\u2008-\u200a\u2028\u2029\u205f\u3000]*", text)
        is not None
    )


def _sources(mapping: dict[str, Any], field: str) -> dict[str, str]:
    """Source field -> where its value stands."""
    sources = {}
    for name, definition, place in fields_of(mapping["properties"]):
        targets = definition.get("copy_to", [])
        if name == field:
            sources[place] = place
        elif field in ([targets] if isinstance(targets, str) else targets):
            sources[name] = place
    return sources


def _check_settings(settings: dict[str, Any]) -> None:
    _refuse(not settings.keys() <= SETTINGS, f"unknown model settings: {settings.keys() - SETTINGS}")
    task = settings.get("task_type")
    if task == "sparse_embedding":
        _refuse(settings.keys() - {"service", "task_type"}, "dense settings on a sparse model")
        return
    _refuse(task != "text_embedding", f"task_type is {task!r}")
    _refuse(
        settings.get("element_type") not in ("float", "byte", "bit", "bfloat16"), "element_type is missing"
    )
    _refuse(settings.get("similarity") not in ("cosine", "dot_product", "l2_norm"), "similarity is missing")
    dimensions = settings.get("dimensions")
    _refuse(type(dimensions) is not int or not 0 < dimensions <= 4096, f"dimensions are {dimensions!r}")


def _check_embedding(embedding: Any, settings: dict[str, Any]) -> None:
    if settings["task_type"] == "sparse_embedding":
        _refuse(type(embedding) is not dict, "a sparse embedding is an object")
        for token, weight in embedding.items():
            _refuse(not token or len(token.encode()) > 32_766, f"token {token[:20]!r}")
            _refuse(
                type(weight) not in (int, float) or not 0 < weight < 3.4e38,
                f"weight of {token!r} is {weight!r}",
            )
        return
    _refuse(type(embedding) is not list, "a dense embedding in _inference_fields is an array")
    element = settings["element_type"]
    wanted = settings["dimensions"] // 8 if element == "bit" else settings["dimensions"]
    _refuse(len(embedding) != wanted, f"{len(embedding)} numbers, {wanted} wanted")
    if element in ("byte", "bit"):
        _refuse(any(type(x) is not int or not -128 <= x <= 127 for x in embedding), "not all are bytes")
        return
    _refuse(
        any(type(x) not in (int, float) or not math.isfinite(x) for x in embedding), "not all are numbers"
    )
    _refuse(settings["similarity"] == "cosine" and not any(embedding), "cosine of a zero vector")
    length = sum(x * x for x in embedding)
    _refuse(settings["similarity"] == "dot_product" and abs(length - 1) > 1e-3, f"|v|^2 is {length}")


def _check_chunks(chunks: list[Any], values: list[str], settings: dict[str, Any], source: str) -> None:
    """Offsets run through all values of the source, which one character keeps apart."""
    at, spans = 0, []
    for value in values:
        spans.append((at, at + len(units(value)), is_blank(value)))
        at += len(units(value)) + 1
    joined = units("\n".join(values))
    seen: dict[int, int] = {}
    for chunk in chunks:
        _refuse(
            chunk.keys() != {"start_offset", "end_offset", "embeddings"}, f"keys of a chunk: {sorted(chunk)}"
        )
        start, end = chunk["start_offset"], chunk["end_offset"]
        _refuse(type(start) is not int or type(end) is not int, "offsets are integers")
        inside = [
            n for n, (first, last, blank) in enumerate(spans) if first <= start < end <= last and not blank
        ]
        _refuse(len(inside) != 1, f"[{start}, {end}) of [{source}] is in no single value of {spans}")
        for edge in (start, end):
            cut = 0 < edge < len(joined) and joined[edge - 1] >> 10 == 0x36 and joined[edge] >> 10 == 0x37
            _refuse(cut, f"offset {edge} of [{source}] stands between the halves of one character")
        seen.setdefault(inside[0], start)
        counted = [c for c in chunks if spans[inside[0]][0] <= c["start_offset"] < spans[inside[0]][1]]
        _refuse(len(counted) > MAX_CHUNKS, f"{len(counted)} chunks of one value")
        _check_embedding(chunk["embeddings"], settings)
    starts = [chunk["start_offset"] for chunk in chunks]
    _refuse(starts != sorted(starts), f"chunks of [{source}] are out of order")
    for number, (first, _, blank) in enumerate(spans):
        _refuse(
            not blank and seen.get(number) != first,
            f"value {number} of [{source}] is not chunked from its start",
        )


def check_document(document: dict[str, Any], mapping: dict[str, Any]) -> int:
    """Check one document of the current storage form; returns its number of chunks.

    Raises:
        Refused: with the reason.
    """
    _refuse("_id" in document, "_id may not stand inside a document")
    known = dict(fields_of_type(mapping, "semantic_text"))
    written = document.get("_inference_fields", {})
    _refuse("_inference_fields" in document and not written, "an empty _inference_fields")
    _refuse(not written.keys() <= known.keys(), f"not semantic_text fields: {written.keys() - known.keys()}")
    total = 0
    for name, definition in known.items():
        sources = {source: texts_at(document, place) for source, place in _sources(mapping, name).items()}
        wanted = {source: texts for source, texts in sources.items() if not all(map(is_blank, texts))}
        if not wanted:
            _refuse(name in written, f"[{name}] has a result and no text")
            continue
        _refuse(name not in written, f"[{name}] has text and no result")
        _refuse(written[name].keys() != {"inference"}, f"keys of [{name}]: {sorted(written[name])}")
        total += _check_result(written[name]["inference"], definition, wanted)
    _refuse(total > MAX_NESTED, f"{total} chunks in one document")
    return total


def _check_result(result: dict[str, Any], definition: dict[str, Any], wanted: dict[str, list[str]]) -> int:
    allowed = {"inference_id", "model_settings", "chunking_settings", "index_options", "chunks"}
    _refuse(not result.keys() <= allowed, f"unknown keys: {result.keys() - allowed}")
    _refuse(result.get("inference_id") != definition["inference_id"], "inference_id is not the mapping's")
    settings = result.get("model_settings")
    _refuse(settings is None, "[model_settings] must be set when chunks are provided")
    _check_settings(settings)
    mapped = definition.get("model_settings")
    same = ("task_type", "dimensions", "similarity", "element_type")
    _refuse(
        mapped and any(settings.get(key) != mapped.get(key) for key in same), "incompatible model settings"
    )
    chunks = result["chunks"]
    _refuse(chunks.keys() != wanted.keys(), f"chunks of {sorted(chunks)}, text in {sorted(wanted)}")
    for source, texts in wanted.items():
        _refuse(not chunks[source], f"no chunk of [{source}]")
        _check_chunks(chunks[source], texts, settings, source)
    return sum(map(len, chunks.values()))


def fields_of_type(mapping: dict[str, Any], wanted: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, definition, _ in fields_of(mapping["properties"]):
        if definition.get("type") == wanted:
            yield name, definition


def check_bulk(lines: Iterable[bytes], mapping: dict[str, Any]) -> tuple[int, int]:
    """Check the lines of `_bulk` bodies: documents to index and to delete; returns how many documents and chunks.

    Raises:
        Refused: with the document and the reason.
    """
    documents = chunks = 0
    ids = set()
    rest = iter(lines)
    for line in rest:
        action = strict_json(line)
        _refuse(len(action) != 1 or not action.keys() <= {"index", "delete"}, f"action {line[:80]!r}")
        ((verb, target),) = action.items()
        _refuse(target.keys() != {"_id"} or not isinstance(target["_id"], str), f"target {target}")
        id_ = target["_id"]
        _refuse(not 0 < len(id_.encode()) <= 512, f"_id {id_!r} has {len(id_.encode())} bytes")
        _refuse(id_ in ids, f"_id {id_!r} occurs twice")
        ids.add(id_)
        if verb == "index":
            try:
                chunks += check_document(strict_json(next(rest)), mapping)
            except Refused as refused:
                raise Refused(f"{id_}: {refused}") from None
            documents += 1
    return documents, chunks


def check_legacy(document: dict[str, Any], mapping: dict[str, Any]) -> int:
    """Check one document of the storage form before 8.18, in which the result stands inside the field."""
    total = 0
    for name, definition in fields_of_type(mapping, "semantic_text"):
        for value in values_at(document, name):
            if not isinstance(value, dict):
                continue
            _refuse(not value.keys() <= {"text", "inference"}, f"keys of [{name}]: {sorted(value)}")
            result = value["inference"]
            _refuse(
                not result.keys() <= {"inference_id", "model_settings", "chunking_settings", "chunks"},
                f"{result.keys()}",
            )
            _refuse(result["inference_id"] != definition["inference_id"], "inference_id is not the mapping's")
            _check_settings(result["model_settings"])
            for chunk in result["chunks"]:
                _refuse(chunk.keys() != {"text", "embeddings"} or not chunk["text"], f"chunk {sorted(chunk)}")
                _check_embedding(chunk["embeddings"], result["model_settings"])
            total += len(result["chunks"])
    return total


def check_own_chunks(document: dict[str, Any], mapping: dict[str, Any]) -> int:
    """Check one document of the proposed form for own chunks: no gap, no overlap, one text a field."""
    total = 0
    for name, definition in fields_of_type(mapping, "semantic_text"):
        for value in values_at(document, name):
            if not isinstance(value, dict):
                continue
            _refuse(
                value.keys() != {"text", "chunks"} or is_blank(value["text"]),
                f"keys of [{name}]: {sorted(value)}",
            )
            at = 0
            for chunk in value["chunks"]:
                start, end = chunk["start_offset"], chunk["end_offset"]
                _refuse(start < at, f"Chunk [{start}, {end}) overlaps with existing chunk")
                _refuse(start > at, f"Gap detected before {start}")
                _refuse(end <= start, "an empty chunk")
                settings = definition["model_settings"]
                wrong = (
                    settings["task_type"] == "text_embedding"
                    and len(chunk["embeddings"]) != settings["dimensions"]
                )
                _refuse(wrong, f"Expected {settings.get('dimensions')} dimensions for field [{name}]")
                _check_embedding(chunk["embeddings"], settings)
                at = end
            _refuse(at != len(units(value["text"])), "the last chunk does not reach the end")
            total += len(value["chunks"])
    return total
