"""Service ``hashing``: hashed bags of words, with no weights to load, for tests, dry runs and scale runs.

Deterministic on every machine and fast (millions of words a second). Retrieval is that of a plain bag of
words without document frequencies: real, and far from a trained model.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.embeddings import DenseEmbeddings, Embedder, Embeddings, InputType, OnBatch, SparseEmbeddings
from models.endpoints.endpoint import Endpoint
from models.local.settings import digest, dimension_problems, dimensions_of, model_settings
from models.local.vectors import encode_elements, normalize

VERSION = 1
"""Raised when a change to this code changes embeddings."""
BUCKETS = 1 << 16
DEFAULT_DIMENSIONS = 64
_TYPICAL_LENGTH = 120.0  # words of a chunk; where a word's second occurrence counts half
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
    lengths = np.zeros(len(texts), np.int32)
    for places, found in _find_words(texts):
        lengths[places] = found.lengths
    return lengths


class _Words(NamedTuple):
    """The words of several texts, in lower case.

    Attributes:
        lengths: int64 [texts]; words of each.
        letters: the texts in UTF-8, end to end.
        starts: int64 [words]; where each begins in `letters`.
        ends: int64 [words]; where each ends.
    """

    lengths: npt.NDArray[np.int64]
    letters: bytes
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]


def _find_words(texts: Sequence[str]) -> Iterator[tuple[npt.NDArray[np.int64], _Words]]:
    """Find the words of texts that are ASCII, then those of the others; yields their places with them."""
    is_ascii = np.fromiter(map(str.isascii, texts), np.bool_, len(texts))
    for places in (np.flatnonzero(is_ascii), np.flatnonzero(~is_ascii)):
        if len(places):
            yield places, _words_of([texts[place] for place in places.tolist()])


def _words_of(texts: Sequence[str]) -> _Words:
    joined = "\n".join(texts)
    if joined.isascii():
        letters = joined.encode("ascii").lower()
        kinds = np.frombuffer(letters.translate(_kinds(256).tobytes()), np.uint8)
    else:
        # Some characters are two in lower case.
        texts = [text.lower() for text in texts]
        joined = "\n".join(texts)
        letters = joined.encode("utf-8", "surrogatepass")
        kinds = _kinds(_CHARACTERS)[np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)]
    # Where characters of words begin and cease, by turns; and those that stand alone, a word each.
    edges = np.flatnonzero(np.diff(kinds == _WORD, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    alone = np.flatnonzero(kinds == _ALONE)
    if len(alone):
        starts, ends = np.sort(np.append(starts, alone)), np.sort(np.append(ends, alone + 1))
    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    text_ends = np.cumsum(sizes + 1)  # of each text, with the line feed behind it
    lengths = np.diff(np.searchsorted(starts, text_ends), prepend=0)
    if len(letters) > len(joined):
        first = _first_bytes(joined)
        starts, ends = first[starts], first[ends]
    return _Words(lengths, letters, starts, ends)


def _first_bytes(text: str) -> npt.NDArray[np.int64]:
    """Where each character begins in UTF-8, and where the last one ends."""
    characters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    # One byte, and one more from each of these characters on.
    widths = 1 + sum((characters >= least).view(np.uint8) for least in (0x80, 0x800, 0x10000))
    return np.concatenate([[0], np.cumsum(widths, dtype=np.int64)])


_CHARACTERS = 0x110000
_LAST_LETTER = 0x40000  # beyond, Unicode has signs and private use only


@lru_cache(maxsize=2)
def _kinds(characters: int) -> npt.NDArray[np.uint8]:
    """What each of the first characters is: 0 between words, `_WORD` in one, or `_ALONE`, a word by itself."""
    table = np.zeros(characters, np.uint8)
    letters = "".join(map(chr, range(min(characters, _LAST_LETTER))))
    for pattern, kind in ((r"\w+", _WORD), (f"[{_CJK}]+", _ALONE)):
        for match in re.finditer(pattern, letters):
            table[match.start() : match.end()] = kind
    return table


@lru_cache(maxsize=1)
def bucket_names() -> tuple[str, ...]:
    """Name the vocabulary of the sparse embeddings: one made-up token for each hash bucket."""
    return tuple(f"h{bucket:04x}" for bucket in range(BUCKETS))


_FUNCTION_BIT = 1 << 32
_REACH = 16
"""Bytes of a word up to which its checksum is summed up from tables."""


class _Tables(NamedTuple):
    """What the checksums of words are made of. CRC-32 is linear: each byte adds its own share, by exclusive or.

    Attributes:
        pairs: uint32 [8, 65536]; the share of each pair of the last 16 bytes, a zero byte having none.
        zeros: uint32 [17]; the checksum of so many zero bytes.
        keep: uint64 [2, 17]; of the last 8 bytes and the 8 before them, the bits that belong to a word of so many.
        function_words: uint32 [BUCKETS]; the hash of the function word of each bucket, of which none has two.
    """

    pairs: npt.NDArray[np.uint32]
    zeros: npt.NDArray[np.uint32]
    keep: npt.NDArray[np.uint64]
    function_words: npt.NDArray[np.uint32]


@lru_cache(maxsize=1)
def _tables() -> _Tables:
    zeros = np.array([zlib.crc32(bytes(size)) for size in range(_REACH + 1)], np.uint32)
    # The share of a byte with so many behind it.
    shares = np.array(
        [
            [zlib.crc32(bytes([byte, *bytes(behind)])) ^ int(zeros[behind + 1]) for byte in range(256)]
            for behind in range(_REACH)
        ],
        np.uint32,
    )
    # In a little-endian pair the first byte is the lower one.
    pairs = [
        (shares[behind][:, None] ^ shares[behind + 1]).reshape(-1) for behind in range(_REACH - 2, -1, -2)
    ]
    bits = [[min(max(size - far, 0), 8) * 8 for size in range(_REACH + 1)] for far in (0, 8)]
    keep = np.array([[((1 << count) - 1) << (64 - count) for count in row] for row in bits], np.uint64)
    hashes = [_mix(np.array([zlib.crc32(word.encode())], np.uint32)) for word in _FUNCTION_WORDS]
    function_words = np.zeros(BUCKETS, np.uint32)
    for one in hashes:
        function_words[one >> 16] = one
    return _Tables(np.stack(pairs), zeros, keep, function_words)


def _mix(checksums: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """The hash of a word: by its checksum alone similar words would land together."""
    return checksums * np.uint32(0x9E3779B1)


def _hashes(words: _Words) -> npt.NDArray[np.uint32]:
    """The 32-bit hash of each word."""
    tables, sizes = _tables(), words.ends - words.starts
    short = np.minimum(sizes, _REACH)
    # With 16 bytes before the first word, the 8 bytes before each word's end are one number, and so are 8 more.
    padded = bytes(_REACH) + words.letters
    numbers: npt.NDArray[np.uint64] = np.ndarray(len(padded) - 7, "<u8", padded, strides=(1,))
    checksums = tables.zeros[short]
    checksums ^= _shares(numbers[words.ends + 8] & tables.keep[0][short], tables.pairs[4:])
    far = np.flatnonzero(sizes > 8)
    checksums[far] ^= _shares(numbers[words.ends[far]] & tables.keep[1][short[far]], tables.pairs[:4])
    for place in np.flatnonzero(sizes > _REACH).tolist():
        checksums[place] = zlib.crc32(words.letters[words.starts[place] : words.ends[place]])
    return _mix(checksums)


def _shares(numbers: npt.NDArray[np.uint64], pairs: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """The shares of 8 bytes each, summed up."""
    columns = numbers.view(np.uint16).reshape(-1, 4).T
    first, second, third, fourth = (table[column] for table, column in zip(pairs, columns, strict=True))
    return first ^ second ^ third ^ fourth


def _count_words(
    texts: Sequence[str],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Return the distinct (text, word) pairs, a word as its code, how often each occurs, and each text's words.

    A word's code is its hash, with one bit above it that marks a function word.
    """
    lengths = np.zeros(len(texts), np.int32)
    keys = []
    for places, found in _find_words(texts):
        lengths[places] = found.lengths
        hashes = _hashes(found)
        is_function = _tables().function_words[hashes >> 16] == hashes
        # (text, word) as one number: the word's code takes the lower 33 bits.
        codes = hashes + (is_function.astype(np.int64) << 32)
        keys.append((np.repeat(places, found.lengths) << 33) | codes)
    pairs, counts = np.unique(np.concatenate(keys) if keys else np.zeros(0, np.int64), return_counts=True)
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
    # Wraps around at 64 bits, as the products do.
    code = (words & 0xFFFFFFFF).astype(np.uint64) + np.uint64(1)
    first, negative = rows * dimensions, -weights
    # Four odd multipliers mix a code in four ways. The upper bits of a product depend on all bits of the code: the
    # first one gives the sign, the upper 31 the coordinate.
    for multiplier in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93):
        mixed = code * np.uint64(multiplier)
        coordinate = ((mixed >> np.uint64(33)) % np.uint64(dimensions)).view(np.int64)
        # Coordinates of all texts lie end to end, so that one bincount adds up everything.
        signed = np.where(mixed.view(np.int64) < 0, negative, weights)
        total += np.bincount(first + coordinate, signed, len(total))
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
