"""The command ``chunk``: JSON lines to chunks, or the chunks of one text shown in the terminal."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import orjson
import typer

from models.chunking_settings import DEFAULT, ChunkingSettings, parse_chunking_settings
from models.errors import InferenceError, ValidationError
from pipeline.commands.app import app
from pipeline.errors import ConfigError, PipelineError
from transforms.chunk.boundaries import count_words
from transforms.chunk.strategies import TextChunk, chunk_text

if TYPE_CHECKING:
    from rich.text import Text

    from models.model import Model


_STDIN = "-"


@dataclass(frozen=True)
class _Defaults:
    """What holds for a text that brings no settings of its own.

    Attributes:
        settings: its chunking settings.
        model: the model of the endpoint that was named; it counts tokens and has a window.
    """

    settings: ChunkingSettings
    model: "Model | None" = None


def chunk_texts(
    file: str | None = None,
    *,
    settings: str | None = None,
    endpoint: str | None = None,
    endpoints_path: str = "run_configs/endpoints",
) -> None:
    """Chunk JSON lines from stdin to stdout, or show the chunks of a text file.

    Args:
        file: a text file to show, ``-`` for stdin; None reads JSON lines ``{"id", "text", "chunking_settings"}``.
        settings: `chunking_settings` as JSON, for texts that bring none.
        endpoint: id of an endpoint; its settings hold where none are given, its tokenizer counts.
        endpoints_path: folder of user-defined endpoints.

    Raises:
        ConfigError: `settings` cannot be used.
        PipelineError: the file cannot be read.
        InferenceError: the endpoint does not exist.
    """
    defaults = _defaults(settings, endpoint, endpoints_path)
    try:
        if file is None:
            chunk_lines(sys.stdin.buffer, sys.stdout.buffer, defaults)
        else:
            _show(_read_text(file), defaults)
    except BrokenPipeError:
        # Whoever read the output has seen enough; nothing may try to write the rest on the way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def chunk_lines(lines: IO[bytes], out: IO[bytes], defaults: _Defaults | None = None) -> None:
    """Answer each JSON line with one JSON line, in order; blank lines are passed over.

    Args:
        lines: ``{"id", "text", "chunking_settings"}`` a line.
        out: receives ``{"id", "chunks": [{"start_offset", "end_offset", "text"}]}`` or ``{"id", "error"}``.
        defaults: what holds where a line has no `chunking_settings`; a null there means what it means to
            Elasticsearch (word 250/100), as does ``{}`` (sentence 250/1).
    """
    for number, line in enumerate(lines, 1):
        if line.strip():
            out.write(_answer(line, number, defaults or _Defaults(DEFAULT)))
            out.flush()


def _defaults(settings: str | None, endpoint: str | None, endpoints_path: str) -> _Defaults:
    chosen = None if settings is None else _parse_settings(settings)
    if endpoint is None:
        return _Defaults(chosen or DEFAULT)
    from models.endpoints.registry import Registry
    from models.open_model import open_model

    definition = Registry(endpoints_path).get(endpoint)
    return _Defaults(chosen or definition.chunking_settings, open_model(definition))


def _parse_settings(settings: str) -> ChunkingSettings:
    try:
        return parse_chunking_settings(json.loads(settings))
    except ValueError as error:
        example = '{"strategy": "sentence", "max_chunk_size": 100}'
        raise ConfigError("--settings", [f"not JSON ({error}); an example: {example}"]) from None
    except ValidationError as error:
        raise ConfigError("--settings", error.problems) from None
    except InferenceError as error:
        raise ConfigError("--settings", [error.reason]) from None


def _answer(line: bytes, number: int, defaults: _Defaults) -> bytes:
    """Chunk one line; whatever is wrong with it becomes its answer."""
    document_id: Any = None
    try:
        document = _parse_line(line, number)
        document_id = document.get("id")
        chunks = _chunk(document, defaults)
    except Exception as error:
        return _json_line({"id": document_id, "error": str(error) or type(error).__name__})
    keys = TextChunk._fields
    return _json_line({"id": document_id, "chunks": [dict(zip(keys, each, strict=True)) for each in chunks]})


def _parse_line(line: bytes, number: int) -> dict[str, Any]:
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError:
        # The standard library also takes surrogates that stand alone, as some exports have them.
        try:
            document = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ValueError(f"line {number} is not a JSON object with the keys id, text and chunking_settings")
    return document


def _chunk(document: dict[str, Any], defaults: _Defaults) -> list[TextChunk]:
    text = document.get("text")
    if not isinstance(text, str):
        kind = "missing" if text is None else f"a {type(text).__name__}, not a string"
        raise ValueError(f"[text] is {kind}")
    settings = defaults.settings
    if "chunking_settings" in document:
        settings = parse_chunking_settings(document["chunking_settings"])
    return chunk_text(text, settings, defaults.model.count_tokens if defaults.model else None)


def _json_line(answer: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        return json.dumps(answer).encode() + b"\n"


def _read_text(file: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == _STDIN else Path(file).read_bytes()
        return data.decode()
    except UnicodeDecodeError as error:
        raise PipelineError(f"{file} is not UTF-8 text: {error}") from None
    except OSError as error:
        raise PipelineError(f"{file} cannot be read: {error.strerror}") from None


def _show(text: str, defaults: _Defaults) -> None:
    """Print the chunks of a text, what they repeat, and where the model would stop reading."""
    from rich.console import Console

    count_tokens = defaults.model.count_tokens if defaults.model else None
    chunks = chunk_text(text, defaults.settings, count_tokens)
    console = Console(highlight=False)
    tokens: Sequence[int | None] = [None] * len(chunks)
    if defaults.model is not None:
        tokens = defaults.model.count_tokens([each.text for each in chunks]).tolist()
    settings = json.dumps(defaults.settings.to_json(), ensure_ascii=False)
    console.print(
        f"{len(chunks)} chunk{'s' if len(chunks) != 1 else ''}, {settings}", style="bold", markup=False
    )
    previous_end = 0
    for number, (each, count) in enumerate(zip(chunks, tokens, strict=True), 1):
        for part in _view(each, number, len(chunks), previous_end, count, defaults.model):
            console.print(part, soft_wrap=True)
        previous_end = each.end_offset


def _view(
    each: TextChunk, number: int, total: int, previous_end: int, tokens: int | None, model: "Model | None"
) -> Iterator["Text"]:
    """Build the heading and the text of one chunk."""
    from rich.text import Text

    from models.text import Utf16Text

    repeated = Utf16Text(each.text).position(max(0, previous_end - each.start_offset))
    facts = [
        f"chunk {number}/{total}",
        f"[{each.start_offset}, {each.end_offset})",
        f"{count_words(each.text)} words",
    ]
    if repeated:
        facts.append(f"repeats {count_words(each.text[:repeated])} words")
    if tokens is not None:
        facts.append(f"{tokens} tokens")
    body = Text(_printable(each.text))
    body.stylize("cyan", 0, repeated)
    window = model.max_tokens if model else None
    if model is not None and tokens is not None and window is not None and tokens > window:
        facts.append(f"TRUNCATED at {window} tokens")
        cut = _truncation(each.text, window, model)
        body.stylize("red strike", cut)
        body = Text.assemble(body[:cut], ("✂", "bold red"), body[cut:])
    yield Text(f"── {' · '.join(facts)} ──", style="bold red" if "TRUNCATED" in facts[-1] else "bold green")
    yield body


def _truncation(text: str, window: int, model: "Model") -> int:
    """Find the longest beginning of a text that fits the model's window."""
    fits, exceeds = 0, len(text)
    while exceeds - fits > 1:
        middle = (fits + exceeds) // 2
        if int(model.count_tokens([text[:middle]])[0]) <= window:
            fits = middle
        else:
            exceeds = middle
    return fits


def _printable(text: str) -> str:
    """Show control characters as symbols, so that no text can steer the terminal; the length stays the same."""
    controls = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
    lone = dict.fromkeys((*range(0x7F, 0xA0), *range(0xD800, 0xE000)), 0xFFFD)
    return text.translate({**controls, **lone})


@app.command(
    epilog='Example: echo \'{"id": "1", "text": "One. Two.", "chunking_settings": {"strategy": "none"}}\''
    " | python -m pipeline chunk"
)
def chunk(
    file: Annotated[
        str | None, typer.Argument(help="A text file to show in the terminal; without it, stdin.")
    ] = None,
    settings: Annotated[str | None, typer.Option(help="chunking_settings as JSON.")] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="Endpoint whose settings, tokenizer and window count.")
    ] = None,
    endpoints: Annotated[
        str, typer.Option(help="Folder of user-defined endpoints.")
    ] = "run_configs/endpoints",
) -> None:
    """Chunk JSON lines from stdin, or show the chunks of one text file."""
    chunk_texts(file, settings=settings, endpoint=endpoint, endpoints_path=endpoints)
