"""Join shards to the index: append to its arrays, link tantivy's segments, delete what is dead."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.index.shard import documents_schema
from transforms.index.sparse_terms import read_tokens, write_tokens
from transforms.index.state import CHUNKS, IndexState, Ints, UnitState
from transforms.index.tantivy_schema import open_tantivy, unit_schema


def read_arrow(path: Path) -> pa.Table:
    """Read an Arrow file without copying it."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def join_documents(
    folder: Path,
    state: IndexState,
    old: IndexState | None,
    shards: list[Path],
    dead: Ints,
    moved: dict[int, int],
) -> pa.Table:
    """Append the shards' documents to the old ones, with the parts that they are in now; -1 marks the dead."""
    tables = [read_arrow(shard / "documents.arrow") for shard in shards]
    if old is not None:
        kept = read_arrow(folder / old.generation / "documents.arrow")
        # Documents keep their numbers for good; only the part that they are in changes.
        parts = kept["part"].to_numpy().copy()
        parts[dead] = -1
        parts[list(moved.keys())] = list(moved.values())
        tables.insert(0, kept.set_column(kept.schema.get_field_index("part"), "part", pa.array(parts)))
    schema = documents_schema(state)
    joined = pa.concat_tables([schema.empty_table(), *tables])
    _write_arrow(folder / state.generation / "documents.arrow", joined)
    return joined


def _write_arrow(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
        out.write_table(table.combine_chunks())


def join_texts(folder: Path, state: IndexState, old: IndexState | None, shards: list[Path]) -> list[int]:
    """Append the shards' texts; returns where each shard's texts begin."""
    begins = []
    with _append(folder / state.epoch / "texts.bin", old.text_bytes if old else 0) as out:
        for shard in shards:
            begins.append(out.tell())
            with (shard / "texts.bin").open("rb") as file:
                shutil.copyfileobj(file, out, 1 << 22)
        state.text_bytes = out.tell()
    return begins


@contextmanager
def _append(path: Path, size: int) -> Iterator[Any]:
    """Open an append-only file at `size`: what a killed update may have left after it is cut off."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(size)
        file.seek(size)
        yield file
        file.flush()
        os.fsync(file.fileno())


def join_chunks(
    folder: Path,
    state: IndexState,
    old: IndexState | None,
    unit: UnitState,
    shards: list[Path],
    texts: list[int],
) -> None:
    """Append the shards' chunk rows."""
    tables = [CHUNKS.empty_table()]
    if old is not None:
        tables.append(read_arrow(folder / old.generation / f"{unit.name}.chunks.arrow"))
    for shard, begin in zip(shards, texts, strict=True):
        table = read_arrow(shard / f"{unit.name}.chunks.arrow")
        # A shard counts from the start of its own texts.
        starts = pc.add(table["text_start"], begin)
        tables.append(table.set_column(table.schema.get_field_index("text_start"), "text_start", starts))
    joined = pa.concat_tables(tables)
    unit.rows = len(joined)
    _write_arrow(folder / state.generation / f"{unit.name}.chunks.arrow", joined)


def join_fields(
    folder: Path, state: IndexState, old: IndexState | None, unit: UnitState, shards: list[Path]
) -> None:
    """Append the shards' vectors, and add up their token counts."""
    for position, name in enumerate(unit.fields):
        field = state.fields[name]
        if field.task_type == "text_embedding":
            # What the old index has of the file: whatever lies behind, a killed update has left.
            rows = next((other.rows for other in old.units if other.name == unit.name), 0) if old else 0
            vector_bytes = np.dtype(field.dtype).itemsize * field.stored_dimensions
            for path, size in ((state.vectors_path(name), vector_bytes), (state.norms_path(name), 4)):
                with _append(folder / path, rows * size) as out:
                    for shard in shards:
                        with (shard / Path(path).name).open("rb") as file:
                            shutil.copyfileobj(file, out, 1 << 22)
        else:
            counts = read_tokens(folder / old.tokens_path(name)) if old else Counter()
            for shard in shards:
                counts.update(read_tokens(shard / f"tokens-{unit.name}-{position}.arrow"))
            # Of every document that was ever added: deleted ones are in tantivy's lists as well, until it merges.
            field.postings = counts.total()
            write_tokens(folder / state.tokens_path(name), counts)


def join_tantivy(
    folder: Path,
    state: IndexState,
    old: IndexState | None,
    unit: UnitState,
    shards: list[Path],
    dead: Ints,
) -> None:
    """Make the unit's tantivy folder from the segments of the old one and of the shards, and delete what is dead.

    Segments are immutable and named by random ids, so they are linked, not copied; only ``meta.json``, which
    lists them, is new. All segments are in one index, so BM25's statistics are those of all documents.
    """
    import tantivy

    target = folder / state.generation / unit.name
    sources = [shard / unit.name for shard in shards]
    if old is not None:
        sources.insert(0, folder / old.generation / unit.name)
    if not sources:
        target.mkdir()
        tantivy.Index(unit_schema(unit, state), path=str(target))
        return
    _link_segments(sources, target)
    if len(dead) or len(sources) > 1:
        _commit(target, unit, dead)


def _link_segments(sources: list[Path], target: Path) -> None:
    target.mkdir()
    metas = [json.loads((source / "meta.json").read_text(encoding="utf-8")) for source in sources]
    managed: list[str] = []
    for source in sources:
        for path in source.iterdir():
            if not path.name.startswith(".") and path.name != "meta.json":
                _link(path, target / path.name)
                managed.append(path.name)
    joined = metas[0] | {
        "segments": [segment for meta in metas for segment in meta["segments"]],
        # Tantivy's counter of operations must not run backwards.
        "opstamp": max(meta["opstamp"] for meta in metas),
    }
    (target / "meta.json").write_text(json.dumps(joined), encoding="utf-8")
    (target / ".managed.json").write_text(json.dumps([*managed, "meta.json"]), encoding="utf-8")


def _link(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


def _commit(target: Path, unit: UnitState, dead: Ints) -> None:
    """Delete the chunks of dead documents, and let tantivy merge small segments."""
    import tantivy

    index = open_tantivy(target, unit.analyzer)
    writer = index.writer(num_threads=1)
    for first in range(0, len(dead), 10_000):
        numbers = dead[first : first + 10_000].tolist()
        # By query: a deletion by term would be typed as a signed number and match nothing.
        writer.delete_documents_by_query(tantivy.Query.term_set_query(index.schema, "document", numbers))
    writer.commit()
    writer.wait_merging_threads()
