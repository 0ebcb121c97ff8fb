"""The files of a folder as documents, and the members of the archives among them.

A pass over them reads and hashes bytes and tells types; the text is extracted only of those that a run works on. So
an unchanged file costs its reading, whatever it would take to extract.
"""

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import IO, Any

from models.text import Utf16Text
from transforms import files
from transforms.read.archives import COMPRESSED, MAX_DEPTH, MEMBER_MARK, members
from transforms.read.extract.content_types import HEAD, TYPES, ContentType, content_type, is_called_document
from transforms.read.extract.pool import Extracted, ExtractionError, Extractor
from transforms.read.rows.readers import BadDocumentError, Row, SourceFormat, checked_id, title
from transforms.records import BYTES_HASH, Document, Failure, Location, Piece, Sketch, Skipped

Found = Sketch | Skipped | Failure

FIELDS = (
    *("path", "title", "content_type", "text", "author", "created", "modified"),
    *("pages", "language", "page_offsets"),
)
"""Fields that a document of a file may have."""

VERSION = 1
"""Raised when this program itself makes other text of the same file."""

_LANGUAGES = {
    "cmn": "zh",
    "pes": "fa",
    "nob": "nb",
    "zsm": "ms",
    "arb": "ar",
    "ydd": "yi",
    "azj": "az",
    "uzn": "uz",
}


def folder_rows(piece: Piece, source: SourceFormat) -> Iterator[Row]:
    """Sketch what a file holds; what is no document is skipped by type, or a failure."""
    yield from enumerate(_File(piece.path, source).documents(piece.name))


@dataclass(frozen=True, slots=True)
class _File:
    """One file of the folder, down to what is packed in it.

    Attributes:
        path: the file.
        source: how to read it.
    """

    path: str
    source: SourceFormat

    def documents(self, name: str) -> Iterator[Found]:
        """What the file holds; `name` is its path below the folder."""
        limit = self.source.max_document_bytes
        with files.open_read(self.path) as handle:
            content = handle.read(limit + 1)
            if len(content) <= limit:
                yield from self._of_content(content, name, self.path, 0)
                return
            type_ = content_type(content[:HEAD], name)
            del content
            if type_.treatment != "archive":
                problem = f"the file is larger than source.max_document_bytes [{limit}]"
                yield self._failure(problem, self.path)
                return
            size = handle.seek(0, os.SEEK_END)
            handle.seek(0)
            yield from self._of_archive(handle, size, type_, name, self.path, 1)

    def _of_content(self, content: bytes, name: str, path: str, depth: int) -> Iterator[Found]:
        """What one file, or member of an archive, is."""
        type_ = content_type(content, name)
        if type_.treatment == "archive":
            if depth >= MAX_DEPTH:
                yield self._failure(f"archives lie more than {MAX_DEPTH} deep in each other", path)
            else:
                yield from self._of_archive(io.BytesIO(content), len(content), type_, name, path, depth + 1)
        elif type_.name == "binary" and is_called_document(name):
            yield self._failure("the file's content is not what its name says; it may be damaged", path)
        elif type_.treatment == "skip" or (type_.name == "image" and self.source.extract.ocr is None):
            yield Skipped(type_.name, Location(path, 0))
        else:
            digest = _hash(content, type_, self.source.extract.ocr)
            document_id = digest if self.source.id is None else name
            try:
                yield Sketch(
                    checked_id(document_id, "path"), digest, Location(path, 0), name, type_.name, content
                )
            except BadDocumentError as error:
                yield self._failure(str(error), path)

    def _of_archive(
        self, handle: IO[bytes], size: int, type_: ContentType, name: str, path: str, depth: int
    ) -> Iterator[Found]:
        for member in members(handle, type_.name, name, size, self.source.max_document_bytes):
            inner_name, inner_path = f"{name}/{member.name}", f"{path}{MEMBER_MARK}{member.name}"
            if type_.name in COMPRESSED and member.name == os.path.splitext(os.path.basename(name))[0]:
                inner_name, inner_path = name, path  # a file that is only compressed keeps its name
            if member.content is None:
                yield self._failure(member.problem or "cannot be read", inner_path if member.name else path)
            elif inner_name == name:
                yield from self._of_packed(member.content, name, path, depth)
            else:
                yield from self._of_content(member.content, inner_name, inner_path, depth)

    def _of_packed(self, content: bytes, name: str, path: str, depth: int) -> Iterator[Found]:
        """What a compressed file holds: its ending, and so the type of a text, lies before that of the compression."""
        for found in self._of_content(content, os.path.splitext(name)[0], path, depth):
            yield replace(found, id=name, name=name) if isinstance(found, Sketch) else found

    def _failure(self, problem: str, path: str) -> Failure:
        return Failure("read", None, path, 0, "BadDocumentError", problem)


@cache
def _key(is_extracted: bool, ocr: str | None) -> bytes:
    """What the text of a file depends on beside its bytes."""
    from transforms.read.extract.library import library_version

    version = library_version() if is_extracted else ""
    return f"{VERSION} {version} {ocr or ''}".encode()[:64]


def _hash(content: bytes, type_: ContentType, ocr: str | None) -> str:
    key = _key(type_.name not in ("text", "markdown"), ocr)
    return hashlib.blake2b(content, digest_size=16, key=key).hexdigest() + BYTES_HASH


def extract_document(sketch: Sketch, extractor: Extractor) -> tuple[Document | Failure, Extracted | None]:
    """Make the document of a sketch.

    Returns:
        The document, or the failure that it became, and what extraction found.
    """
    try:
        extracted = extractor.extract(sketch.content, sketch.content_type)
    except ExtractionError as error:
        return Failure("read", sketch.id, *sketch.location, "ExtractionError", str(error)), None
    fields = _fields(sketch, extracted.fields)
    return Document(sketch.id, fields, sketch.content_hash, sketch.location), extracted


def _fields(sketch: Sketch, found: dict[str, Any]) -> dict[str, Any]:
    """The fields of a document; those that are not known are left out."""
    text = found["text"]
    has_headings = sketch.content_type not in ("text", "csv", "tsv", "email", "msg", "image")
    fields: dict[str, Any] = {
        "path": sketch.name,
        "title": found.get("title") or title(sketch.name, text, is_markdown=has_headings),
        "content_type": TYPES[sketch.content_type].mime,
        **{key: found[key] for key in ("text", "author", "created", "modified", "pages") if key in found},
    }
    if "language" in found:
        fields["language"] = _language(found["language"])
    if "page_offsets" in found:
        utf16 = Utf16Text(text)
        fields["page_offsets"] = [utf16.offset(place) for place in found["page_offsets"]]
    return fields


def _language(code: str) -> str:
    """A language code as ISO 639-1 has it, where it does."""
    import icu

    return _LANGUAGES.get(code) or str(icu.Locale(code).getLanguage()) or code
