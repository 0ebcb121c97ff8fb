"""The slides of an OpenDocument presentation.

The extraction library leaves out what stands in shapes, which is half of some decks. The XML parser here
resolves no external entity, and bounds what internal ones expand to.
"""

import io
import zipfile
from collections.abc import Iterator
from xml.etree.ElementTree import Element, ParseError, fromstring

from transforms.read.extract.content_types import DAMAGE


def slides(content: bytes) -> list[str]:
    """The slides of an ODP file as Markdown, in order.

    Raises:
        ValueError: it is damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as container:
            root = fromstring(container.read("content.xml"))  # noqa: S314 - in a process that can open no file
    except (ParseError, *DAMAGE) as error:
        raise ValueError(str(error)) from None
    pages = (element for element in root.iter() if _name(element) == "page")
    return [
        "\n\n".join(block for child in page for block in _blocks(child) if block.strip()) for page in pages
    ]


def _blocks(element: Element) -> Iterator[str]:
    """The blocks of text below an element, in order; notes are left out."""
    name = _name(element)
    if name == "notes":
        return
    if name == "frame" and _attribute(element, "class") == "title":
        yield "## " + " ".join(
            " ".join(_text(one) for one in element.iter() if _name(one) in ("p", "h")).split()
        )
    elif name == "list":
        yield "\n".join(_items(element, 0))
    elif name == "table":
        rows = [
            [_cell(cell) for cell in row if _name(cell) == "table-cell"]
            for row in element.iter()
            if _name(row) == "table-row"
        ]
        lines = [f"| {' | '.join(row)} |" for row in rows]
        yield "\n".join([*lines[:1], "| --- " * len(rows[0]) + "|", *lines[1:]]) if rows else ""
    elif name in ("p", "h"):
        yield _text(element)
    else:
        for child in element:
            yield from _blocks(child)


def _items(element: Element, depth: int) -> Iterator[str]:
    for item in element:
        for child in item:
            if _name(child) == "list":
                yield from _items(child, depth + 1)
            elif text := _text(child):
                yield f"{'  ' * depth}- {text}"


def _cell(cell: Element) -> str:
    return " ".join(_text(one) for one in cell.iter() if _name(one) in ("p", "h"))


def _text(element: Element) -> str:
    """The text of a paragraph; tabs, breaks and runs of blanks are elements of their own."""
    parts = [element.text or ""]
    for child in element:
        parts += [" " if _name(child) in ("s", "tab", "line-break") else _text(child), child.tail or ""]
    return "".join(parts)


def _name(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _attribute(element: Element, name: str) -> str | None:
    return next((value for key, value in element.attrib.items() if key.rpartition("}")[2] == name), None)
