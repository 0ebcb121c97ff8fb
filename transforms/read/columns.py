"""What a mapping makes of a document besides its chunks: the values of its columns, and what cannot be indexed."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transforms import exact_json
from transforms.field_values import values_at
from transforms.plain_values import PlainField
from transforms.read.rows.readers import BadDocumentError


@dataclass(frozen=True, slots=True)
class DocumentShape:
    """The mapping as far as it concerns single documents.

    Attributes:
        columns: the plain fields that have a column.
        others: further fields that filters use, of types of their own: multi-fields.
        objects: full names of the objects.
        semantic: semantic field -> the fields whose values it embeds.
        lists: names of the columns that hold a list of values.
    """

    columns: tuple[PlainField, ...]
    others: tuple[PlainField, ...] = ()
    objects: tuple[str, ...] = ()
    semantic: Mapping[str, tuple[str, ...]] | None = None
    lists: frozenset[str] = frozenset()

    def column_values(self, source: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a document's columns: a list where the column holds lists, else the value; None for none.

        Raises:
            BadDocumentError: a value does not fit its field, an object is none, or a column without lists would lose
                values.
        """
        for name in self.objects:
            for value in values_at(source, name):
                if not isinstance(value, Mapping):
                    raise BadDocumentError(
                        f"object mapping for [{name}] tried to parse field [{name}] as object, but found a value"
                    )
        try:
            found = {field.name: field.all_values(source) for field in self.columns}
            for field in self.others:
                for _ in (value for name in field.sources for value in field.values(source, name)):
                    pass
        except ValueError as error:
            raise BadDocumentError(str(error)) from None
        return {name: self._column(name, values) for name, values in found.items()}

    def only(self, names: Collection[str]) -> "DocumentShape":
        """The shape of some of the columns alone."""
        return DocumentShape(tuple(field for field in self.columns if field.name in names), lists=self.lists)

    def columns_of(self, sources: Sequence[str]) -> dict[str, list[Any]]:
        """The columns of rows whose documents are given as JSON.

        Raises:
            BadDocumentError: a value does not fit.
        """
        rows = [self.column_values(exact_json.loads(source)) for source in sources]
        return {field.name: [row[field.name] for row in rows] for field in self.columns}

    def _column(self, name: str, values: list[Any]) -> Any:
        if not values:
            return None
        if name in self.lists:
            return values
        if len(values) > 1:
            raise BadDocumentError(
                f"the column [{name}] holds one value a document, this one has {len(values)}"
            )
        return values[0]

    def several(self, source: Mapping[str, Any]) -> Iterator[str]:
        """Yield the columns in which a document has several values."""
        for field in self.columns:
            if "." not in field.name:
                # Nearly all fields of nearly all documents are seen to be scalars here.
                value = source.get(field.name)
                if not isinstance(value, list) or not value:
                    continue
            values = values_at(source, field.name)
            if next(values, None) is not None and next(values, None) is not None:
                yield field.name


FIELDS_SHOWN = 50
"""So many names of fields are remembered, for messages."""


@dataclass
class SourceLook:
    """What a pass over documents finds out about all of them together.

    Attributes:
        shape: the mapping.
        several: columns in which some document has several values.
        filled: semantic fields that some document fills.
        fields: names of fields that the first documents have.
    """

    shape: DocumentShape
    several: set[str]
    filled: set[str]
    fields: dict[str, None]

    @classmethod
    def of(cls, shape: DocumentShape) -> "SourceLook":
        """A look that has seen nothing yet."""
        return cls(shape, set(), set(), {})

    def see(self, source: Mapping[str, Any]) -> None:
        """Look at one document."""
        self.see_several(source)
        semantic = self.shape.semantic or {}
        if len(self.filled) < len(semantic):
            self.filled.update(
                name
                for name, sources in semantic.items()
                if name not in self.filled and any(_is_there(source, one) for one in sources)
            )
        if len(self.fields) < FIELDS_SHOWN:
            self.fields.update(dict.fromkeys(source))

    def see_several(self, source: Mapping[str, Any]) -> None:
        """Look only at how many values the columns of a document have."""
        self.several.update(self.shape.several(source))

    def to_json(self) -> dict[str, list[str]]:
        """What was found, as JSON values."""
        return {"several": sorted(self.several), "filled": sorted(self.filled), "fields": list(self.fields)}


def _is_there(source: Mapping[str, Any], name: str) -> bool:
    """Whether a document has the field at all; an empty text is one that says nothing, not a wrong name."""
    return name in source or next(values_at(source, name), None) is not None
