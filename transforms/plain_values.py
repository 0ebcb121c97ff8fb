"""The values of plain fields: from what a document holds to the type that the mapping gives it, as Elasticsearch has
it.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from models.text import java_string
from transforms.dates import DEFAULT_FORMATS, parse_date
from transforms.field_values import values_at

COLUMN_TYPES = {
    **dict.fromkeys(
        ("text", "match_only_text", "search_as_you_type", "keyword", "constant_keyword"), "string"
    ),
    **dict.fromkeys(("wildcard", "version", "ip", "date", "date_nanos"), "string"),
    "boolean": "bool",
    "long": "int64",
    "integer": "int32",
    "short": "int16",
    "byte": "int8",
    "unsigned_long": "decimal",
    **dict.fromkeys(("double", "scaled_float"), "float64"),
    **dict.fromkeys(("float", "half_float"), "float32"),
}
"""Elasticsearch field type -> Arrow type of its column; ``decimal`` has 20 digits, since Delta Lake has no unsigned
integers. Dates stay as they are written, like in ``_source``."""

TEXT_TYPES = ("text", "match_only_text", "search_as_you_type")

_ANY_TEXT = frozenset((*TEXT_TYPES, "keyword", "wildcard"))
"""Types that take every text as it is."""

_BOUNDS = {
    "byte": (-(2**7), 2**7 - 1),
    "short": (-(2**15), 2**15 - 1),
    "integer": (-(2**31), 2**31 - 1),
    "long": (-(2**63), 2**63 - 1),
    "unsigned_long": (0, 2**64 - 1),
}
_LARGEST = {"half_float": 65_504.0, "float": 3.4028234663852886e38, "double": 1.7976931348623157e308}
_LAST_MILLISECOND = 2**63 * 10**6
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,5})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class PlainField:
    """A field of the mapping that has a column, or that filters can use.

    Attributes:
        name: full dotted name.
        type: Elasticsearch's field type, a key of `COLUMN_TYPES`.
        formats: of a date.
        coerce: whether a number may be written as text or with digits behind the point.
        ignore_malformed: whether a value that does not fit is left out, instead of failing its document.
        sources: names of the fields whose values it has; those that ``copy_to`` it, and the parent of
            a multi-field, among them.
        null_value: what filters find in place of a null.
        ignore_above: length of the longest text that filters find.
        scaling_factor: of a ``scaled_float``: filters know its values in steps of one by this.
        constant: the one value of a ``constant_keyword``, which filters find in every document.
    """

    name: str
    type: str
    formats: tuple[str, ...] = DEFAULT_FORMATS
    coerce: bool = True
    ignore_malformed: bool = False
    sources: tuple[str, ...] = ()
    null_value: Any = None
    ignore_above: int | None = None
    scaling_factor: float | None = None
    constant: Any = None

    @property
    def arrow_type(self) -> str:
        """Arrow type of one value."""
        return COLUMN_TYPES[self.type]

    def all_values(self, source: Mapping[str, Any]) -> list[Any]:
        """The values of the field in a document; see `values`."""
        value = source.get(self.name)
        # Nearly always a text field is a string beneath its own name.
        if isinstance(value, str) and self.type in _ANY_TEXT and "." not in self.name:
            return [value]
        return list(self.values(source))

    def values(self, source: Mapping[str, Any], name: str | None = None, null: Any = None) -> Iterator[Any]:
        """Yield the values of the field in a document, in its type.

        Args:
            source: the document.
            name: the field that holds them; the field itself by default.
            null: what a null stands for; None leaves nulls out.

        Raises:
            ValueError: one does not fit, in a sentence that names the field.
        """
        for value in values_at(source, name or self.name, null):
            try:
                converted = self.convert(value)
            except (ValueError, OverflowError, InvalidOperation) as error:
                if self.ignore_malformed:
                    continue
                # The value itself is not told: failure reports hold no text of documents.
                kind, why = (
                    type(value).__name__,
                    error if isinstance(error, ValueError) else "it is no number",
                )
                raise ValueError(
                    f"field [{self.name}] holds a {kind} that is no {self.type}: {why}"
                ) from None
            if converted is not None:
                yield converted

    def convert(self, value: Any) -> Any:
        """A value in the field's type; None for text that stands for no value.

        Raises:
            ValueError: it does not fit.
        """
        if isinstance(value, Mapping):
            raise ValueError("an object is no value")
        if self.type == "boolean":
            return boolean(value)
        if self.type in _BOUNDS:
            return self._integer(value)
        if self.arrow_type in ("float32", "float64"):
            return self._double(value)
        text = value if isinstance(value, str) else java_string(value)
        if self.type in ("date", "date_nanos"):
            if not text.strip():
                return None
            self._check_date(text)
        elif self.type == "ip":
            plain_address(text)
        elif self.constant is not None and text != self.constant:
            raise ValueError(f"the mapping says [value: {self.constant}] for all documents")
        return text

    def _check_date(self, text: str) -> None:
        try:
            moment = parse_date(text, self.formats).first
        except ValueError:
            raise ValueError(f"it is no date of the format [{'||'.join(self.formats)}]") from None
        if self.type == "date_nanos" and not 0 <= moment < 2**63:
            raise ValueError("nanoseconds go from 1970 to 2262")
        if abs(moment) >= _LAST_MILLISECOND:
            raise ValueError("dates end with the year 292278994")

    def _number(self, value: Any) -> Decimal | None:
        if isinstance(value, bool):
            raise ValueError("a boolean is no number")
        text = str(value)
        if isinstance(value, str):
            if not text.strip():
                return None
            if not self.coerce:
                raise ValueError("text is no number, the mapping says [coerce: false]")
        text = text.strip()
        if _NUMBER.fullmatch(text) is None:
            raise ValueError("it is no number")
        return Decimal(text)

    def _integer(self, value: Any) -> int | None:
        number = self._number(value)
        if number is None:
            return None
        low, high = _BOUNDS[self.type]
        if not low - 1 < number < high + 1:
            raise ValueError("out of range")
        if number != int(number) and not self.coerce:
            raise ValueError("it has digits behind the point, the mapping says [coerce: false]")
        return int(number)

    def _double(self, value: Any) -> float | None:
        number = self._number(value)
        if number is None:
            return None
        # The largest double of a type is also the largest that rounds to it, up to half a unit in the last place.
        if abs(float(number)) > _LARGEST.get(self.type, _LARGEST["double"]) * (
            1 + 1e-8 * (self.type == "float")
        ):
            raise ValueError("out of range")
        return float(number)


def plain_address(text: str) -> str:
    """An IP address as it is compared; one of version 4 that is written as version 6 is of version 4.

    Raises:
        ValueError: it is none.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("it is no IP address") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id:
            raise ValueError("an IP address has no zone")
        address = address.ipv4_mapped or address
    return str(address)


def boolean(value: Any) -> bool:
    """A boolean as Elasticsearch reads it, and as Python and pandas print it.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool):
        return value
    found = {"true": True, "True": True, "false": False, "False": False, "": False}.get(value)
    if found is None:
        raise ValueError("only true and false are allowed")
    return found
