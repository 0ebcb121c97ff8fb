"""What the commands read from files and standard input, and how they answer in Elasticsearch's JSON."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from models.errors import InferenceError, bad_request


def split_target(target: str) -> tuple[str | None, str]:
    """Split ``TASK/ID``; an id has no slash."""
    task_type, slash, inference_id = target.removeprefix("_inference/").partition("/")
    return (task_type, inference_id) if slash else (None, target)


def read_json(file: str | None) -> Any:
    """Read a request body from a file, or from standard input."""
    try:
        return json.loads(_read_text(file, "the request body is missing; name it with --file, or pipe it in"))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        problem = f"the request body is not JSON: {error.msg} at {place}"
    bad_request(problem, "x_content_parse_exception")


def read_lines(file: str | None) -> list[str]:
    """Texts, one a line. Only line feeds end a line; a text may hold other separators."""
    lines = _read_text(file, "Field [input] cannot be null").split("\n")
    texts = [line.removesuffix("\r") for line in lines]
    return texts[:-1] if texts[-1] == "" else texts


def _read_text(file: str | None, nothing: str) -> str:
    if file in (None, "-"):
        if sys.stdin is None or sys.stdin.isatty():
            bad_request(nothing, "action_request_validation_exception")
        return sys.stdin.buffer.read().decode("utf-8", "replace").removeprefix("\ufeff")
    try:
        return Path(str(file)).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        problem = f"[{file}] is not UTF-8 text"
    except OSError as error:
        problem = f"[{file}] cannot be read: {error.strerror}"
    bad_request(problem, "illegal_argument_exception")


def print_json(body: Any) -> None:
    """Print a body as Elasticsearch answers it."""
    sys.stdout.write(json.dumps(body, indent=2, ensure_ascii=False) + "\n")


def guard(command: Callable[[], None]) -> None:
    """Run a command; print the error body that Elasticsearch would answer, and exit with 1, when it fails."""
    try:
        command()
        return
    except InferenceError as error:
        failure = error
    _fail(failure)


def _fail(error: InferenceError) -> NoReturn:
    print_json(error.to_json())
    print(f"error: {error.reason}", file=sys.stderr)
    raise SystemExit(1)
