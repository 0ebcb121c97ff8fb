"""What flows from stage to stage: documents, some of them together."""

import pickle
from typing import Any

from apache_beam.coders import Coder, registry

from transforms.records import ChunkedDocument, Document

_TYPICAL_DOCUMENT = 4096


class DocumentBatch(list[Document]):
    """Documents that were read one after the other."""


class ChunkedBatch(list[ChunkedDocument]):
    """Documents that were cut, or embedded, together."""


class _BatchCoder(Coder):
    """Pickles a batch where it has to leave the process, and guesses its size.

    Beam wants to know the size of elements now and then, and would pickle whole batches to find out.
    """

    def encode(self, value: list[Any]) -> bytes:
        return pickle.dumps(value)

    def decode(self, encoded: bytes) -> Any:
        # A worker of this run pickled it; who could slip in other bytes here could send Beam code to run, pickled, too.
        return pickle.loads(encoded)  # noqa: S301

    def estimate_size(self, value: list[Any]) -> int:
        return len(value) * _TYPICAL_DOCUMENT

    def is_deterministic(self) -> bool:
        return False


for _kind in (DocumentBatch, ChunkedBatch):
    registry.register_coder(_kind, _BatchCoder)
