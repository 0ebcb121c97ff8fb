"""Reader of a table that this program wrote: each row's document, as it was before it was embedded."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from transforms import exact_json
from transforms.read.archives import open_file
from transforms.read.rows.readers import BadDocumentError, Row, SourceFormat
from transforms.records import Document, Location, Piece

COLUMNS = ["_id", "_source", "content_hash"]
"""What a row holds of its document. The hash is that of the source it came from, which the row alone cannot tell."""

_BATCH_ROWS = 512


def table_rows(piece: Piece, source: SourceFormat) -> Iterator[Row]:
    """A part file of a table: the documents of the piece's row groups."""
    number = 0
    try:
        with open_file(piece.path) as handle:
            part = pq.ParquetFile(handle, page_checksum_verification=True)
            end = part.num_row_groups if piece.end < 0 else piece.end
            groups = list(range(piece.start, end))
            for batch in part.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups, columns=COLUMNS):
                for row in zip(*(batch.column(name).to_pylist() for name in COLUMNS), strict=True):
                    yield number, _document(row, Location(piece.path, piece.first_line + number))
                    number += 1
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's, about the file as a whole
        yield number, BadDocumentError(f"the part file is damaged from here on: {error}", "rest of the file")


def _document(row: tuple[str, str, str], location: Location) -> Document | BadDocumentError:
    document_id, source, content_hash = row
    try:
        return Document(document_id, exact_json.loads(source), content_hash, location)
    except ValueError as error:
        return BadDocumentError(f"the row [{document_id}] holds no JSON document: {error}")
