"""The command `chunk`: JSON lines to chunks, or the chunks of one text shown in the terminal."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.app import app
from pipeline.commands.arguments import registry_of
from pipeline.config.defaults import DEFAULT_ENDPOINTS
from pipeline.errors import ConfigError, PipelineError
from pipeline.terminal.text import number_of, printable

if TYPE_CHECKING:
    from rich.text import Text

    from models.chunking_settings import ChunkingSettings
    from models.model import Model
    from transforms.chunk.strategies import TextChunk

_STDIN = "-"


@app.command(
    epilog='Example: echo \'{"id": "1", "text": "One. Two.", "chunking_settings": {"strategy": "none"}}\''
    " | semantic-ingest chunk"
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
        str | None, typer.Option(help="Folder of user-defined endpoints.", show_default=DEFAULT_ENDPOINTS)
    ] = None,
) -> None:
    """Chunk JSON lines from stdin, or show the chunks of a file."""
    from transforms.chunk.json_lines import chunk_lines

    chosen, model = _settings_and_model(settings, endpoint, endpoints)
    try:
        if file is None:
            count_tokens = model.count_tokens if model else None
            if refused := chunk_lines(sys.stdin.buffer, sys.stdout.buffer, chosen, count_tokens):
                raise PipelineError(
                    "one line was refused; its answer says why"
                    if refused == 1
                    else f"{refused:,} lines were refused; their answers say why"
                )
        else:
            _show(_read_text(file), chosen, model)
    except BrokenPipeError:
        # Whoever read the output has seen enough; nothing may try to write the rest on the way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _settings_and_model(
    settings: str | None, endpoint: str | None, folder: str | None
) -> "tuple[ChunkingSettings, Model | None]":
    """What holds for a text that brings no settings: its settings, and the model that counts its tokens."""
    from models.chunking_settings import DEFAULT
    from models.open_model import open_model

    chosen = None if settings is None else _parse_settings(settings)
    if endpoint is None:
        return chosen or DEFAULT, None
    registry, _ = registry_of(folder)
    definition = registry.get(endpoint)
    return chosen or definition.chunking_settings, open_model(definition)


def _parse_settings(settings: str) -> "ChunkingSettings":
    from models.chunking_settings import parse_chunking_settings
    from models.errors import InferenceError, ValidationError
    from models.json_text import parse_json

    try:
        return parse_chunking_settings(parse_json(settings))
    except ValueError as error:
        example = '{"strategy": "sentence", "max_chunk_size": 100}'
        raise ConfigError("--settings", [f"not JSON ({error}); an example: {example}"]) from None
    except ValidationError as error:
        raise ConfigError("--settings", error.problems) from None
    except InferenceError as error:
        raise ConfigError("--settings", [error.reason]) from None


def _read_text(file: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == _STDIN else Path(file).read_bytes()
        return data.decode()
    except UnicodeDecodeError as error:
        raise PipelineError(f"{file} is not UTF-8 text: {error}") from None
    except OSError as error:
        raise PipelineError(f"{file} cannot be read: {error.strerror}") from None


def _show(text: str, settings: "ChunkingSettings", model: "Model | None") -> None:
    """Print the chunks of a text, what they repeat, and where the model would stop reading."""
    from rich.console import Console

    from transforms.chunk.strategies import chunk_text

    chunks = chunk_text(text, settings, model.count_tokens if model else None)
    tokens: Sequence[int | None] = [None] * len(chunks)
    if model is not None:
        tokens = model.count_tokens([each.text for each in chunks]).tolist()
    shown_settings = json.dumps(settings.to_json(), ensure_ascii=False)
    console = Console(highlight=False)
    console.print(f"{number_of(len(chunks), 'chunk')}, {shown_settings}", style="bold", markup=False)
    previous_end = 0
    for number, (each, count) in enumerate(zip(chunks, tokens, strict=True), 1):
        for part in _view(each, f"{number}/{len(chunks)}", previous_end, count, model):
            console.print(part, soft_wrap=True)
        previous_end = each.end_offset


def _view(
    each: "TextChunk", number: str, previous_end: int, tokens: int | None, model: "Model | None"
) -> Iterator["Text"]:
    """Build the heading and the text of one chunk."""
    from rich.text import Text

    from models.text import Utf16Text
    from transforms.chunk.boundaries import count_words

    # Offsets count UTF-16 units, Python's strings count characters.
    repeated = Utf16Text(each.text).position(max(0, previous_end - each.start_offset))
    offsets, words = f"[{each.start_offset}, {each.end_offset})", count_words(each.text)
    facts = [f"chunk {number}", offsets, f"{words} words"]
    if repeated:
        facts.append(f"repeats {count_words(each.text[:repeated])} words")
    if tokens is not None:
        facts.append(f"{tokens} tokens")
    body = Text(printable(each.text))
    body.stylize("cyan", 0, repeated)
    style = "bold green"
    window = model.max_tokens if model else None
    if model is not None and tokens is not None and window is not None and tokens > window:
        style = "bold red"
        facts.append(f"TRUNCATED at {window} tokens")
        cut = _truncation(each.text, window, model)
        body.stylize("red strike", cut)
        body = Text.assemble(body[:cut], ("✂", "bold red"), body[cut:])
    yield Text(f"── {' · '.join(facts)} ──", style=style)
    yield body


def _truncation(text: str, window: int, model: "Model") -> int:
    """Find the longest beginning of a text that fits the model's window, by halving."""
    fits, exceeds = 0, len(text)
    while exceeds - fits > 1:
        middle = (fits + exceeds) // 2
        if int(model.count_tokens([text[:middle]])[0]) <= window:
            fits = middle
        else:
            exceeds = middle
    return fits
