"""Text as Elasticsearch counts it: in UTF-16 code units, the characters of a Java string."""

from collections.abc import Mapping
from decimal import Decimal

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
            if len(units) != 2 * len(text):  # some character takes two code units
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
        # Each wide character that begins before `offset` takes two units and only one position.
        return offset - int(np.searchsorted(self._wide, offset, "left"))

    def offset(self, position: int) -> int:
        """Return the UTF-16 offset of an index into `text`."""
        if self._wide is None:
            return position
        # A wide character's own position is its offset less the wide characters before it.
        wide = self._wide
        return position + int(np.searchsorted(wide - np.arange(len(wide)), position, "left"))


def utf16_length(text: str) -> int:
    """Return the length of a string in UTF-16 code units."""
    if text.isascii():
        return len(text)
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _wide_characters(units: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
    """Return the UTF-16 offset of each character that takes two code units."""
    # A pair is a high surrogate (0xD800 to 0xDBFF) and a low one (0xDC00 to 0xDFFF): six bits tell each of them.
    is_high = (units[:-1] & 0xFC00) == 0xD800
    return np.flatnonzero(is_high & ((units[1:] & 0xFC00) == 0xDC00))


def java_string(value: object) -> str:
    """Return what Java's ``toString`` prints for a JSON value; Elasticsearch's texts and messages hold it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal) and value != int(value):
        value = float(value)
    if isinstance(value, float):
        return _java_double(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}={java_string(member)}" for key, member in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(java_string, value)) + "]"
    return str(value)


def _java_double(value: float) -> str:
    """Print a double the Java way: ``13.49``, ``100.0``, ``1.0E7``, ``1.5E-5``."""
    if value != value or value in (float("inf"), float("-inf")):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[repr(value)]
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return f"{value:.{_decimals(value)}f}"
    mantissa, exponent = _shortest_exponential(value)
    return f"{mantissa}E{exponent}"


def _decimals(value: float) -> int:
    """Count the decimals of the shortest text that reads back as `value` (at least one)."""
    return next(digits for digits in range(1, 25) if float(f"{value:.{digits}f}") == value)


def _shortest_exponential(value: float) -> tuple[str, int]:
    """Split `value` into the shortest mantissa that reads back (at least one decimal) and its exponent."""
    text = next(text for digits in range(1, 18) if float(text := f"{value:.{digits}e}") == value)
    mantissa, exponent = text.split("e")
    return mantissa, int(exponent)


# What Java's Character.isWhitespace accepts: no-break spaces and U+0085 are not among them.
_JAVA_WHITESPACE = (
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2008\u2009\u200a"
    "\u2028\u2029\u205f\u3000"
)


def is_blank(text: str) -> bool:
    """Tell whether a text is empty or white space only, as Java's ``isBlank``."""
    return not text.strip(_JAVA_WHITESPACE)
