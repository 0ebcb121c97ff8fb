"""The part of JSONPath that Elasticsearch's `custom` service knows: ``$.a.b[*].c``.

A step is a field of an object, ``[*]`` (every element of an array, or every value of an object) or ``[2]``.
Each ``[*]`` makes one level of lists, so that ``$.data[*].embedding[*]`` is a list of vectors.
"""

import re
from typing import Any

_STEP = re.compile(r"\.([^.\[\]]+)|\[(\*|\d+)\]|\['([^']+)'\]")


def parse_path(path: str) -> list[str | int]:
    """Split a path into its steps: a field's name, a position, or ``"[*]"``.

    Raises:
        ValueError: it is no path of this form; the message says where.
    """
    if not path.startswith("$"):
        raise ValueError(f"Path [{path}] must start with a dollar sign ($)")
    steps: list[str | int] = []
    position = 1
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None:
            raise ValueError(
                f"Path [{path}] cannot be read from [{path[position:]}]; a step is .name, [*], [0] or"
                " ['name']"
            )
        field, index, quoted = match.groups()
        steps.append(field or quoted or ("[*]" if index == "*" else int(index)))
        position = match.end()
    return steps


def extract(path: str, document: Any) -> Any:
    """Return what `path` points to.

    Raises:
        ValueError: a step does not fit the document; the message names it.
    """
    return _walk(document, parse_path(path), path)


def _walk(node: Any, steps: list[str | int], path: str) -> Any:
    for number, step in enumerate(steps):
        if step == "[*]":
            values = list(node.values()) if isinstance(node, dict) else node
            if not isinstance(values, list):
                raise ValueError(f"Path [{path}]: [*] needs a list or an object, found {type(node).__name__}")
            return [_walk(value, steps[number + 1 :], path) for value in values]
        if isinstance(step, int):
            if not isinstance(node, list) or step >= len(node):
                raise ValueError(f"Path [{path}]: there is no element [{step}]")
        elif not isinstance(node, dict) or step not in node:
            raise ValueError(f"Path [{path}]: there is no field [{step}]")
        node = node[step]
    return node
