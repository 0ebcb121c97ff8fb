r"""Context headers: what stands before a chunk when it is embedded, made of the document's fields and its headings.

An extension of ours. Offsets and text stay those of the chunk; only the model sees the header. A template names fields
of the document in braces, and ``{section}`` for the headings above the chunk, where the text is Markdown::

    {title} > {section}\n

A name without a value leaves the header together with what stands before it; where none has a value there is no header.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from models.text import Utf16Text
from transforms.field_values import field_values

SECTION = "section"
"""The name in a template that stands for the headings above a chunk."""

MAX_VALUE_CHARACTERS = 200
"""A value is cut there, so that no header fills the window of a model."""

_NAME = re.compile(r"[^{}\s]+")
_LINE_END = re.compile(r"\r\n|\n|\r")
_MAY_HAVE_HEADINGS = re.compile(r"^ {0,3}(?:#|=|-)", re.MULTILINE)


class Slot(NamedTuple):
    """A name of a template, and the text before it."""

    before: str
    name: str


@dataclass(frozen=True)
class ContextTemplate:
    """A parsed template.

    Attributes:
        slots: its names in order.
        tail: the text behind the last one.
    """

    slots: tuple[Slot, ...]
    tail: str

    @classmethod
    @lru_cache
    def parse(cls, template: str) -> "ContextTemplate":
        """Parse a template; ``{{`` and ``}}`` are braces.

        Raises:
            ValueError: a brace is not closed, or there is no name, or something else than a name in one.
        """
        slots: list[Slot] = []
        text = ""
        for piece in re.findall(r"\{\{|\}\}|\{[^{}]*\}|[^{}]+|.", template, re.DOTALL):
            if piece in ("{{", "}}"):
                text += piece[0]
            elif len(piece) > 1 and piece[0] == "{":
                if not _NAME.fullmatch(piece[1:-1]):
                    raise ValueError(f"[{piece}] names no field")
                slots.append(Slot(text, piece[1:-1]))
                text = ""
            elif piece in "{}":
                raise ValueError(f"a brace [{piece}] stands alone; write it twice where a brace is meant")
            else:
                text += piece
        if not slots:
            raise ValueError("names no field in braces, for example {title}")
        return cls(tuple(slots), text)

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that it names."""
        return tuple(slot.name for slot in self.slots if slot.name != SECTION)

    @property
    def has_section(self) -> bool:
        """Whether the headings above a chunk are part of it."""
        return any(slot.name == SECTION for slot in self.slots)

    def fill(self, values: Mapping[str, str]) -> str:
        """The header of some values."""
        header = ""
        for place, slot in enumerate(self.slots):
            value = values.get(slot.name)
            if value:
                header += (slot.before if header or place == 0 else "") + value
        return header + self.tail if header else ""


class Heading(NamedTuple):
    """A heading of a Markdown text: where its line begins in UTF-16 code units, its level from 1, its words."""

    start: int
    level: int
    words: str


class ChunkContexts:
    """The headers of the chunks of one document.

    Args:
        template: the field's template.
        source: the document.
    """

    def __init__(self, template: str, source: Mapping[str, Any]) -> None:
        self._template = ContextTemplate.parse(template)
        self._source = source
        self._values = {
            name: shortened(", ".join(field_values(source, name))) for name in self._template.names
        }
        self._headings: dict[str, list[tuple[int, list[Heading]]]] = {}

    def of(self, source_field: str, start: int) -> str:
        """The header of the chunk that begins at an offset of a source field, as the table counts offsets."""
        if not self._template.has_section:
            return self._template.fill(self._values)
        section = " > ".join(self._above(source_field, start))
        return self._template.fill({**self._values, SECTION: shortened(section)})

    def _above(self, source_field: str, start: int) -> list[str]:
        if source_field not in self._headings:
            self._headings[source_field] = list(_by_value(self._source, source_field))
        base, found = max(
            (one for one in self._headings[source_field] if one[0] <= start), key=lambda one: one[0]
        )
        return headings_above(found, start - base)


def headings_above(headings: Sequence[Heading], start: int) -> list[str]:
    """The words of the headings above an offset, the outermost first; one that begins there is not above it."""
    path: list[Heading] = []
    for heading in headings:
        if heading.start > start:
            break
        while path and path[-1].level >= heading.level:
            path.pop()
        if heading.start < start:
            path.append(heading)
    return [heading.words for heading in path]


def find_headings(text: Utf16Text) -> list[Heading]:
    """The headings of a Markdown text."""
    if not _MAY_HAVE_HEADINGS.search(text.text):
        return []
    from markdown_it import MarkdownIt  # quick commands read configs, and no Markdown

    lines = [0, *(end.end() for end in _LINE_END.finditer(text.text))]
    return [
        Heading(text.offset(lines[token.map[0]]), int(token.tag[1]), " ".join(inline.content.split()))
        for token, inline in pairwise(MarkdownIt("commonmark").parse(text.text))
        if token.type == "heading_open" and token.map
    ]


def _by_value(source: Mapping[str, Any], name: str) -> Iterator[tuple[int, list[Heading]]]:
    """Where each value of a field begins, and its headings."""
    base = 0
    for value in field_values(source, name):
        text = Utf16Text(value)
        yield base, find_headings(text)
        base += text.length + 1


def shortened(value: str) -> str:
    """A value as it stands in a header: one line, and not longer than a header may be."""
    words = " ".join(value.split())
    return words if len(words) <= MAX_VALUE_CHARACTERS else words[:MAX_VALUE_CHARACTERS].rsplit(" ", 1)[0]
