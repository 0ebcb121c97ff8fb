"""Documents as bodies of Elasticsearch's `_bulk`: cut by bytes, written to files or sent."""

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow as pa

from pipeline.errors import PipelineError
from pipeline.exchange.elasticsearch.forms import DocumentForm, documents, dump
from pipeline.exchange.rows import TableRows
from transforms import files

Compression = Literal["none", "gz", "zst"]
DELETIONS = "deletions"
"""Stands in the place of a part file's name for the documents that are deleted."""

MAX_BYTES = 10 * 1024 * 1024


@dataclass
class Body:
    """One request: pairs of an action and a document, or a deletion alone.

    Attributes:
        part: the part file that the documents are from.
        entries: document id -> its lines.
        size: bytes of all lines, with their ends.
    """

    part: str
    entries: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    size: int = 0

    @property
    def documents(self) -> int:
        """Documents that are indexed."""
        return sum(len(lines) == 2 for lines in self.entries.values())

    @property
    def lines(self) -> Iterator[bytes]:
        """All lines."""
        for lines in self.entries.values():
            yield from lines


def bodies(rows: TableRows, part: str, form: DocumentForm, max_bytes: int = MAX_BYTES) -> Iterator[Body]:
    """Yield the documents of one part as bodies of at most `max_bytes`; a document that is larger goes alone."""
    body = Body(part)
    for id_, lines in _entries(rows, part, form):
        size = sum(map(len, lines)) + len(lines)
        if body.entries and body.size + size > max_bytes:
            yield body
            body = Body(part)
        body.entries[id_] = lines
        body.size += size
    if body.entries:
        yield body


def _entries(rows: TableRows, part: str, form: DocumentForm) -> Iterator[tuple[str, tuple[bytes, ...]]]:
    if part == DELETIONS:
        for id_ in rows.deleted:
            yield id_, (dump({"delete": {"_id": id_}}),)
        return
    for id_, document in documents(rows, part, form):
        yield id_, (dump({"index": {"_id": id_}}), document)


def all_parts(rows: TableRows) -> list[str]:
    """The part files in order, and the deletions last."""
    return [*rows.parts(), *([DELETIONS] if rows.deleted else [])]


@dataclass(frozen=True)
class BulkFile:
    """One file of an export.

    Attributes:
        name: its name.
        documents: documents to index.
        deletions: documents to delete.
        size: bytes of the body.
        sha256: of the body, not compressed.
        oversized: the document that alone is larger than the limit.
    """

    name: str
    documents: int
    deletions: int
    size: int
    sha256: str
    oversized: str | None = None


def export_bulk(
    rows: TableRows,
    form: DocumentForm,
    index: dict[str, Any],
    folder: str,
    *,
    max_bytes: int = MAX_BYTES,
    compression: Compression = "none",
    advance: Callable[[int], None] = lambda documents: None,
) -> dict[str, Any]:
    """Write ``index.json``, ``bulk-NNNNN.ndjson`` and ``manifest.json``.

    Part files of the table that are done are noted as it goes, so an export that was killed goes on where it
    stopped. The manifest comes last: a folder with one is whole.

    Args:
        rows: the rows to export.
        form: how documents are written.
        index: what the index is created with.
        folder: where to; a local folder.
        max_bytes: largest size of a body; a document that is larger goes alone.
        compression: of the files.
        advance: is told of documents that are written.

    Returns:
        The manifest.

    Raises:
        PipelineError: the folder holds something else.
    """
    if not files.is_local(folder):
        raise PipelineError(f"[{folder}] is not a local folder; export to one, and copy it")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    manifest = _manifest(rows, form, max_bytes, compression)
    done = _resume(target, manifest)
    if done is None:
        finished: dict[str, Any] = json.loads((target / "manifest.json").read_text())
        return finished
    _write_json(target / "index.json", index)
    number = sum(map(len, done.values()))
    for part in [part for part in all_parts(rows) if part not in done]:
        written = []
        for body in bodies(rows, part, form, max_bytes):
            written.append(asdict(_write(target, number, body, max_bytes, compression)))
            number += 1
            advance(len(body.entries))
        done[part] = written
        _write_json(target / "progress.json", {"export": manifest, "parts": done})
    entries = [entry for part in all_parts(rows) for entry in done[part]]
    manifest |= {
        "documents": sum(entry["documents"] for entry in entries),
        "deletions": sum(entry["deletions"] for entry in entries),
        "files": entries,
    }
    _write_json(target / "manifest.json", manifest)
    (target / "progress.json").unlink(missing_ok=True)
    return manifest


def _manifest(
    rows: TableRows, form: DocumentForm, max_bytes: int, compression: Compression
) -> dict[str, Any]:
    """What decides which files an export has."""
    return {
        "format": 1,
        "table": {"path": rows.snapshot.path, "id": rows.snapshot.id, "version": rows.snapshot.version},
        "since": list(rows.since),
        "form": form.form,
        "vectors": form.vectors,
        "inference_ids": dict(form.inference_ids),
        "substituted_models": substitutions(rows),
        "max_bytes": max_bytes,
        "compression": compression,
    }


def substitutions(rows: TableRows) -> dict[str, str]:
    """Model that an endpoint asks for -> the model that stood in for it when the rows were embedded."""
    models = [described.get("model", {}) for described in rows.fields.values()]
    return {
        str(model["substituted_for"]): str(model.get("model_id"))
        for model in models
        if model.get("substituted_for")
    }


def _resume(target: Path, manifest: dict[str, Any]) -> dict[str, list[dict[str, Any]]] | None:
    """The parts that an export which was broken off has finished; None where it is complete."""
    with suppress(FileNotFoundError, json.JSONDecodeError):
        complete = json.loads((target / "manifest.json").read_text())
        if complete.items() >= manifest.items():
            return None
    with suppress(FileNotFoundError, json.JSONDecodeError):
        progress = json.loads((target / "progress.json").read_text())
        if progress["export"] == manifest:
            return dict(progress["parts"])
    strangers = [path.name for path in target.iterdir() if not _is_ours(path)]
    if strangers:
        raise PipelineError(
            f"[{target}] holds other files, for example {strangers[0]}; name an empty folder, or one with an export"
        )
    for path in target.iterdir():
        path.unlink()
    return {}


def _is_ours(path: Path) -> bool:
    return path.is_file() and (
        path.name in ("index.json", "manifest.json", "progress.json")
        or path.name.lstrip(".").startswith("bulk-")
    )


def _write(target: Path, number: int, body: Body, max_bytes: int, compression: Compression) -> BulkFile:
    data = b"".join(line + b"\n" for line in body.lines)
    name = f"bulk-{number:05d}.ndjson" + ("" if compression == "none" else f".{compression}")
    with files.create(str(target / name)) as handle:
        handle.write(_compress(data, compression))
    oversized = next(iter(body.entries)) if body.size > max_bytes else None
    deletions = len(body.entries) - body.documents
    return BulkFile(name, body.documents, deletions, len(data), hashlib.sha256(data).hexdigest(), oversized)


def _compress(data: bytes, compression: Compression) -> bytes:
    if compression == "gz":
        return gzip.compress(data, 5, mtime=0)
    if compression == "none":
        return data
    return bytes(pa.Codec("zstd").compress(data, asbytes=True))


def read_bulk(folder: str, entry: dict[str, Any]) -> list[bytes]:
    """The lines of one file of an export.

    Raises:
        PipelineError: the file is not the one that the manifest names.
    """
    path = Path(folder) / entry["name"]
    raw = path.read_bytes()
    data = raw
    if path.suffix == ".gz":
        data = gzip.decompress(raw)
    elif path.suffix == ".zst":
        data = bytes(pa.Codec("zstd").decompress(raw, entry["size"], asbytes=True))
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise PipelineError(
            f"{path} is not the file that the manifest describes: its content differs; export again"
        )
    return data.split(b"\n")[:-1]


def _write_json(path: Path, value: Any) -> None:
    with files.create(str(path)) as handle:
        handle.write(orjson.dumps(value, option=orjson.OPT_INDENT_2))
