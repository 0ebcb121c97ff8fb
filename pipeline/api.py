"""The public Python API: open what a run made, search it, measure it, and get it as Arrow, pandas or polars.

The package's own list, `pipeline.__all__`, says which names are public::

    from pipeline import load_table, open_index, evaluate

    table = load_table("out/quickstart/table")
    table.documents().to_pandas()
    table.chunks("text_dense").to_polars()

    index = open_index("out/quickstart/index")
    index.search("career sacks", mode="dense", k=5).to_pandas()

    evaluate(index, "data/xquad/queries.jsonl", "data/xquad/qrels.tsv").measures().to_pandas()
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import pyarrow as pa

from models.text import Utf16Text
from pipeline.evaluation.evaluate import Evaluation, ModeResult
from pipeline.evaluation.evaluate import evaluate as _evaluate
from pipeline.evaluation.judgements import load_qrels, load_queries
from pipeline.evaluation.page import delta_plot, recall_plot, write_report
from pipeline.search.open_index import SearchIndex
from pipeline.search.retrievers import Mode
from pipeline.search.search import Hit, search_many

if TYPE_CHECKING:
    from transforms.table.columns import ChunkColumn


@dataclass(frozen=True)
class Frame:
    """Rows, in whatever form they are wanted.

    Attributes:
        arrow: the rows as an Arrow table.
    """

    arrow: pa.Table

    def __len__(self) -> int:
        return int(self.arrow.num_rows)

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table."""
        return self.arrow

    def to_pandas(self) -> Any:
        """The rows as a pandas DataFrame; needs pandas."""
        return self.arrow.to_pandas()

    def to_polars(self) -> Any:
        """The rows as a polars DataFrame; needs polars."""
        import polars

        return polars.from_arrow(self.arrow)

    def to_pylist(self) -> list[dict[str, Any]]:
        """The rows as dictionaries."""
        rows: list[dict[str, Any]] = self.arrow.to_pylist()
        return rows

    def _repr_html_(self) -> str:
        return str(self.to_pandas()._repr_html_())


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


class OpenIndex:
    """An index, open for searching; it stays at the state in which it was opened."""

    def __init__(self, path: str) -> None:
        """Open an index folder."""
        self.raw = SearchIndex(path)

    def __len__(self) -> int:
        """Number of documents that can be found."""
        return len(self.raw)

    @property
    def table_version(self) -> int:
        """The version of the table that the index shows."""
        return int(self.raw.state.table["version"])

    @property
    def fields(self) -> Sequence[str]:
        """Fields that can be searched."""
        return self.raw.text_fields()

    def search(self, query: str, **options: Any) -> Frame:
        """Find documents; one row a hit.

        Args:
            query: what to look for.
            **options: as in `pipeline.search.search.SearchOptions`: mode, field, k, filter, fusion, weights, pruning.
        """
        return self.search_many([query], **options)

    def search_many(self, queries: Sequence[str], **options: Any) -> Frame:
        """Find documents for several queries; one row a hit, with the query and its rank."""
        rows = []
        for query, hits in zip(queries, search_many(self.raw, queries, **options), strict=True):
            rows += [_row(query, rank, hit) for rank, hit in enumerate(hits, 1)]
        return Frame(pa.Table.from_pylist(rows, _HITS))


_HITS = pa.schema(
    [
        ("query", pa.string()),
        ("rank", pa.int32()),
        ("_id", pa.string()),
        ("score", pa.float64()),
        ("field", pa.string()),
        ("start_offset", pa.int32()),
        ("end_offset", pa.int32()),
        ("text", pa.string()),
    ]
)


def _row(query: str, rank: int, hit: Hit) -> dict[str, Any]:
    chunk = hit.chunk
    place = {"field": chunk.field, "start_offset": chunk.start_offset, "end_offset": chunk.end_offset}
    return {"query": query, "rank": rank, "_id": hit.id, "score": hit.score, **place, "text": chunk.text}


class EvaluationResult:
    """What an evaluation found."""

    def __init__(self, raw: Evaluation) -> None:
        self.raw = raw

    def measures(self) -> Frame:
        """One row a mode: every measure's mean and its 95 % confidence interval."""
        result = self.raw.to_json()
        rows = []
        for mode, means in result["modes"].items():
            row: dict[str, Any] = {"mode": mode}
            for measure, mean in means.items():
                low, high = result["intervals"][mode][measure]
                row |= {measure: mean, f"{measure} low": low, f"{measure} high": high}
            rows.append(row)
        return Frame(pa.Table.from_pylist(rows))

    def queries(self) -> Frame:
        """One row a query and mode: the measures, and the ten best documents with their scores."""
        return Frame(self.raw.to_table())

    def differences(self, measure: str = "ndcg@10") -> Frame:
        """One row a pair of modes: the difference of the means and its p value."""
        names = ("first", "second", "difference", "p")
        return Frame(
            pa.Table.from_pylist([dict(zip(names, test, strict=True)) for test in self.raw.tests(measure)])
        )

    def recall_plot(self) -> str:
        """Recall by depth as SVG."""
        return recall_plot(self.raw)

    def delta_plot(self, first: str, second: str, measure: str = "ndcg@10") -> str:
        """The difference of two modes, query by query, as SVG."""
        return delta_plot(self._mode(first), self._mode(second), measure)

    def write_report(self, path: str | Path) -> None:
        """Write everything as one HTML page."""
        write_report(str(path), self.raw)

    def _mode(self, name: str) -> ModeResult:
        return self.raw.modes[name]


def load_table(path: str, version: int | None = None) -> LoadedTable:
    """Open a table that a run published; see `LoadedTable`."""
    return LoadedTable(path, version)


def open_index(path: str) -> OpenIndex:
    """Open an index for searching; see `OpenIndex`."""
    return OpenIndex(path)


def evaluate(
    index: OpenIndex | str,
    queries: str | Path | Mapping[str, str],
    qrels: str | Path | Mapping[str, Mapping[str, int]],
    *,
    modes: Sequence[Mode] | None = None,
    field: str | None = None,
) -> EvaluationResult:
    """Measure retrieval.

    Args:
        index: an open index, or its folder.
        queries: a file (BEIR, TREC topics, tab-separated), or query id -> text.
        qrels: a file (BEIR, TREC), or query id -> document id -> relevance.
        modes: search modes; by default all that the index has.
        field: the field to search; by default the first that fits.
    """
    opened = OpenIndex(index) if isinstance(index, str) else index
    asked = queries if isinstance(queries, Mapping) else load_queries(queries)
    judged = qrels if isinstance(qrels, Mapping) else load_qrels(qrels)
    return EvaluationResult(_evaluate(opened.raw, asked, judged, modes=modes, field=field))
