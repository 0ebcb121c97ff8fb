"""Write what a graph hands to the launcher: the list of finished parts, and the documents that failed.

Only file statistics and failures pass through the GroupByKeys here, never a text or an embedding. Each output is one
file under a fixed name in the run's folder, so a retry writes the same file again.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from transforms import files
from transforms.handover.records import to_line


@dataclass
class WriteRecords(beam.PTransform):
    """Write all records of a PCollection to one JSON-lines file; no file where there are none.

    Attributes:
        path: the file.
    """

    path: str

    def expand(self, records: beam.PCollection) -> beam.PCollection[str]:
        """Bring the records together and write them."""
        return (
            records
            | "ToJson" >> beam.Map(_to_line).with_output_types(tuple[int, bytes])
            | beam.GroupByKey()
            | "Write" >> beam.Map(_write_lines, self.path).with_output_types(str)
        )


def _to_line(record: Any) -> tuple[int, bytes]:
    return 0, to_line(record)


def _write_lines(grouped: tuple[int, Iterable[bytes]], path: str) -> str:
    with files.create(path) as handle:
        for line in grouped[1]:
            handle.write(line)
    return path
