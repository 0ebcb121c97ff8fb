"""The Beam stage around `transforms.read.scan`, in a module of its own: small sources are scanned without Beam."""

from dataclasses import dataclass

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms.read.columns import DocumentShape
from transforms.read.rows.readers import SourceFormat
from transforms.read.scan import write_scan
from transforms.records import Split


@dataclass
class ScanDocuments(beam.PTransform):
    """Scan splits into one small Parquet file each, `<folder>/scan-<split>.parquet`; gives the files' paths.

    Nothing fails here: what cannot be read is a row of the scan, and the plan tells of it.

    Attributes:
        source: how to read it.
        deleted_field: name of the boolean field that marks a tombstone.
        folder: the run's folder.
        shape: the mapping.
    """

    source: SourceFormat
    deleted_field: str | None
    folder: str
    shape: DocumentShape

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, splits: beam.pvalue.PCollection[Split]) -> beam.pvalue.PCollection[str]:
        """Wire the stage."""
        return splits | beam.ParDo(_ScanSplit(self.source, self.deleted_field, self.folder, self.shape))


class _ScanSplit(beam.DoFn):
    """Scans one split."""

    documents_scanned = Metrics.counter("scan", "documents_scanned")

    def __init__(
        self, source: SourceFormat, deleted_field: str | None, folder: str, shape: DocumentShape
    ) -> None:
        self.source = source
        self.deleted_field = deleted_field
        self.folder = folder
        self.shape = shape

    def process(self, split: Split) -> list[str]:
        """Scan one split."""
        path, rows = write_scan(split, self.source, self.deleted_field, self.folder, self.shape)
        self.documents_scanned.inc(rows)
        return [path]
