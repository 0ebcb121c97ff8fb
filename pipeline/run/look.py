"""A look at the first documents of a source, before a run is begun."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice

from pipeline.config.resolve import ResolvedConfig
from pipeline.errors import PipelineError
from pipeline.run.guards import first_reasons, unfilled
from pipeline.run.source import find_source, source_format
from transforms.read.columns import SourceLook
from transforms.read.documents import read_documents
from transforms.read.formats import FORMATS
from transforms.read.rows.readers import BadDocumentError, SourceFormat
from transforms.read.splits import Listing
from transforms.records import Document, Failure, Piece, Sketch, Skipped

FIRST_DOCUMENTS = 1_000
"""Documents of each kind of file that are looked at, and files of a folder whose types are told."""

FIRST_BYTES = 256 << 20
"""Bytes of a folder's files that are read for that at most."""

TRIES = 3
"""Files of a type that are extracted, until one has text."""


@dataclass
class SourceSeen:
    """What a look at a source found.

    Attributes:
        problems: what would stop a run, or cost much of it.
        types: of a folder, documents by type of their files.
        skipped: of a folder, files that are no document by type.
        files: of a folder, files that were looked at.
        of_files: of a folder, all its files.
    """

    problems: list[str] = field(default_factory=list)
    types: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    files: int = 0
    of_files: int = 0


def look_at_source(resolved: ResolvedConfig) -> SourceSeen:
    """Read the first documents of each kind.

    Raises:
        ConnectionFailed: a database or cluster does not answer.
        PipelineError: the extraction library is missing.
    """
    if FORMATS[resolved.config.source.format].is_folder:
        from transforms.read.extract.pool import LibraryMissingError

        try:
            return _look_at_folder(resolved)
        except LibraryMissingError as error:
            raise PipelineError(str(error)) from None
    look = SourceLook.of(resolved.shape)
    documents, failures = 0, []
    for found in _first_documents(resolved):
        if isinstance(found, Document):
            look.see(found.source)
            problem = _problem(resolved, found, look)
            documents += problem is None
            failures += [problem] if problem else []
        else:
            failures.append(found)
    problems = []
    if len(failures) > documents * resolved.config.failures.max_ratio:
        failed = f"{len(failures):,} of the first {documents + len(failures):,} documents would fail"
        problems.append(f"source: {failed}.{first_reasons(failures)}")
    return SourceSeen(problems + (_unfilled(resolved, look) if documents else []))


def _first_documents(resolved: ResolvedConfig) -> Iterator[Document | Failure]:
    """The first documents of each kind of file, or of a database or index."""
    source = source_format(resolved.config)
    if source.connection is not None:
        # Whole rows, also where a run would first read only what tells whether they changed.
        source = replace(source, connection=replace(source.connection, updated_at=None))
    for piece in _first_of_each_kind(find_source(resolved.config)):
        for _, found in islice(read_documents(piece, source), FIRST_DOCUMENTS):
            if isinstance(found, Document | Failure):
                yield found


def _unfilled(resolved: ResolvedConfig, look: SourceLook) -> list[str]:
    missing = [field for field in resolved.fields if field.name not in look.filled]
    return [f"mappings: {unfilled(field, look.fields)}" for field in missing]


def _first_of_each_kind(listing: Listing) -> list[Piece]:
    kinds: dict[str, Piece] = {}
    for split in listing.splits:
        for piece in split.pieces:
            kinds.setdefault(os.path.splitext(piece.path)[1].lower(), piece)
    return list(kinds.values())


def _look_at_folder(resolved: ResolvedConfig) -> SourceSeen:
    """Tell the types of the first files, and extract the first one of each type that has text."""
    from transforms.read.extract.pool import Extractor
    from transforms.read.folder import extract_document

    source, look, seen = source_format(resolved.config), SourceLook.of(resolved.shape), SourceSeen()
    failures: dict[str, list[Failure]] = {}
    read: set[str] = set()
    with closing(Extractor(replace(source.extract, processes=1))) as extractor:
        for found in _first_files(resolved, source, seen):
            if isinstance(found, Skipped):
                seen.skipped[found.content_type] += 1
            elif isinstance(found, Failure):
                failures.setdefault("", []).append(found)
            else:
                kind = found.content_type
                seen.types[kind] += 1
                if kind in read or len(failures.get(kind, ())) == TRIES:
                    continue
                document, _ = extract_document(found, extractor)
                problem = document if isinstance(document, Failure) else _problem(resolved, document, look)
                if isinstance(document, Document):
                    look.see(document.source)
                if problem is None:
                    read.add(kind)
                else:
                    failures.setdefault(kind, []).append(problem)
    # A type of which every file that was tried failed is taken to fail as a whole.
    unread = [kind for kind in failures if kind not in read]
    failing = len(failures.get("", ())) + sum(seen.types[kind] for kind in unread)
    total = seen.types.total() + len(failures.get("", ()))
    if failing > total * resolved.config.failures.max_ratio:
        reasons = first_reasons([one for kind in unread for one in failures[kind]])
        seen.problems.append(f"source: {failing:,} of the first {total:,} documents would fail.{reasons}")
    if read:
        seen.problems += _unfilled(resolved, look)
    return seen


def _first_files(
    resolved: ResolvedConfig, source: SourceFormat, seen: SourceSeen
) -> Iterator[Sketch | Skipped | Failure]:
    """What the first files of a folder hold."""
    pieces = [piece for split in find_source(resolved.config).splits for piece in split.pieces]
    seen.of_files = len(pieces)
    held = 0
    for piece in pieces[:FIRST_DOCUMENTS]:
        held += piece.size
        if held > FIRST_BYTES and seen.files:
            return
        seen.files += 1
        for _, found in read_documents(piece, source):
            if isinstance(found, Sketch | Skipped | Failure):
                yield found


def _problem(resolved: ResolvedConfig, document: Document, look: SourceLook) -> Failure | None:
    """Why a document would fail for its values; several values of a field are no reason."""
    shape = resolved.with_lists(look.several | resolved.layout.lists).shape
    try:
        shape.column_values(document.source)
    except BadDocumentError as error:
        return Failure("read", document.id, *document.location, type(error).__name__, str(error))
    return None
