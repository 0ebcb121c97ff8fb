"""What a sample of documents says of their fields: types, lengths, and which of them is an id."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

IDS = ("_id", "id", "doc_id", "docid", "document_id", "uuid", "guid", "key", "url", "path")
TITLES = ("title", "headline", "subject", "name", "heading", "question")
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?")
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})")
_NUMBER = re.compile(r"-?\d+\.\d+([eE][+-]?\d+)?")


@dataclass
class FieldSeen:
    """What a sample says of one field.

    Attributes:
        name: its full name, with dots.
        values: its values, those of lists one by one.
        documents: documents that have it.
    """

    name: str
    values: list[Any] = field(default_factory=list)
    documents: int = 0

    @property
    def type(self) -> str:
        """The field type of Elasticsearch that fits all values."""
        kinds = {_kind(value) for value in self.values}
        if kinds == {"long", "double"}:
            return "double"
        if len(kinds) == 1:
            (kind,) = kinds
            return kind if kind != "string" else self._string_type()
        return self._string_type() if kinds <= {"string", "date", "long", "double", "boolean"} else "object"

    def _string_type(self) -> str:
        is_title = self.name.rpartition(".")[2].lower() in TITLES
        return "text" if is_title or self.words > 8 or self.longest > 256 else "keyword"

    @property
    def words(self) -> float:
        """Words of a value, on average."""
        return sum(len(str(value).split()) for value in self.values) / max(len(self.values), 1)

    @property
    def longest(self) -> int:
        """Characters of the longest value."""
        return max((len(str(value)) for value in self.values), default=0)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "long" if abs(value) < 2**63 else "string"
    if isinstance(value, float):
        return "double"
    if not isinstance(value, str):
        return "object"
    text = value.strip()
    for kind, pattern in (("date", _DATE), ("long", _INTEGER), ("double", _NUMBER)):
        if pattern.fullmatch(text):
            return kind
    return "boolean" if text in ("true", "false") else "string"


def fields_of(documents: Sequence[Mapping[str, Any]]) -> list[FieldSeen]:
    """The fields of the documents, objects taken apart, in the order in which they turn up."""
    seen: dict[str, FieldSeen] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                add(f"{name}.{key}", inner)
            return
        one = seen.setdefault(name, FieldSeen(name))
        values = [value] if not isinstance(value, list) else value
        values = [item for item in values if item is not None and item != ""]
        one.values += values
        one.documents += bool(values)

    for document in documents:
        for name, value in document.items():
            add(str(name), value)
    return [one for one in seen.values() if one.values]


def find_id(seen: Sequence[FieldSeen]) -> str | None:
    """A field that every document has, each with its own value: one with the name of an id."""
    most = max((one.documents for one in seen), default=0)
    unique = [
        one.name
        for one in seen
        if one.documents == most == len({str(value) for value in one.values})
        and {_kind(value) for value in one.values} <= {"long", "string"}
        and one.longest <= 512
        and "." not in one.name
    ]
    named = [name for wanted in IDS for name in unique if name.lower() == wanted]
    named += [name for name in unique if name.lower().endswith(("_id", "-id"))]
    return named[0] if named else None
