"""The documents behind hits: their ``_source``, read from the part files of the table that the index shows."""

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.search.open_index import SearchIndex
from transforms import exact_json
from transforms.table.parts import open_part

TITLES = ("title", "headline", "subject", "name", "path", "url")
"""Fields that name a document for a person, the best first."""

LONG_WORD = 20
"""Characters."""


def read_sources(index: SearchIndex, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read ``_source`` of some documents.

    Args:
        index: the index that found them.
        ids: their ids.

    Returns:
        Id -> fields. A document whose part file is gone, since the table has moved or was vacuumed, is left out.
    """
    wanted = pa.array(list(ids), pa.string())
    column = index.documents["_id"].combine_chunks()
    rows = pc.index_in(wanted, value_set=column).drop_null()
    numbers = set(index.documents["part"].take(rows).to_pylist())
    found: dict[str, dict[str, Any]] = {}
    for name, number in index.state.parts.items():
        if number not in numbers:
            continue
        try:
            with open_part(index.state.table["path"], name) as part:
                table = part.read(columns=["_id", "_source"])
        except OSError:
            continue
        table = table.filter(pc.is_in(table["_id"], value_set=wanted))
        for key, raw in zip(table["_id"].to_pylist(), table["_source"].to_pylist(), strict=True):
            found[key] = exact_json.loads(raw)
    return found


def title_of(source: Mapping[str, Any]) -> str:
    """What names a document for a person: its title, else its path or address; empty where it has none."""
    for name in TITLES:
        if isinstance(value := source.get(name), str) and value.strip():
            return value.strip()
    return ""


def snippet(text: str, spans: Iterable[tuple[int, int]], width: int) -> tuple[int, int]:
    """Which part of a text to show: some `width` characters with the first match in the middle, in whole words.

    Args:
        text: the whole text.
        spans: the matches, as start and end.
        width: characters that may be shown.

    Returns:
        Start and end of what is shown.
    """
    first = next(iter(spans), (0, 0))
    middle = (first[0] + first[1]) // 2
    start = max(0, min(middle - width // 2, len(text) - width))
    end = min(start + width, len(text))
    # A word that is cut at the edge is left out, unless it is a long one: some scripts have no blanks.
    if start and (blank := text.find(" ", start - 1, start + LONG_WORD)) >= 0:
        start = blank + 1
    if end < len(text) and (blank := text.rfind(" ", end - LONG_WORD, end + 1)) > start:
        end = blank
    return start, end
