"""The title of a Markdown text: what its front matter says, else its first heading."""

import re
from functools import cache
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

_FRONT_MATTER = re.compile(
    r"\A---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE
)
_TITLE_LINE = re.compile(r"^title[ \t]*:.*(?:\n[ \t]+\S.*)*", re.MULTILINE | re.IGNORECASE)
_HEAD = 256 * 1024
"""A title stands in so many characters from the beginning, or the text has none."""


def markdown_title(text: str) -> str | None:
    """The title, without markup; None where there is none.

    What a code block or a comment holds is no heading, whatever its lines begin with.
    """
    head = text[:_HEAD]
    matter = _FRONT_MATTER.match(head)
    if matter is not None:
        found = _front_matter_title(matter[1])
        if found:
            return found
        head = head[matter.end() :]
    tokens = _markdown().parse(head)
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            parts = tokens[at + 1].children or []
            words = "".join(
                part.content if part.content else " " for part in parts if part.type != "html_inline"
            )
            if words.strip():
                return " ".join(words.split())
    return None


@cache
def _markdown() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark")


def _front_matter_title(matter: str) -> str | None:
    """Front matter is YAML as people write it, so the line of the title is read alone where the whole is none."""
    line = _TITLE_LINE.search(matter)
    if line is None:
        return None
    try:
        value = next(iter(yaml.safe_load(line[0]).values()))
    except (yaml.YAMLError, AttributeError, RecursionError):
        value = line[0].partition(":")[2]
    return str(value).strip() or None if isinstance(value, str | int | float) else None
