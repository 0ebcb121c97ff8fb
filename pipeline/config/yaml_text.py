"""YAML that people bring: bounded in depth and in what its aliases stand for, and wrong YAML a sentence."""

from typing import Any

import yaml

from models.json_text import MAX_DEPTH

MAX_CHARACTERS = 4_000_000
MAX_NODES = 200_000
"""Keys and values of a text, each alias counted as all that it stands for."""


def parse_yaml(text: str) -> tuple[yaml.Node | None, Any]:
    """Parse YAML.

    Returns:
        The tree of nodes, which know their lines, and the values.

    Raises:
        ValueError: it is no YAML, a value is none of its type, or it is too deep or too large.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read")
    try:
        _check_events(text)
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        _check_size(tree)
        return tree, yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"is not valid YAML: {' '.join(str(error).split())}") from None
    except (OverflowError, RecursionError) as error:
        raise ValueError(f"has a value that cannot be read: {error}") from None
    except ValueError as error:
        if str(error).startswith(("has ", "is ")):
            raise
        # What looks like a date or a number and is none, such as 2026-99-99.
        raise ValueError(
            f"has a value that is none of its type: {error}; put it in quotes if it is a text"
        ) from None


def _check_events(text: str) -> None:
    """Walk the text without recursion, before anything is built of it."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH or count > MAX_NODES:
            what = (
                f"more than {MAX_NODES:,} values" if depth <= MAX_DEPTH else f"more than {MAX_DEPTH} levels"
            )
            raise ValueError(f"has {what}, at line {event.start_mark.line + 1}")


def _check_size(tree: yaml.Node | None) -> None:
    """Count the nodes with every alias written out; `&a [*a]` would have no end."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node | None) -> int:
        if node is None or isinstance(node, yaml.ScalarNode):
            return 1
        if id(node) not in sizes:
            sizes[id(node)] = MAX_NODES + 1  # what it counts for inside itself
            inner = (one for pair in node.value for one in (pair if isinstance(pair, tuple) else (pair,)))
            sizes[id(node)] = 1 + sum(map(size, inner))
        return sizes[id(node)]

    if size(tree) > MAX_NODES:
        raise ValueError(f"has aliases that stand for more than {MAX_NODES:,} values")
