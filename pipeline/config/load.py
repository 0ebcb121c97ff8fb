"""From a YAML file and its overrides to a run config, or to every problem in it with its line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from pipeline.config.run_config import RunConfig, Section
from pipeline.config.yaml_text import parse_yaml
from pipeline.errors import ConfigError, did_you_mean


def load_config(path: str, overrides: list[str] | None = None) -> RunConfig:
    """Read and validate a run config.

    Args:
        path: the YAML file.
        overrides: ``key.path=value`` settings that replace values of the file; values are YAML.

    Raises:
        ConfigError: with every problem, its place in the file and the fix.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError) as error:
        what = "is a folder" if isinstance(error, IsADirectoryError) else "does not exist"
        raise ConfigError(
            path,
            [f"{what}; a run config is wanted here, and `semantic-ingest init PATH` makes one for documents"],
        ) from None
    except OSError as error:
        raise ConfigError(path, [f"cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ConfigError(
            path, [f"is not UTF-8: byte {byte:#04x} at {error.start}; save it as UTF-8"]
        ) from None
    try:
        tree, values = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(path, [str(error)]) from None
    twice = list(_keys_given_twice(tree))
    if twice:
        raise ConfigError(path, twice)
    if not isinstance(values, dict):
        raise ConfigError(path, ["must be a mapping with the keys source, mappings, table and failures"])
    for override in overrides or []:
        _override(values, override)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        overridden = tuple(override.partition("=")[0] for override in overrides or [])
        raise ConfigError(path, [_problem(tree, detail, overridden) for detail in error.errors()]) from None


def _keys_given_twice(node: yaml.Node | None, prefix: str = "") -> Iterator[str]:
    """A problem for each key that stands twice in its section; YAML's parser would silently take the last one."""
    if isinstance(node, yaml.SequenceNode):
        for member in node.value:
            yield from _keys_given_twice(member, prefix)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = f"{prefix}{key.value}", key.start_mark.line + 1
            if key.value in lines:
                yield f"line {line}: {name}: is given twice, first in line {lines[key.value]}; remove one of them"
            lines.setdefault(key.value, line)
            yield from _keys_given_twice(value, f"{name}.")


def _override(values: dict[str, Any], override: str) -> None:
    """Set one ``key.path=value`` in place."""
    key, equals, raw = override.partition("=")
    if not equals or not key:
        raise ConfigError("--set", [f"[{override}] is not of the form key.path=value"])
    *parents, last = key.split(".")
    for name in parents:
        if values.get(name) is None:
            values[name] = {}
        values = values[name]
        if not isinstance(values, dict):
            raise ConfigError("--set", [f"[{override}]: [{name}] holds a value, not a section"])
    try:
        values[last] = parse_yaml(raw)[1]
    except ValueError as error:
        raise ConfigError("--set", [f"[{override}] {error}"]) from None


def _problem(tree: yaml.Node | None, detail: Any, overridden: tuple[str, ...]) -> str:
    """One pydantic error as a sentence: line, or ``--set``, key, what is wrong."""
    location = [str(step) for step in detail["loc"]]
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        known = _keys(location[:-1])
        message = f"unknown key{did_you_mean(location[-1], known)}"
        message += f"; known are {', '.join(known)}" if known else "; see docs/config.md"
    elif detail["type"] == "missing":
        message = "is required"
    else:
        message = f"{message} (got {detail['input']!r:.80})" if detail["type"] != "value_error" else message
    place = ".".join(location) or "config"
    line = _line(tree, location)
    inside = any(f"{place}.".startswith(f"{key}.") for key in overridden)
    above = not line and any(key.startswith(f"{place}.") for key in overridden)
    if inside or above:
        return f"--set {place}: {message}"
    return f"line {line}: {place}: {message}" if line else f"{place}: {message}"


def _keys(location: list[str]) -> list[str]:
    """The keys of a section of the config; none for what is no section."""
    section: Any = RunConfig
    for step in location:
        field = section.model_fields.get(step)
        kinds = () if field is None else (field.annotation, *get_args(field.annotation))
        section = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)
        if section is None:
            return []
    return list(section.model_fields)


def _line(node: yaml.Node | None, location: list[str]) -> int:
    """Line of the deepest key of `location` that the file holds; 0 when it holds none of it."""
    line = 0
    for step in location:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == step]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and step.isdigit() and int(step) < len(node.value):
            node = node.value[int(step)]
            line = node.start_mark.line + 1
        else:
            break
    return line
