"""A look at the first documents of a source, before a run is begun."""

import os
from itertools import islice

from pipeline.config.resolve import ResolvedConfig
from pipeline.run.guards import first_reasons, unfilled
from pipeline.run.source import find_source, source_format
from transforms.read.columns import SourceLook
from transforms.read.documents import read_documents
from transforms.read.formats import FORMATS
from transforms.read.rows.readers import BadDocumentError
from transforms.read.splits import Listing
from transforms.records import Document, Failure, Piece

FIRST_DOCUMENTS = 1_000
"""Documents of each kind of file that are looked at."""


def look_at_source(resolved: ResolvedConfig) -> list[str]:
    """Read the first documents of each kind of file; returns the problems that would stop a run, or cost much of it."""
    source = resolved.config.source
    format_ = FORMATS[source.format]
    if format_.is_folder or format_.fetch is not None:
        return []  # to read is to extract, or to ask a service
    look = SourceLook.of(resolved.shape)
    documents, failures = 0, []
    for piece in _first_of_each_kind(find_source(resolved.config)):
        read = read_documents(piece, source_format(resolved.config))
        for _, found in islice(read, FIRST_DOCUMENTS):
            if isinstance(found, Document):
                look.see(found.source)
                problem = _problem(resolved, found, look)
                documents += problem is None
                failures += [problem] if problem else []
            elif isinstance(found, Failure):
                failures.append(found)
    problems = []
    if len(failures) > documents * resolved.config.failures.max_ratio:
        failed = f"{len(failures):,} of the first {documents + len(failures):,} documents would fail"
        problems.append(f"source: {failed}.{first_reasons(failures)}")
    missing = [field for field in resolved.fields if field.name not in look.filled] if documents else []
    return problems + [f"mappings: {unfilled(field, look.fields)}" for field in missing]


def _first_of_each_kind(listing: Listing) -> list[Piece]:
    kinds: dict[str, Piece] = {}
    for split in listing.splits:
        for piece in split.pieces:
            kinds.setdefault(os.path.splitext(piece.path)[1].lower(), piece)
    return list(kinds.values())


def _problem(resolved: ResolvedConfig, document: Document, look: SourceLook) -> Failure | None:
    """Why a document would fail for its values; several values of a field are no reason."""
    shape = resolved.with_lists(look.several | resolved.layout.lists).shape
    try:
        shape.column_values(document.source)
    except BadDocumentError as error:
        return Failure("read", document.id, *document.location, type(error).__name__, str(error))
    return None
