"""Copy the rows that stay of part files that lose others: replaced and deleted rows leave the table this way."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.metrics import Metrics

from transforms.read.columns import DocumentShape
from transforms.records import PartFile, PartRewrite
from transforms.table.fingerprint import stale_fields, without_embeddings
from transforms.table.parts import open_part, write_part
from transforms.table.schema import TableLayout, changed_columns


@dataclass
class RewriteParts(beam.PTransform):
    """Write the rows that stay of part files as new parts; vectors are copied, nothing is embedded.

    Attributes:
        layout: what a row of the new parts holds.
        embedding_fingerprints: semantic field -> fingerprint that its embeddings must have to stay.
        table_path: the table.
        run_id: the run.
        shape: the mapping.
    """

    layout: TableLayout
    embedding_fingerprints: dict[str, str]
    table_path: str
    run_id: str
    shape: DocumentShape

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, rewrites: beam.pvalue.PCollection[PartRewrite]) -> beam.pvalue.PCollection[PartFile]:
        """Wire the stage."""
        rewrite = RewritePart(
            self.layout, self.embedding_fingerprints, self.table_path, self.run_id, self.shape
        )
        return rewrites | beam.ParDo(rewrite)


class RewritePart(beam.DoFn):
    """Rewrites one part file at a time; its arguments are those of `RewriteParts`."""

    rows_copied = Metrics.counter("write", "rows_copied")

    def __init__(
        self,
        layout: TableLayout,
        embedding_fingerprints: dict[str, str],
        table_path: str,
        run_id: str,
        shape: DocumentShape,
    ) -> None:
        self.layout = layout
        self.embedding_fingerprints = embedding_fingerprints
        self.table_path = table_path
        self.run_id = run_id
        self.shape = shape

    def process(self, rewrite: PartRewrite) -> Iterator[PartFile]:
        """Rewrite one part; yields nothing when no row stays."""
        table = open_part(self.table_path, rewrite.path).read()
        keep = np.ones(table.num_rows, bool)
        keep[list(rewrite.dropped)] = False
        kept = drop_stale_embeddings(table.filter(pa.array(keep)), self.embedding_fingerprints)
        kept = align(kept, self.layout.schema(), self.shape)
        if kept.num_rows:
            self.rows_copied.inc(kept.num_rows)
            yield write_part(kept, self.table_path, self.run_id)


def drop_stale_embeddings(table: pa.Table, current: Mapping[str, str]) -> pa.Table:
    """Empty the fields whose embedding another model made, so that a table never mixes the embeddings of two models.

    Such a row stays because its document failed just when the model changed. Its fingerprint remembers that the
    field is empty; the next run that can read the document embeds it.
    """
    fingerprints = table.column("fingerprint").to_pylist()
    # A part has few different fingerprints, whatever the number of its rows.
    stale = {one: stale_fields(one, current) for one in set(fingerprints)}
    if not any(stale.values()):
        return table
    for name in current:
        is_stale = [name in stale[one] for one in fingerprints]
        if any(is_stale) and name in table.column_names:
            nothing = pa.nulls(1, table.schema.field(name).type)[0]
            table = _replace(table, name, pc.if_else(pa.array(is_stale), nothing, table.column(name)))
    marked = {one: without_embeddings(one, fields) for one, fields in stale.items()}
    return _replace(table, "fingerprint", pa.array([marked[one] for one in fingerprints], pa.string()))


def _replace(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), values)


def align(table: pa.Table, schema: pa.Schema, shape: DocumentShape) -> pa.Table:
    """Give rows of an older mapping the columns of `schema`.

    A plain column that is new or of another type is filled from the documents, which the rows hold; a semantic one is
    null.

    Raises:
        BadDocumentError: a value does not fit its new type.
    """
    plain = {field.name for field in shape.columns}
    changed = [name for name in changed_columns(table.schema, schema) if name in plain]
    values = shape.only(changed).columns_of(table.column("_source").to_pylist()) if changed else {}
    columns = []
    for field in schema:
        if field.name in values:
            columns.append(pa.array(values[field.name], field.type))
        elif field.name in table.column_names and table.schema.field(field.name).type == field.type:
            columns.append(table.column(field.name))
        else:
            columns.append(pa.nulls(table.num_rows, field.type))
    return pa.Table.from_arrays(columns, schema=schema)
