"""JSON lines in, their chunks as JSON lines out: the chunker for other programs."""

import json
from typing import IO, Any

import orjson

from models.chunking_settings import DEFAULT, ChunkingSettings, parse_chunking_settings
from models.json_text import parse_json
from transforms.chunk.strategies import TextChunk, chunk_text
from transforms.chunk.token_strategies import CountTokens


def chunk_lines(
    lines: IO[bytes],
    out: IO[bytes],
    settings: ChunkingSettings = DEFAULT,
    count_tokens: CountTokens | None = None,
) -> int:
    """Answer each JSON line with one JSON line, in order; blank lines are passed over.

    Args:
        lines: ``{"id", "text", "chunking_settings"}`` a line.
        out: receives ``{"id", "chunks": [{"start_offset", "end_offset", "text"}]}`` or ``{"id", "error"}``.
        settings: what holds where a line has no `chunking_settings`; a null there means what it means to
            Elasticsearch (word 250/100), as does ``{}`` (sentence 250/1).
        count_tokens: counts tokens, for settings whose size unit they are.

    Returns:
        How many lines were refused.
    """
    refused = 0
    for number, line in enumerate(lines, 1):
        if line.strip():
            answer, is_chunked = _answer(line, number, settings, count_tokens)
            refused += not is_chunked
            out.write(answer)
            out.flush()
    return refused


def _answer(
    line: bytes, number: int, settings: ChunkingSettings, count_tokens: CountTokens | None
) -> tuple[bytes, bool]:
    """Chunk one line, and say whether that went well; whatever is wrong with it becomes its answer."""
    document_id: Any = None
    try:
        document = _parse_line(line, number)
        document_id = document.get("id")
        chunks = chunk_text(_text(document), _settings(document, settings), count_tokens)
    except Exception as error:
        return _json_line({"id": document_id, "error": str(error) or type(error).__name__}), False
    keys = TextChunk._fields
    found = [dict(zip(keys, each, strict=True)) for each in chunks]
    return _json_line({"id": document_id, "chunks": found}), True


def _parse_line(line: bytes, number: int) -> dict[str, Any]:
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError:
        # The standard library also takes surrogates that stand alone, as some exports have them.
        try:
            document = parse_json(line)
        except ValueError as error:
            raise ValueError(f"line {number} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ValueError(f"line {number} is not a JSON object with the keys id, text and chunking_settings")
    return document


def _text(document: dict[str, Any]) -> str:
    text = document.get("text")
    if not isinstance(text, str):
        kind = "missing" if text is None else f"a {type(text).__name__}, not a string"
        raise ValueError(f"[text] is {kind}")
    return text


def _settings(document: dict[str, Any], otherwise: ChunkingSettings) -> ChunkingSettings:
    if "chunking_settings" not in document:
        return otherwise
    return parse_chunking_settings(document["chunking_settings"])


def _json_line(answer: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        return json.dumps(answer).encode() + b"\n"
