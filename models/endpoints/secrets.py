"""Secrets are references, ``env:NAME`` or ``file:PATH``, everywhere but in the one call that uses them.

A definition that arrives with a literal secret is split: the literal goes to a file that only its owner can
read, the definition keeps a reference to it. References are resolved on the worker when a model is opened;
the values live in `Secrets`, which shows them to nobody and cannot be pickled.
"""

import json
import os
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from models.endpoints.services import Setting
from models.errors import InferenceError

FOLDER = ".secrets"
_REFERENCE = re.compile(r"(env|file):(.+)", re.DOTALL)
_CREDENTIAL_HEADER = re.compile(r"auth|key|token|secret|cookie|password|credential", re.IGNORECASE)
_CREDENTIAL_VALUE = re.compile(r"\s*(bearer|basic|apikey|token)\s+", re.IGNORECASE)


class Secrets(Mapping[str, str]):
    """Resolved secrets of one endpoint by path, for example ``api_key`` or ``secret_parameters.token``."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Secrets({', '.join(sorted(self._values))})"

    def __reduce__(self) -> Any:
        raise TypeError("secrets do not travel: pickle the endpoint and resolve its references on the worker")

    def including(self, headers: Mapping[str, str]) -> "Secrets":
        """These secrets and the credentials in a request's headers, such as a token that was fetched."""
        sent = {
            f"header {name}": value
            for name, value in headers.items()
            if _CREDENTIAL_HEADER.search(name) or _CREDENTIAL_VALUE.match(value)
        }
        return Secrets({**self._values, **sent}) if sent else self

    def redact(self, text: str) -> str:
        """Return `text` with every secret replaced, also as JSON, a URL, base64 or hex would write it or over lines."""
        forms = {
            form for value in self._values.values() for part in _parts_of(value) for form in _written(part)
        }
        for form in sorted(forms - {""}, key=len, reverse=True):
            text = re.sub(_BREAK.join(map(re.escape, form)), "[redacted]", text)
        return text


_BREAK = r"(?:\s|\\[nrt]){0,24}"  # what an echo may put between two characters of a secret
_ENCODED = 8  # shorter values are too common inside base64 and hex to be told from chance


def _parts_of(value: str) -> set[str]:
    """A secret, the credential behind a header's scheme, and the strings of a secret that is JSON."""
    parts = {value, value.strip(), _CREDENTIAL_VALUE.sub("", value, 1)}
    if value.lstrip().startswith("{"):
        with suppress(ValueError, RecursionError):
            fields = json.loads(value)
            parts |= {text for text in fields.values() if isinstance(text, str) and len(text) > 3 * _ENCODED}
    return parts


def _written(value: str) -> set[str]:
    """The ways to write a secret that services answer with."""
    forms = {value, json.dumps(value)[1:-1], quote(value, safe=""), quote_plus(value)}
    data = value.encode()
    if len(data) < _ENCODED:
        return forms
    for before in range(3):
        # Inside a longer text, base64 has three ways to write it; what its neighbours share is left out.
        code = b64encode(bytes(before) + data).decode()
        inner = code[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        forms |= {inner, inner.replace("+", "-").replace("/", "_")}
    return forms | {data.hex(), data.hex().upper()}


def is_reference(value: str) -> bool:
    """Whether `value` names a secret instead of being one."""
    return _REFERENCE.fullmatch(value) is not None


def secret_paths(settings: Mapping[str, Any], known: Mapping[str, Setting]) -> dict[str, str]:
    """Find the secrets of one settings object.

    Args:
        settings: ``service_settings`` or ``task_settings``.
        known: what the service knows about them.

    Returns:
        Path -> value or reference; the path of a nested secret is ``setting.key``.
    """
    found: dict[str, str] = {}
    for name, setting in known.items():
        value = settings.get(name)
        if setting.kind == "secret" and isinstance(value, str) and value:
            found[name] = value
        elif setting.kind in ("secrets", "headers") and isinstance(value, Mapping):
            for key, inner in value.items():
                if (
                    isinstance(inner, str)
                    and inner
                    and (setting.kind == "secrets" or _carries_secret(key, inner))
                ):
                    found[f"{name}.{key}"] = inner
    return found


def _carries_secret(header: str, value: str) -> bool:
    """A header with credentials, unless it is a template whose parts are secrets on their own."""
    if "${" in value:
        return False
    return (
        is_reference(value)
        or _CREDENTIAL_HEADER.search(header) is not None
        or _CREDENTIAL_VALUE.match(value) is not None
    )


def split(
    inference_id: str, settings: Mapping[str, Any], known: Mapping[str, Setting], prefix: str = ""
) -> tuple[dict[str, Any], dict[str, str]]:
    """Replace every literal secret of `settings` by a reference.

    Args:
        inference_id: the endpoint, which names the files.
        settings: ``service_settings`` or ``task_settings``; not changed.
        known: what the service knows about them.
        prefix: start of the files' names after the id, which keeps the two settings objects apart.

    Returns:
        The settings with references, and the literals: path of the file below the definitions' folder ->
        secret.
    """
    settings = {key: dict(value) if isinstance(value, Mapping) else value for key, value in settings.items()}
    literals: dict[str, str] = {}
    for path, value in secret_paths(settings, known).items():
        if is_reference(value):
            continue
        file = f"{FOLDER}/{inference_id}.{prefix}{re.sub(r'[^A-Za-z0-9_.-]', '_', path)}"
        literals[file] = value
        name, _, key = path.partition(".")
        if key:
            settings[name][key] = f"file:{file}"
        else:
            settings[name] = f"file:{file}"
    return settings, literals


def resolve(references: Mapping[str, str], folder: str | None) -> Secrets:
    """Look the secrets up.

    Args:
        references: path -> reference, as `secret_paths` finds them.
        folder: what the path of a ``file:`` reference is relative to.

    Raises:
        InferenceError: a variable is not set, or a file cannot be read; the message names it.
    """
    values = {}
    for path, reference in references.items():
        problem = unresolved(path, reference, folder)
        if problem:
            raise InferenceError(problem, status=400, type="illegal_argument_exception")
        kind, name = _parts(reference)
        values[path] = os.environ[name] if kind == "env" else _locate(name, folder).read_text("utf-8").strip()
    return Secrets(values)


def unresolved(path: str, reference: str, folder: str | None) -> str | None:
    """Say why a reference cannot be resolved on this machine, or None when it can."""
    if not is_reference(reference):
        return (
            f"[{path}] holds a literal secret; write env:NAME or file:PATH, or use `semantic-ingest endpoints put`,"
            " which moves it"
        )
    kind, name = _parts(reference)
    if kind == "env":
        if not os.environ.get(name):
            return (
                f"[{path}] is env:{name}, but the environment variable {name} is not set; export it and"
                " try again"
            )
        return None
    file = _locate(name, folder)
    if not os.access(file, os.R_OK) or not file.is_file():
        return f"[{path}] is file:{name}, but {file} cannot be read; create it or correct the path"
    return None if file.read_text("utf-8").strip() else f"[{path}] is file:{name}, but {file} is empty"


def _parts(reference: str) -> tuple[str, str]:
    kind, _, name = reference.partition(":")
    return kind, name


def _locate(name: str, folder: str | None) -> Path:
    return Path(folder or ".") / Path(name).expanduser()
