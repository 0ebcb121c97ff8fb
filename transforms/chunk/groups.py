"""Groups of chunks that the model sees together, where a field has late chunking."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from models.embeddings import Span
from models.late_chunking import LateChunking, extents
from models.text import Utf16Text
from transforms.field_values import field_values
from transforms.records import Group

Place = tuple[str, int, int]
"""Where a chunk is: source field, start and end offset."""


def group_chunks(
    late: LateChunking, documents: Sequence[tuple[Mapping[str, Any], Sequence[Place]]]
) -> list[tuple[Group, ...]]:
    """Put the chunks of documents together as they go through the model.

    Args:
        late: knows the model's window.
        documents: each with the places of its chunks, by source field and value, in order.

    Returns:
        The groups of each document, in the order of its chunks. Chunks of two values never share one.

    Raises:
        ValueError: a chunk lies beyond its field's values.
    """
    values = [list(_values(source, places)) for source, places in documents]
    texts, spans = ([one[part] for own in values for one in own] for part in (0, 1))
    sizes = iter(late.group(texts, spans))  # type: ignore[arg-type]
    return [tuple(group for text, own in one for group in _groups(text, own, next(sizes))) for one in values]


def with_firsts(groups: Sequence[Group]) -> Iterator[tuple[int, Group]]:
    """Yield each group with the position of its first chunk among the document's."""
    first = 0
    for group in groups:
        yield first, group
        first += len(group.spans)


def _values(source: Mapping[str, Any], places: Sequence[Place]) -> Iterator[tuple[str, list[Span]]]:
    """Yield the values that have chunks, and where in each these are, in characters."""
    for name, members in groupby(places, key=lambda place: place[0]):
        left = [(start, end) for _, start, end in members][::-1]
        base = 0
        for value in field_values(source, name):
            text = Utf16Text(value)
            own = []
            while left and left[-1][0] < base + text.length:
                start, end = left.pop()
                own.append((text.position(start - base), text.position(end - base)))
            if own:
                yield text.text, own
            base += text.length + 1
        if left:
            raise ValueError(f"chunks of [{name}] lie beyond its values")


def _groups(text: str, spans: Sequence[Span], sizes: Sequence[int]) -> Iterator[Group]:
    chunks = iter(spans)
    for size, (begin, end) in zip(sizes, extents(spans, sizes), strict=True):
        own = tuple((first - begin, last - begin) for first, last in (next(chunks) for _ in range(size)))
        yield Group(text[begin:end], own)
