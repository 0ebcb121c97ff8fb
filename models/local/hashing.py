"""Service ``hashing``: hashed bags of words, with no weights to load, for tests, dry runs and scale runs.

Deterministic on every machine and fast (millions of words a second). Retrieval is that of a plain bag of
words without document frequencies: real, and far from a trained model.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.embeddings import DenseEmbeddings, Embedder, Embeddings, InputType, OnBatch, SparseEmbeddings
from models.endpoints.endpoint import Endpoint
from models.local.settings import digest, dimension_problems, dimensions_of, model_settings
from models.local.vectors import encode_elements, normalize

VERSION = 1
"""Raised when a change to this code changes embeddings."""
BUCKETS = 1 << 16
DEFAULT_DIMENSIONS = 64
_TYPICAL_LENGTH = 120.0  # words of a chunk; where a word's second occurrence counts half
_MAX_CACHED_WORDS = 500_000
# Scripts without spaces: each character is a word.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD, _ALONE = 1, 2
_FUNCTION_WORDS = frozenset(
    """
    a about after all also an and any are as at be because been but by can could did do does for from
    had has have he her his how i if in into is it its may more most no not of on one only or other our
    she should so some such than that the their them then there these they this those through to was we
    were what when where which while who why will with would you your
    """.split()  # noqa: SIM905 - a list of 100 strings reads worse
)


class HashingEmbedder(Embedder):
    """Embeds by hashing words; holds no model. Safe to call from several threads."""

    def __init__(self, dimensions: int | None, element_type: str = "float") -> None:
        """Build an embedder.

        Args:
            dimensions: length of the dense embeddings; None makes sparse ones.
            element_type: ``float``, ``byte`` or ``bit``, for dense embeddings.
        """
        self._dimensions = dimensions
        self._element_type = element_type

    def embed(
        self, texts: Sequence[str], input_type: InputType, on_batch: OnBatch | None = None
    ) -> Embeddings:
        """Embed `texts`; all input types are alike."""
        rows, words, counts, lengths = _count_words(texts)
        weights = _saturate(counts, lengths[rows]) * np.where(words & _FUNCTION_BIT, 0.05, 1.0)
        truncated = np.zeros(len(texts), np.bool_)
        if on_batch is not None:
            on_batch(len(texts), int(lengths.sum()))
        if self._dimensions is None:
            indptr, token_ids, kept = _sparse_rows(rows, words, weights, len(texts))
            return SparseEmbeddings(indptr, token_ids, kept, bucket_names(), truncated, lengths)
        values = normalize(_project(rows, words, weights, len(texts), self._dimensions))
        return DenseEmbeddings(encode_elements(values, self._element_type), truncated, lengths)

    def count_tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """Count the words of each text."""
        return count_words(texts)

    def close(self) -> None:
        """Nothing to release."""


def count_words(texts: Sequence[str]) -> npt.NDArray[np.int32]:
    """Count the words of each text (int32 [n])."""
    return _find_words([text.lower() for text in texts]).lengths


class _Words(NamedTuple):
    """The words of several texts.

    Attributes:
        lengths: int32 [texts]; words of each.
        distinct: each word once.
        which: int32 [words]; their places in `distinct`.
    """

    lengths: npt.NDArray[np.int32]
    distinct: list[str]
    which: npt.NDArray[np.int32]


def _find_words(texts: Sequence[str]) -> _Words:
    """Find the words of lower-case texts, all at once."""
    joined = "\n".join(texts)
    # One byte a character where that is enough, else four.
    encoding, unit = ("ascii", np.uint8) if joined.isascii() else ("utf-32-le", np.uint32)
    characters = np.frombuffer(joined.encode(encoding, "surrogatepass"), unit)
    kinds = _kinds()[characters]
    # A word begins at a character of a word that has none before it, and at each that stands alone; it ends likewise.
    before, after = np.roll(kinds, 1), np.roll(kinds, -1)
    if len(kinds):
        before[0] = after[-1] = 0
    inside = kinds == _WORD
    starts = np.flatnonzero((inside & (before != _WORD)) | (kinds == _ALONE))
    ends = np.flatnonzero((inside & (after != _WORD)) | (kinds == _ALONE)) + 1
    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    text_ends = np.cumsum(sizes + 1)  # of each text, with the line feed behind it
    lengths = np.diff(np.searchsorted(starts, text_ends), prepend=0).astype(np.int32)
    # The words alone, end to end, are an Arrow array of strings without a copy of each.
    letters = characters[kinds > 0]
    offsets = np.concatenate([[0], np.cumsum((ends - starts) * letters.itemsize)])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(letters)]
    found = pa.Array.from_buffers(pa.large_binary(), len(starts), buffers).dictionary_encode()
    _, bounds, letters = found.dictionary.buffers()
    distinct = letters.to_pybytes().decode(encoding, "surrogatepass") if letters else ""
    cuts = (np.frombuffer(bounds, np.int64, len(found.dictionary) + 1) // characters.itemsize).tolist()
    return _Words(lengths, [distinct[start:end] for start, end in pairwise(cuts)], found.indices.to_numpy())


@lru_cache(maxsize=1)
def _kinds() -> npt.NDArray[np.uint8]:
    """What each character is: 0 between words, `_WORD` in one, or `_ALONE`, a word by itself."""
    table = np.zeros(0x110000, np.uint8)
    for pattern, kind in ((r"\w+", _WORD), (f"[{_CJK}]+", _ALONE)):
        for match in re.finditer(pattern, "".join(map(chr, range(len(table))))):
            table[match.start() : match.end()] = kind
    return table


@lru_cache(maxsize=1)
def bucket_names() -> tuple[str, ...]:
    """Name the vocabulary of the sparse embeddings: one made-up token for each hash bucket."""
    return tuple(f"h{bucket:04x}" for bucket in range(BUCKETS))


# A word's code is its 32-bit hash, with one bit above it that marks a function word.
_FUNCTION_BIT = 1 << 32


class _WordCodes(dict[str, int]):
    """Word -> code, computed on first sight; looked up at the speed of a dict."""

    def __missing__(self, word: str) -> int:
        code = zlib.crc32(word.encode("utf-8", "surrogatepass"))
        code = (code * 0x9E3779B1) & 0xFFFFFFFF  # crc32 alone is linear: similar words would land together
        code |= _FUNCTION_BIT if word in _FUNCTION_WORDS else 0
        if len(self) < _MAX_CACHED_WORDS:
            self[word] = code
        return code


_CODES = _WordCodes()


def _count_words(
    texts: Sequence[str],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Return the distinct (text, word code) pairs, how often each occurs, and each text's number of words."""
    lengths, distinct, which = _find_words([text.lower() for text in texts])
    codes = np.fromiter(map(_CODES.__getitem__, distinct), np.int64, len(distinct))
    # (text, word) as one number: the word's code takes the lower 33 bits.
    keys = (np.repeat(np.arange(len(texts)), lengths) << 33) | codes[which]
    pairs, counts = np.unique(keys, return_counts=True)
    return pairs >> 33, pairs & ((1 << 33) - 1), counts, lengths


def _saturate(counts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Weigh occurrences as BM25 does: with diminishing returns, and less in long texts."""
    return 2.2 * counts / (counts + 1.2 * (0.25 + 0.75 * lengths / _TYPICAL_LENGTH))


def _project(
    rows: npt.NDArray[np.int64],
    words: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float64],
    texts: int,
    dimensions: int,
) -> npt.NDArray[np.float32]:
    """Give every word a fixed random direction of four signed coordinates, and add them up."""
    total = np.zeros(texts * dimensions)
    code = (words & 0xFFFFFFFF).astype(np.uint64)
    # Four odd multipliers mix a code in four ways. The upper bits of a product depend on all bits of the code: the
    # first one gives the sign, the upper 31 the coordinate.
    for multiplier in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93):
        mixed = (code + np.uint64(1)) * np.uint64(multiplier)
        coordinate = ((mixed >> np.uint64(33)) % np.uint64(dimensions)).astype(np.int64)
        sign = np.where(mixed >> np.uint64(63), -1.0, 1.0)
        # Coordinates of all texts lie end to end, so that one bincount adds up everything.
        total += np.bincount(rows * dimensions + coordinate, weights * sign, len(total))
    values = total.reshape(texts, dimensions).astype(np.float32)
    # A text without words still needs a direction: a zero vector has no cosine, and Elasticsearch refuses it.
    values[~values.any(axis=1), 0] = 1.0
    return values


def _sparse_rows(
    rows: npt.NDArray[np.int64], words: npt.NDArray[np.int64], weights: npt.NDArray[np.float64], texts: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Fold words into buckets, keeping the heavier of two that collide, and sort each row by weight."""
    bucket = (words & 0xFFFFFFFF) >> 16  # the upper 16 of the hash's 32 bits: BUCKETS of them
    order = np.lexsort((-weights, bucket, rows))
    rows, bucket, weights = rows[order], bucket[order], weights[order]
    # Sorted by text, bucket, then weight: the first of each run is the heaviest.
    first = np.ones(len(rows), np.bool_)
    first[1:] = (rows[1:] != rows[:-1]) | (bucket[1:] != bucket[:-1])
    rows, bucket, weights = rows[first], bucket[first], weights[first]
    order = np.lexsort((bucket, -weights, rows))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=texts))]).astype(np.int64)
    return indptr, bucket[order].astype(np.int32), weights[order].astype(np.float32)


@dataclass(frozen=True)
class HashingModel:
    """Hashed bags of words; see this module.

    Attributes:
        endpoint: the endpoint that names it.
    """

    endpoint: Endpoint

    @property
    def dimensions(self) -> int | None:
        """Length of the dense embeddings; None for sparse ones."""
        return dimensions_of(self.endpoint, DEFAULT_DIMENSIONS)

    @property
    def fingerprint(self) -> str:
        """See `models.model.Model`."""
        return digest({"model": "hashing", "version": VERSION, **self.model_settings})

    @property
    def model_settings(self) -> dict[str, Any]:
        """See `models.model.Model`."""
        return model_settings(self.endpoint, self.dimensions)

    @property
    def weight_bytes(self) -> int:
        """No weights are loaded here."""
        return 0

    @property
    def max_tokens(self) -> int | None:
        """No text is too long."""
        return None

    def describe(self) -> dict[str, Any]:
        """See `models.model.Model`."""
        return {
            "model_id": "hashing",
            "location": None,
            "revision": str(VERSION),
            "substituted_for": None,
            "licence": None,
        }

    def problems(self) -> list[str]:
        """Only a number of dimensions that does not fit the element type can stop it."""
        return dimension_problems(self.endpoint, self.dimensions, ())

    def count_tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """Count the words of each text."""
        return count_words(texts)

    def impatient(self, timeout: float | None = None) -> "HashingModel":
        """Nothing here waits for a service."""
        return self

    def load(self, device: str | None = None) -> Embedder:
        """There is nothing to load; `device` has no meaning here."""
        return HashingEmbedder(self.dimensions, self.endpoint.element_type)
