"""Text as Elasticsearch counts it: in UTF-16 code units, the characters of a Java string."""

import numpy as np
import numpy.typing as npt


class Utf16Text:
    """A string that is sliced by UTF-16 offsets.

    An emoji is one character in Python and two code units in UTF-16. Where a text has no such character, and
    most have none, both offsets are the same and nothing is converted.

    Attributes:
        text: the string. Surrogates that stood apart in it but form a pair are joined, as they are in UTF-16.
        length: its length in UTF-16 code units.
    """

    __slots__ = ("_wide", "length", "text")

    def __init__(self, text: str) -> None:
        self._wide: npt.NDArray[np.int64] | None = None
        if not text.isascii():
            units = text.encode("utf-16-le", "surrogatepass")
            text = units.decode("utf-16-le", "surrogatepass")
            if len(units) != 2 * len(text):
                self._wide = _wide_characters(np.frombuffer(units, "<u2"))
        self.text = text
        self.length = len(text) if self._wide is None else len(text) + len(self._wide)

    def code_units(self) -> npt.NDArray[np.uint16]:
        """Return the UTF-16 code units."""
        return np.frombuffer(self.text.encode("utf-16-le", "surrogatepass"), "<u2")

    def slice(self, start: int, end: int) -> str:
        """Return the text between two UTF-16 offsets."""
        if self._wide is None:
            return self.text[start:end]
        return self.text[self.position(start) : self.position(end)]

    def position(self, offset: int) -> int:
        """Return the index into `text` of a UTF-16 offset (inside a pair: the index of the pair)."""
        if self._wide is None:
            return offset
        return offset - int(np.searchsorted(self._wide, offset, "left"))

    def offset(self, position: int) -> int:
        """Return the UTF-16 offset of an index into `text`."""
        if self._wide is None:
            return position
        wide = self._wide
        return position + int(np.searchsorted(wide - np.arange(len(wide)), position, "left"))


def utf16_length(text: str) -> int:
    """Return the length of a string in UTF-16 code units."""
    if text.isascii():
        return len(text)
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _wide_characters(units: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
    """Return the UTF-16 offset of each character that takes two code units."""
    is_high = (units[:-1] & 0xFC00) == 0xD800
    return np.flatnonzero(is_high & ((units[1:] & 0xFC00) == 0xDC00))
