"""The texts of an index: each source field's text is stored once, and chunks are slices of it."""

from dataclasses import dataclass, field
from typing import IO

import numpy as np
import pyarrow as pa

from transforms import exact_json
from transforms.field_values import joined_values
from transforms.index.state import IndexState, Ints

PAGED_FIELD = "text"
"""The field that ``page_offsets`` are offsets into."""


@dataclass
class Texts:
    """The source texts of a batch.

    Attributes:
        values: (row, source field) -> where it begins in texts.bin, the text in UTF-8, and the byte offset of each
            UTF-16 code unit, where these differ.
        pages: row -> where each page begins in the field `text`, for documents that say so.
    """

    values: dict[tuple[int, str], tuple[int, bytes, Ints | None]] = field(default_factory=dict)
    pages: dict[int, Ints] = field(default_factory=dict)

    def page(self, row: int, name: str, start: int) -> int | None:
        """The page, from 1, that a chunk begins on; None where that is not known."""
        if name != PAGED_FIELD or row not in self.pages:
            return None
        # Of pages that begin at the same place, all but the last are empty.
        return max(1, int(np.searchsorted(self.pages[row], start, "right")))


def write_texts(batch: pa.RecordBatch, state: IndexState, texts: IO[bytes]) -> Texts:
    """Append the source texts of a batch to texts.bin, each once, however many fields embed it."""
    written = Texts()
    names = {name: None for unit in state.units for name in unit.sources}
    for row, raw in enumerate(batch.column("_source").to_pylist()):
        source = exact_json.loads(raw)
        offsets = source.get("page_offsets")
        if isinstance(offsets, list) and offsets and all(type(one) is int for one in offsets):
            written.pages[row] = np.array(offsets, np.int64)
        for name in names:
            # A text field has its own values and those that copy_to gives it.
            values = (joined_values(source, one) for one in state.texts.get(name, [name]))
            text = "\n".join(value for value in values if value)
            if text:
                data = text.encode("utf-8", "surrogatepass")
                written.values[row, name] = (
                    texts.tell(),
                    data,
                    None if len(data) == len(text) else _byte_offsets(text),
                )
                texts.write(data)
    return written


def _byte_offsets(text: str) -> Ints:
    """Byte offset in UTF-8 of each UTF-16 code unit of `text`, and of its end."""
    units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), "<u2")
    # The first half of a surrogate pair stands for all four bytes, the second for none.
    high, low = (units >= 0xD800) & (units < 0xDC00), (units >= 0xDC00) & (units < 0xE000)
    paired = np.zeros(len(units), bool)
    paired[:-1] = high[:-1] & low[1:]
    # UTF-8 takes a byte below U+0080, two below U+0800, three below U+10000: one more at each limit.
    sizes = 1 + (units >= 0x80).astype(np.int64) + (units >= 0x800) + paired
    sizes[1:][paired[:-1]] = 0
    return np.concatenate([[0], np.cumsum(sizes)])
