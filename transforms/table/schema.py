"""What a row of the table looks like: columns and their Arrow types."""

from dataclasses import dataclass

import pyarrow as pa

TABLE_FORMAT = 1
"""Version of the table's layout; a table with a higher one is left alone. Part of every fingerprint."""


ELEMENTS = {
    "float": pa.list_(pa.float32()),
    "byte": pa.list_(pa.int8()),
    "sparse": pa.map_(pa.string(), pa.float32()),
}


@dataclass(frozen=True, slots=True)
class SemanticColumn:
    """The column of one semantic_text field.

    Attributes:
        name: full name of the field.
        inference_id: the endpoint that embeds it.
        element: ``float``, ``byte`` (int8 values: element types byte and bit) or ``sparse``.
    """

    name: str
    inference_id: str
    element: str


@dataclass(frozen=True)
class TableLayout:
    """What a row holds.

    Attributes:
        plain: full name of each plain field -> Arrow type of its values.
        semantic: the semantic columns.
        fingerprint: of the rows that this run writes.
        description: JSON of mapping, endpoints and models; kept as a property of the Delta table.
        lists: names of the plain fields whose column holds a list of values.
    """

    plain: dict[str, str]
    semantic: tuple[SemanticColumn, ...]
    fingerprint: str
    description: str
    lists: frozenset[str] = frozenset()

    def schema(self) -> pa.Schema:
        """The Arrow schema of the table."""
        fixed = [
            pa.field(name, pa.string())
            for name in ("_id", "_source", "content_hash", "fingerprint", "run_id")
        ]
        fixed.append(pa.field("ingested_at", pa.timestamp("us", tz="UTC")))
        plain = [pa.field(name, self._column(name, alias)) for name, alias in self.plain.items()]
        semantic = [pa.field(column.name, semantic_type(column.element)) for column in self.semantic]
        return pa.schema([*fixed, *plain, *semantic])

    def _column(self, name: str, alias: str) -> pa.DataType:
        value = pa.decimal128(20, 0) if alias == "decimal" else pa.type_for_alias(alias)
        return pa.list_(value) if name in self.lists else value


def semantic_type(element: str) -> pa.DataType:
    """Arrow type of a semantic column whose embeddings are ``float``, ``byte`` or ``sparse``."""
    chunk = pa.struct(
        [
            pa.field("source_field", pa.string()),
            pa.field("start_offset", pa.int32()),
            pa.field("end_offset", pa.int32()),
            pa.field("is_truncated", pa.bool_()),
            pa.field("embeddings", ELEMENTS[element]),
        ]
    )
    return pa.struct([pa.field("inference_id", pa.string()), pa.field("chunks", pa.list_(chunk))])


def changed_columns(old: pa.Schema, new: pa.Schema) -> list[str]:
    """Names of the columns that are new or of another type."""
    types = {field.name: field.type for field in old}
    return [field.name for field in new if types.get(field.name) != field.type]
