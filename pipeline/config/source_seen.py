"""Where documents lie and how they are written, seen by looking: files of a folder, or a table of a database."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from models.endpoints.secrets import is_reference
from pipeline.config.fields_seen import fields_of, find_id
from pipeline.errors import PipelineError
from transforms.read.formats import FORMATS, read_rows
from transforms.read.rows.readers import SourceFormat
from transforms.read.servers.database import first_rows, list_tables
from transforms.read.splits import list_source
from transforms.records import Piece

SAMPLE = 1_000
"""Documents that are looked at."""

SAMPLED_FILES = 50
"""Files that they are taken from."""


@dataclass(frozen=True)
class SourceSeen:
    """A source, as far as a look at it tells.

    Attributes:
        config: the run config's section.
        name: what to call it: the file's name, the folder's or the table's.
        documents: its first documents; none where they have to be extracted first.
        notes: what was seen, a sentence each.
    """

    config: dict[str, Any]
    name: str
    documents: Sequence[Mapping[str, Any]]
    notes: list[str]


def look(path: str, table: str | None) -> SourceSeen:
    """Look at a source.

    Args:
        path: a file or a folder, or the address of a database, which may be a reference to a secret.
        table: the table of the database; None takes the only one.

    Raises:
        PipelineError: there is nothing that can be read.
        ConnectionFailed: the database does not answer.
    """
    if "://" in path or is_reference(path):
        return _database(path, table)
    if table is not None:
        raise PipelineError(
            f"--table is for a database, and [{path}] is none; its address has the form sqlite:///FILE"
        )
    source = _files_section(path)
    name = Path(path).resolve().name.partition(".")[0]
    if source["format"] == "files":
        return SourceSeen(source, name, [], [_counted(path), "a document's id is its path"])
    rows = list(islice(_rows(source), SAMPLE))
    if not rows:
        raise PipelineError(f"[{path}] has no document that can be read as {source['format']}")
    is_hit = all("_source" in row for row in rows)
    documents = [row["_source"] for row in rows] if is_hit else rows
    notes = [_looked_at(len(rows))]
    if FORMATS[source["format"]].is_one_document:
        notes.append("a document's id is its path")
    else:
        source["id"] = "_id" if is_hit else find_id(fields_of(documents))
        if source["id"] is None:
            notes.append("no field names every document: its id is made of its content")
    return SourceSeen(source, name, documents, notes)


def _looked_at(count: int) -> str:
    return f"{count:,} documents were looked at" if count > 1 else "one document was looked at"


def _database(url: str, table: str | None) -> SourceSeen:
    address = urlsplit(url)
    if address.password is not None:
        raise PipelineError(
            "the address holds a password; put it into the environment and write env:NAME in its place"
        )
    if address.scheme == "sqlite" and not os.path.exists(address.path.removeprefix("/")):
        raise PipelineError(f"[{address.path.removeprefix('/')}] does not exist")  # SQLite would make it
    tables = list_tables(url)
    if table is None and len(tables) != 1:
        raise PipelineError(
            f"the database has {len(tables)} tables; name one with --table: {', '.join(sorted(tables))}"
        )
    chosen = table or next(iter(tables))
    documents = first_rows(url, chosen, SAMPLE)
    if not documents:
        raise PipelineError(f"the table [{chosen}] has no rows")
    key = tables.get(chosen, [])
    id_ = key[0] if len(key) == 1 else find_id(fields_of(documents))
    if id_ is None:
        raise PipelineError(
            f"the table [{chosen}] has no column that names each row; make a view that has one"
        )
    notes = [_looked_at(len(documents))]
    changed = [name for name in documents[0] if name.lower() in _CHANGED]
    if changed:
        notes.append(
            f"if [{changed[0]}] changes whenever its row does, write `updated_at: {changed[0]}`: less is read"
        )
    config = {"format": "sql", "url": url, "table": chosen, "id": id_}
    return SourceSeen(config, chosen.rpartition(".")[2], documents, notes)


_CHANGED = ("updated_at", "updated", "modified_at", "modified", "changed_at", "changed", "last_modified")


def _counted(path: str) -> str:
    """How many files a folder has, by ending."""
    names = [path] if os.path.isfile(path) else [os.path.basename(name) for name in _files(path, "files")]
    endings = Counter(Path(name).suffix.lower() or "without ending" for name in names)
    most = ", ".join(f"{count:,} {ending}" for ending, count in endings.most_common(8))
    more = ", and others" if len(endings) > 8 else ""
    return f"{len(names):,} file{'s' * (len(names) > 1)}: {most}{more}"


def _files_section(path: str) -> dict[str, Any]:
    """The source section: format by the endings of the files, and how CSV is written by looking at it."""
    if not os.path.exists(path):
        raise PipelineError(f"[{path}] does not exist")
    format = _format(path)
    source: dict[str, Any] = {"format": format, "path": path}
    if format == "csv":
        source |= _dialect(next(_files(path, format)))
    return source


def _ending(path: str) -> str:
    name = path.lower()
    for packed in (".gz", ".bz2", ".xz", ".zst", ".zip"):
        name = name.removesuffix(packed)
    return Path(name).suffix


def _format(path: str) -> str:
    """The format of a file, or of what most of a folder is; what is mixed is a folder of documents."""
    sizes: Counter[str] = Counter()
    for name in [path] if os.path.isfile(path) else _visible(path):
        ending = _ending(name)
        known = [format for format, one in FORMATS.items() if ending in one.endings and ending]
        sizes[known[0] if known else "files"] += os.path.getsize(name) + 1
    if not sizes:
        raise PipelineError(f"[{path}] has no files")
    (format, most), *others = sizes.most_common()
    # Data may have a README beside it; documents of several kinds are read as what they are.
    if others and not (format in ("jsonl", "parquet", "csv") and most > sum(size for _, size in others)):
        return "files"
    return _json_format(path) if format == "jsonl" else format


def _visible(folder: str) -> Iterator[str]:
    """The files of a folder and of those in it, but for hidden ones."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(place, name) for name in names if not name.startswith("."))


def _json_format(path: str) -> str:
    """Whether ``.json`` files hold a line a document, or one array or object."""
    with open(next(_files(path, "jsonl")), "rb") as handle:
        head = handle.read(65_536).lstrip()
    first = head.split(b"\n", 1)[0].rstrip()
    return "jsonl" if (first[:1] == b"{" and first[-1:] == b"}") or first[:1] not in b"[{" else "json"


def _files(path: str, format: str) -> Iterator[str]:
    for split in list_source([path], format, 1 << 30).splits:
        yield from (piece.path for piece in split.pieces)


def _dialect(path: str) -> dict[str, Any]:
    """Delimiter and encoding of CSV, where they are not the usual ones."""
    if _ending(path) != Path(path).suffix.lower():
        return {}
    with open(path, "rb") as handle:
        head = handle.read(1 << 20)
    found: dict[str, Any] = {}
    cut = head[: head.rfind(b"\n") + 1] or head
    try:
        text = cut.decode("utf-8-sig")
    except UnicodeDecodeError:
        is_wide = head[:2] in (b"\xff\xfe", b"\xfe\xff")
        found["encoding"] = "utf-16" if is_wide else "cp1252"
        text = head.decode(found["encoding"], errors="replace")
    first = text.partition("\n")[0]
    counts = {character: first.count(character) for character in ",;\t|"}
    most = max(counts, key=lambda character: counts[character])
    if counts[most] > counts[","]:
        found["delimiter"] = most
    return found


def _rows(source: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Fields of the first documents, from several files where there are several."""
    reader = SourceFormat(
        source["format"],
        None,
        100 << 20,
        delimiter=source.get("delimiter"),
        encoding=source.get("encoding", "utf-8"),
    )
    pieces: list[Piece] = [
        piece
        for split in list_source([source["path"]], source["format"], 1 << 30).splits
        for piece in split.pieces
    ]
    each = max(SAMPLE // min(len(pieces), SAMPLED_FILES), 1)
    for piece in pieces[:SAMPLED_FILES]:
        for _, row in islice(read_rows(piece, reader), each):
            if isinstance(row, dict) and not (len(row) == 1 and next(iter(row)) in ("index", "create")):
                yield row
