"""What a model gives back: one array-backed value for a batch of texts, and the interface of a loaded model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

InputType = Literal["ingest", "search", "classification", "clustering"]

Span = tuple[int, int]
"""A part of a text: its first character and the one after the last."""

OnBatch = Callable[[int, int], None]
"""Told of each batch as soon as it is embedded: its number of embeddings, and of tokens that the model saw (0 if
unknown); called from any thread."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class DenseEmbeddings:
    """Dense embeddings of n texts.

    Attributes:
        values: array [n, dimensions]; float32, or int8 for the element types ``byte`` and ``bit``
            (``bit``: 8 dimensions a byte, packed high bit first, as signed bytes).
        is_truncated: bool [n]; True where the model's window cut the text.
        tokens: int32 [n]; tokens of each text that the model saw, special tokens included (0 if unknown).
    """

    values: npt.NDArray[np.float32] | npt.NDArray[np.int8]
    is_truncated: npt.NDArray[np.bool_]
    tokens: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Sequence[int] | npt.NDArray[np.intp]) -> "DenseEmbeddings":
        """Return the embeddings of `rows`, in that order."""
        rows = np.asarray(rows, np.intp)
        return DenseEmbeddings(self.values[rows], self.is_truncated[rows], self.tokens[rows])

    def slice(self, start: int, end: int) -> "DenseEmbeddings":
        """Return the embeddings of neighbouring rows, without a copy."""
        rows = slice(start, end)
        return DenseEmbeddings(self.values[rows], self.is_truncated[rows], self.tokens[rows])

    @staticmethod
    def concat(parts: Sequence["DenseEmbeddings"]) -> "DenseEmbeddings":
        """Join embeddings of the same model."""
        return DenseEmbeddings(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.is_truncated for part in parts]),
            np.concatenate([part.tokens for part in parts]),
        )


@dataclass(frozen=True, slots=True, weakref_slot=True)
class SparseEmbeddings:
    """Sparse embeddings of n texts in compressed sparse rows.

    Row i owns the entries ``indptr[i]:indptr[i + 1]``, sorted by descending weight. Weights are > 0.

    Attributes:
        indptr: int64 [n + 1].
        token_ids: int32 [entries]; positions in `vocabulary`.
        weights: float32 [entries].
        vocabulary: the model's tokens, by id; the same object for every batch of one model.
        is_truncated: bool [n].
        tokens: int32 [n].
    """

    indptr: npt.NDArray[np.int64]
    token_ids: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    vocabulary: Sequence[str]
    is_truncated: npt.NDArray[np.bool_]
    tokens: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def take(self, rows: Sequence[int] | npt.NDArray[np.intp]) -> "SparseEmbeddings":
        """Return the embeddings of `rows`, in that order."""
        rows = np.asarray(rows, np.intp)
        lengths = np.diff(self.indptr)[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        # Each row's entries move as one block: the same shift, old start less new start, for all of them.
        entries = np.repeat(self.indptr[rows] - indptr[:-1], lengths) + np.arange(indptr[-1])
        return SparseEmbeddings(
            indptr,
            self.token_ids[entries],
            self.weights[entries],
            self.vocabulary,
            self.is_truncated[rows],
            self.tokens[rows],
        )

    def slice(self, start: int, end: int) -> "SparseEmbeddings":
        """Return the embeddings of neighbouring rows, without a copy."""
        rows, entries = slice(start, end), slice(int(self.indptr[start]), int(self.indptr[end]))
        return SparseEmbeddings(
            self.indptr[start : end + 1] - self.indptr[start],
            self.token_ids[entries],
            self.weights[entries],
            self.vocabulary,
            self.is_truncated[rows],
            self.tokens[rows],
        )

    @staticmethod
    def concat(parts: Sequence["SparseEmbeddings"]) -> "SparseEmbeddings":
        """Join embeddings; where their vocabularies differ, the result has one with just the tokens in use."""
        if any(part.vocabulary is not parts[0].vocabulary for part in parts):
            parts = _share_vocabulary(parts)
        lengths = np.concatenate([np.diff(part.indptr) for part in parts])
        return SparseEmbeddings(
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            np.concatenate([part.token_ids for part in parts]),
            np.concatenate([part.weights for part in parts]),
            parts[0].vocabulary,
            np.concatenate([part.is_truncated for part in parts]),
            np.concatenate([part.tokens for part in parts]),
        )

    def row(self, index: int) -> dict[str, float]:
        """Return one embedding as Elasticsearch prints it: token -> weight, heaviest first."""
        entries = slice(int(self.indptr[index]), int(self.indptr[index + 1]))
        return {
            self.vocabulary[token]: weight
            for token, weight in zip(
                self.token_ids[entries].tolist(), self.weights[entries].tolist(), strict=True
            )
        }


def _share_vocabulary(parts: Sequence[SparseEmbeddings]) -> list[SparseEmbeddings]:
    ids: dict[str, int] = {}
    remapped = []
    for part in parts:
        # Each token in use is looked up once; `inverse` then spreads its new id over all its entries.
        used, inverse = np.unique(part.token_ids, return_inverse=True)
        shared = [ids.setdefault(part.vocabulary[token], len(ids)) for token in used.tolist()]
        remapped.append(np.asarray(shared, np.int32)[inverse] if shared else part.token_ids)
    vocabulary = list(ids)
    return [
        SparseEmbeddings(part.indptr, token_ids, part.weights, vocabulary, part.is_truncated, part.tokens)
        for part, token_ids in zip(parts, remapped, strict=True)
    ]


Embeddings = DenseEmbeddings | SparseEmbeddings


class Embedder(Protocol):
    """A loaded model or an open service, ready to embed. Weak-referenceable, safe to call from several threads.

    Attributes:
        device: where it computes on this machine: ``cpu`` or a CUDA device.
    """

    device: str = "cpu"

    def embed(
        self, texts: Sequence[str], input_type: InputType, on_batch: OnBatch | None = None
    ) -> Embeddings:
        """Embed `texts` in order.

        Args:
            texts: any number of texts; batching is the embedder's own affair.
            input_type: picks the prefix, adapter or task of the model.
            on_batch: told of every batch that is done, for whoever shows progress.

        Raises:
            InferenceError: the request failed; the caller may try fewer texts to find the one to blame.
        """
        ...

    def embed_spans(
        self, texts: Sequence[str], spans: Sequence[Sequence[Span]], on_batch: OnBatch | None = None
    ) -> Embeddings:
        """Embed parts of documents within their surroundings: each text is computed once, each part pooled alone.

        Only what `models.late_chunking` finds fit for it can.

        Args:
            texts: any number of texts.
            spans: the parts of each text, which may overlap.
            on_batch: told of every batch that is done.

        Returns:
            One embedding a part, those of the first text first.
        """
        raise TypeError(f"{type(self).__name__} embeds whole texts only")

    def count_tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """Count the tokens of each text before truncation, special tokens included (int32 [n])."""
        ...

    def take_retries(self) -> tuple[str, int]:
        """Return the endpoint's id and how many requests were tried again since this was asked last; "", 0 for none."""
        return "", 0

    def close(self) -> None:
        """Release the model, its threads and its connections."""
        ...
