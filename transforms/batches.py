"""What flows from stage to stage: documents, some of them together."""

import pickle
from typing import Any

from apache_beam.coders import Coder, registry
from apache_beam.coders.coder_impl import CallbackCoderImpl

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

    def _create_impl(self) -> Any:
        return CallbackCoderImpl(pickle.dumps, pickle.loads, _guess_size)

    def is_deterministic(self) -> bool:
        return False


def _guess_size(batch: list[Any], nested: bool = False) -> int:
    return len(batch) * _TYPICAL_DOCUMENT


for _kind in (DocumentBatch, ChunkedBatch):
    registry.register_coder(_kind, _BatchCoder)
