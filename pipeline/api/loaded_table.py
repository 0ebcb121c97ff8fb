"""A version of a published table."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import pyarrow as pa

from models.text import Utf16Text
from pipeline.api.frame import Frame

if TYPE_CHECKING:
    from transforms.table.columns import ChunkColumn


class LoadedTable:
    """One version of a table that a run published."""

    def __init__(self, path: str, version: int | None = None) -> None:
        """Open a table.

        Args:
            path: folder or URL of the table.
            version: its version; None takes the newest.
        """
        from transforms.index.snapshot import Snapshot

        self._snapshot = Snapshot.of_table(path, version)
        self._metadata = self._snapshot.description

    @property
    def version(self) -> int:
        """The version that is open."""
        return self._snapshot.version

    @property
    def mappings(self) -> Mapping[str, Any]:
        """The mapping, as in Elasticsearch."""
        return dict(self._metadata.get("mappings", {}))

    @property
    def fields(self) -> Mapping[str, Any]:
        """The semantic fields: endpoint, model, chunking settings."""
        return dict(self._metadata.get("fields", {}))

    def documents(self) -> Frame:
        """One row a document: ``_id``, ``_source`` and the plain fields, without embeddings."""
        return Frame(self._read(lambda name: name not in self.fields))

    def chunks(self, field: str) -> Frame:
        """One row a chunk of a semantic field: ``_id``, position, offsets, text, ``is_truncated``, embeddings.

        Raises:
            KeyError: there is no such semantic field.
        """
        if field not in self.fields:
            raise KeyError(f"no semantic field [{field}]; there are {', '.join(self.fields)}")
        from transforms.table.columns import ChunkColumn

        rows = self._read(lambda name: name in ("_id", "_source", field))
        column = ChunkColumn.of(rows[field])
        columns = {"_id": rows["_id"].take(pa.array(column.rows)), "chunk": pa.array(column.positions)}
        for name in ("source_field", "start_offset", "end_offset", "is_truncated"):
            columns[name] = column.field(name)
        columns["text"] = pa.array(_texts(rows["_source"].to_pylist(), column), pa.string())
        columns["embeddings"] = column.field("embeddings")
        return Frame(pa.table(columns))

    def iter_chunks(self, field: str, columns: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        """Yield the chunks of a semantic field as record batches, one row a chunk; memory stays small.

        A row holds ``chunk_id``, ``_id``, ``field``, ``source_field``, offsets in UTF-16 code units and in code points,
        ``text``, and ``embedding``, or ``token_ids`` and ``weights``; tokens are numbered in the order in which they
        appear, see `Vocabulary` in `pipeline.exchange.chunks`.

        Args:
            field: the semantic field.
            columns: plain columns that each chunk repeats.

        Raises:
            PipelineError: a name is unknown.
        """
        from pipeline.exchange.chunks import Vocabulary, chunk_schemas, iter_chunks
        from pipeline.exchange.rows import TableRows

        rows = TableRows(self._snapshot)
        (schema,) = chunk_schemas(rows, [field], columns)
        return iter_chunks(rows, schema, Vocabulary())

    def changes(self, from_version: int) -> Frame:
        """The documents that differ from another version: ``_id`` and ``_change_type``.

        A document is an `insert`, an `update` or a `delete`, as in Delta Lake's change data feed. Rows that moved to
        another file and stayed the same are no changes.

        Args:
            from_version: the version to compare with; the table is open at the one that is wanted.

        Raises:
            PipelineError: there is no such version, or its part files have been vacuumed.
        """
        from pipeline.table.changes import table_changes

        return Frame(table_changes(self._snapshot.path, from_version, self.version).to_arrow())

    def embeddings(self, field: str) -> npt.NDArray[Any]:
        """The embeddings of a dense field as one array, a row a chunk, in the order of `chunks`."""
        from transforms.table.columns import dense_values

        values = self.chunks(field).arrow["embeddings"]
        return dense_values(values).reshape(len(values), -1)

    def _read(self, wanted: Any) -> pa.Table:
        from transforms.table.parts import open_part

        tables = []
        for part in self._snapshot.parts:
            file = open_part(self._snapshot.path, part)
            names = [name for name in file.schema_arrow.names if wanted(name)]
            tables.append(file.read(columns=names).replace_schema_metadata(None))
        return (
            pa.concat_tables(tables, promote_options="default")
            if tables
            else pa.table({"_id": pa.array([], pa.string())})
        )


def _texts(sources: Sequence[str], column: "ChunkColumn") -> list[str]:
    """The text of each chunk, the slice of its source field that its offsets, in UTF-16 units, name."""
    from transforms import exact_json
    from transforms.field_values import joined_values

    texts: dict[tuple[int, str], Utf16Text] = {}
    result = []
    for parent, (name, start, end) in zip(column.rows.tolist(), column.places(), strict=True):
        if (parent, name) not in texts:
            texts[parent, name] = Utf16Text(joined_values(exact_json.loads(sources[parent]), name))
        result.append(texts[parent, name].slice(start, end))
    return result


def load_table(path: str, version: int | None = None) -> LoadedTable:
    """Open a table that a run published; see `LoadedTable`."""
    return LoadedTable(path, version)
