"""Chunks as Parquet: one file, or a folder that follows the table from version to version."""

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import PipelineError
from pipeline.exchange.chunks import ChunkSchema, Vocabulary, iter_chunks, part_chunks
from pipeline.exchange.rows import TableRows
from transforms import files


def export_chunks(
    rows: TableRows,
    schemas: Sequence[ChunkSchema],
    target: str,
    *,
    advance: Callable[[int], None] = lambda chunks: None,
) -> dict[str, Any]:
    """Write one row a chunk.

    A target that ends in ``.parquet`` is one file, of one field. Any other is a folder with one for each field, and
    in it one file for each part file of the table. Exporting a newer version into it writes what is new, then removes
    what is gone, and ids of tokens stay.

    Args:
        rows: all rows of a version.
        schemas: what the rows of each field hold.
        target: where to.
        advance: is told of chunks that are written.

    Returns:
        ``chunks``, ``files`` written and removed, and the table's version.

    Raises:
        PipelineError: the folder is not a local one, or one file is asked for and several fields.
    """
    if target.endswith(".parquet"):
        if len(schemas) != 1:
            names = ", ".join(schema.field for schema in schemas)
            raise PipelineError(f"one file holds the chunks of one field: choose one of {names} with --field")
        done = [_export_file(rows, schemas[0], target, advance)]
    elif not files.is_local(target):
        raise PipelineError(f"[{target}] is not a local folder; export to one, and copy it")
    else:
        done = [_export_folder(rows, schema, Path(target) / schema.field, advance) for schema in schemas]
    return {"table_version": rows.snapshot.version} | {key: sum(one[key] for one in done) for key in done[0]}


def _export_file(
    rows: TableRows, schema: ChunkSchema, target: str, advance: Callable[[int], None]
) -> dict[str, int]:
    vocabulary = Vocabulary()
    count = _write(target, schema, iter_chunks(rows, schema, vocabulary), advance, lambda: None)
    if schema.is_sparse:
        _write_json(f"{target.removesuffix('.parquet')}.vocabulary.json", vocabulary.tokens)
    return {"chunks": count, "written": 1, "removed": 0}


def _export_folder(
    rows: TableRows, schema: ChunkSchema, folder: Path, advance: Callable[[int], None]
) -> dict[str, int]:
    aside = folder / ".new"
    aside.mkdir(parents=True, exist_ok=True)
    described = str(schema.to_arrow())
    before = _manifest(folder)
    # Files of another selection of fields or columns do not go together with ours.
    kept = (
        {path.name for path in folder.glob("chunks-*.parquet")}
        if before.get("schema") == described
        else set()
    )
    if before.get("schema", described) != described:
        for path in aside.iterdir():
            path.unlink()
    vocabulary = Vocabulary(_tokens(folder))
    wanted = {part.replace("part-", "chunks-", 1): part for part in rows.snapshot.parts}
    written = count = 0
    for name, part in wanted.items():
        if name not in kept and not (aside / name).exists():
            batches = part_chunks(rows, part, schema, vocabulary)
            # The vocabulary is written before the file that needs it has its name.
            count += _write(
                str(aside / name), schema, batches, advance, lambda: _save_tokens(folder, schema, vocabulary)
            )
            written += 1
    _write_json(str(folder / "manifest.json"), {"schema": described, **_version(rows)})
    for path in aside.iterdir():
        if path.name in wanted:
            path.replace(folder / path.name)
        else:
            path.unlink()
    aside.rmdir()
    gone = [path for path in folder.glob("chunks-*.parquet") if path.name not in wanted]
    for path in gone:
        path.unlink()
    return {"chunks": count, "written": written, "removed": len(gone)}


def _version(rows: TableRows) -> dict[str, Any]:
    return {"table_id": rows.snapshot.id, "table_version": rows.snapshot.version}


def _manifest(folder: Path) -> dict[str, Any]:
    with suppress(FileNotFoundError, json.JSONDecodeError):
        return dict(json.loads((folder / "manifest.json").read_text()))
    return {}


def _tokens(folder: Path) -> list[str]:
    with suppress(FileNotFoundError):
        return list(json.loads((folder / "vocabulary.json").read_text()))
    return []


def _save_tokens(folder: Path, schema: ChunkSchema, vocabulary: Vocabulary) -> None:
    if schema.is_sparse:
        _write_json(str(folder / "vocabulary.json"), vocabulary.tokens)


def _write(
    target: str,
    schema: ChunkSchema,
    batches: Iterable[pa.RecordBatch],
    advance: Callable[[int], None],
    before_closing: Callable[[], None],
) -> int:
    """Write batches as one file; returns the number of chunks."""
    count = 0
    arrow = schema.to_arrow()
    with files.create(target) as handle:
        # Vectors and weights hardly get smaller by compression; a dictionary of them would be as long as they are.
        writer = pq.ParquetWriter(
            handle,
            arrow,
            compression={
                name: "none" if name.startswith(("embedding", "weights", "token_ids")) else "zstd"
                for name in _leaves(arrow)
            },
            use_dictionary=["_id", "field", "source_field", *schema.plain],
            # Numbers of tokens are small: they take half the bytes and half the time of what zstd makes of them.
            column_encoding={"token_ids.list.element": "DELTA_BINARY_PACKED"} if schema.is_sparse else None,
        )
        with writer:
            for batch in batches:
                writer.write_batch(batch)
                count += batch.num_rows
                advance(batch.num_rows)
        before_closing()
    return count


def _leaves(schema: pa.Schema) -> list[str]:
    return [
        f"{field.name}.list.element" if pa.types.is_nested(field.type) else field.name for field in schema
    ]


def _write_json(path: str, value: Any) -> None:
    with files.create(path) as handle:
        handle.write(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
