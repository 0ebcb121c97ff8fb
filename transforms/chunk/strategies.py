"""The chunking strategies of Elasticsearch, as functions from a text to the offsets of its chunks."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from models.chunking_settings import SEPARATOR_GROUPS, ChunkingSettings
from models.errors import illegal_argument
from models.text import Utf16Text
from transforms.chunk.boundaries import Words, find_sentences, find_words, find_words_of, fit_in_one_chunk
from transforms.chunk.separators import SeparatorBudget
from transforms.chunk.token_strategies import CountTokens, token_spans

Span = tuple[int, int]

_SHORT = 4000  # code units; longer texts hardly ever fit in one chunk
_LARGEST_OVERLAP = 20  # words; Elasticsearch's cap where it has to cut a sentence


class TextChunk(NamedTuple):
    """A piece of a text.

    Attributes:
        start_offset: first UTF-16 code unit.
        end_offset: UTF-16 code unit after the last one.
        text: exactly that slice.
    """

    start_offset: int
    end_offset: int
    text: str


class Piece(NamedTuple):
    """A chunk of the word strategy: its offsets and the number of its words, overlap included."""

    start: int
    end: int
    words: int


def chunk_text(
    text: str, settings: ChunkingSettings, count_tokens: CountTokens | None = None
) -> list[TextChunk]:
    """Cut a text into chunks, in order, at least one.

    Args:
        text: any string; surrogates may stand alone in it.
        settings: how to cut it.
        count_tokens: counts the tokens of texts; needed for ``size_unit: tokens``.

    Raises:
        InferenceError: a setting cannot be used, such as a separator that is no regular expression (status 400).
    """
    whole = Utf16Text(text)
    spans = chunk_spans(whole, settings, count_tokens)
    return [TextChunk(start, end, whole.slice(start, end)) for start, end in spans]


def chunk_spans(
    text: Utf16Text, settings: ChunkingSettings, count_tokens: CountTokens | None = None
) -> list[Span]:
    """Cut one text; see `spans_of`."""
    return spans_of([text], settings, count_tokens)[0]


def spans_of(
    texts: Sequence[Utf16Text], settings: ChunkingSettings, count_tokens: CountTokens | None = None
) -> list[list[Span]]:
    """Cut each text as Elasticsearch does: the offsets of its chunks in UTF-16 code units, at least one.

    The words of all texts are found together: for texts of usual length that is most of the work.

    Raises:
        InferenceError: a setting cannot be used, such as a separator that is no regular expression.
    """
    if settings.size_unit == "tokens":
        if count_tokens is None:
            raise illegal_argument("[size_unit] [tokens] needs the tokenizer of an endpoint to count with")
        found = [token_spans(text, settings, count_tokens) for text in texts]
    else:
        found = _spans_by_words(texts, settings)
    if settings.contiguous:
        return [contiguous_spans(spans, text.length) for spans, text in zip(found, texts, strict=True)]
    return found


def _spans_by_words(texts: Sequence[Utf16Text], settings: ChunkingSettings) -> list[list[Span]]:
    cut = STRATEGIES[settings.strategy]
    if cut is None:
        return [[(0, text.length)] for text in texts]
    limit, language = _surely_one_chunk(settings)
    short = [text for text in texts if text.length < _SHORT]
    fitting = iter(fit_in_one_chunk(short, limit, language))
    spans = [[(0, text.length)] if text.length < _SHORT and next(fitting) else [] for text in texts]
    # What is left has to be looked at word by word.
    rest = [place for place, found in enumerate(spans) if not found]
    for place, words in zip(rest, find_words_of([texts[place] for place in rest]), strict=True):
        spans[place] = cut(texts[place], words, settings)
    return spans


def _surely_one_chunk(settings: ChunkingSettings) -> tuple[int, str | None]:
    """The number of words up to which a text is one chunk, and the language whose sentences count; -1 for never."""
    size, overlap = settings.max_chunk_size or 0, settings.overlap or 0
    if settings.strategy == "word":
        # A chunk that is exactly full ends with its last word; one that is not takes the rest of the text.
        return (size - 1 if 0 <= overlap <= size // 2 else -1), None
    return size, settings.language if settings.strategy == "sentence" else None


def chunk_by_words(text: Utf16Text, words: Words, settings: ChunkingSettings) -> list[Span]:
    """Cut after every `max_chunk_size` words, repeating `overlap` words."""
    _require(settings, "word", "WordBoundaryChunker")
    pieces = word_pieces(words, text.length, settings.max_chunk_size or 0, settings.overlap or 0)
    return [(piece.start, piece.end) for piece in pieces]


def chunk_by_sentences(text: Utf16Text, words: Words, settings: ChunkingSettings) -> list[Span]:
    """Fill chunks with sentences up to `max_chunk_size` words, repeating `sentence_overlap` sentences."""
    _require(settings, "sentence", "SentenceBoundaryChunker")
    overlap = bool(settings.sentence_overlap)
    return _sentence_spans(text, words, settings.max_chunk_size or 0, overlap, settings.language)


def chunk_recursively(text: Utf16Text, words: Words, settings: ChunkingSettings) -> list[Span]:
    """Split at the first separator, merge neighbours, and split what is still too large at the next one."""
    _require(settings, "recursive", "RecursiveChunker")
    separators = settings.separators or SEPARATOR_GROUPS["plaintext"]
    return _RecursiveSplit(text, words, separators, settings.max_chunk_size or 0, settings.language).spans()


STRATEGIES: Mapping[str, Callable[[Utf16Text, Words, ChunkingSettings], list[Span]] | None] = {
    "word": chunk_by_words,
    "sentence": chunk_by_sentences,
    "recursive": chunk_recursively,
    "none": None,  # the whole text is one chunk
}


def contiguous_spans(spans: Sequence[Span], length: int) -> list[Span]:
    """Cut away overlaps: each chunk starts where the one before it ends, the last one ends with the text."""
    clipped: list[Span] = []
    previous_end = 0
    for _, end in spans:
        if end > previous_end:
            clipped.append((previous_end, end))
            previous_end = end
    if not clipped:
        return [(0, length)]
    clipped[-1] = (clipped[-1][0], length)
    return clipped


def word_pieces(words: Words, length: int, size: int, overlap: int) -> list[Piece]:
    """Cut a text of `length` code units after every `size` words, repeating `overlap` words.

    Punctuation after the last word of a chunk belongs to the next one. Where the text ends on a full chunk,
    what follows its last word is in no chunk at all, as in Elasticsearch.

    Raises:
        InferenceError: the overlap is negative or larger than half the size.
    """
    if overlap > size // 2:
        half = f"{size} / 2 = {size // 2}"
        raise illegal_argument(
            f"Invalid chunking parameters, overlap [{overlap}] must be < chunk size / 2 [{half}]"
        )
    if overlap < 0:
        raise illegal_argument(f"Invalid chunking parameters, overlap [{overlap}] must be >= 0")
    ends = words.ends()
    step = size - overlap
    # Chunk k holds the words from k * step on, and starts where the word before them ends.
    # The first full chunk needs `size` words, each after it `step` more.
    full = max(0, (len(ends) - size) // step + 1)
    firsts = np.arange(full + 1) * step
    starts = np.where(firsts > 0, ends[np.maximum(firsts, 1) - 1] if len(ends) else 0, 0).tolist()
    full_ends = ends[firsts[:-1] + size - 1].tolist()
    pieces = [Piece(start, end, size) for start, end in zip(starts[:-1], full_ends, strict=True)]
    # What is left behind the last full chunk, its overlap included: no more than that is no chunk of its own.
    rest = len(ends) - full * step
    if rest > overlap or not pieces:
        pieces.append(Piece(starts[-1], length, rest))
    return pieces


def _sentence_spans(
    text: Utf16Text, words: Words, size: int, overlap: bool, language: str | None
) -> list[Span]:
    """Fill chunks with sentences, greedily.

    The sizes that are compared are Elasticsearch's counts (`Words.count`), not the natural ones.
    """
    ends = find_sentences(text, language)
    # A sentence starts where the one before it ends; without any sentence there is no start either.
    starts = np.zeros_like(ends)
    starts[1:] = ends[:-1]
    counts = words.count(starts, ends).tolist()
    spans: list[Span] = []
    chunk_start = chunk_end = chunk_words = 0
    previous_start = previous_words = 0
    for start, end, count in zip(starts.tolist(), ends.tolist(), counts, strict=True):
        if chunk_words + count <= size:
            chunk_words += count
        else:
            # The chunk ends before this sentence, unless it is still empty: then the sentence alone is too long.
            if chunk_words == 0:
                next_words = count
            else:
                spans.append((chunk_start, chunk_end))
                if overlap:
                    chunk_start, chunk_words = _repeat_sentence(
                        words, previous_start, previous_words, count, size
                    )
                else:
                    chunk_start, chunk_words = chunk_end, count
                next_words = chunk_words
            # A sentence that no chunk can hold is cut; its last piece is where the next sentences go on.
            if next_words > size:
                *whole, last = _cut_sentence(text, chunk_start, end, size)
                spans += [(piece.start, piece.end) for piece in whole]
                chunk_start, chunk_words = last.start, last.words
        previous_start, previous_words = start, count
        chunk_end = end
    if chunk_words > 0 or not spans:
        spans.append((chunk_start if chunk_words else 0, text.length))
    return spans


def _repeat_sentence(words: Words, start: int, count: int, next_count: int, size: int) -> tuple[int, int]:
    """Begin a chunk with the previous sentence, or with its last words where both do not fit."""
    if count + next_count <= size:
        return start, count + next_count
    # Of the previous sentence no more than half a chunk is repeated, so that something new fits.
    skipped = max(0, count - min(size // 2, _LARGEST_OVERLAP))
    return words.skip(start, skipped), count - skipped + next_count


def _cut_sentence(text: Utf16Text, start: int, end: int, size: int) -> list[Piece]:
    """Cut a sentence that is too long after every `size` words.

    The words are found anew: where a dictionary finds them, they depend on where the text begins.
    """
    part = Utf16Text(text.slice(start, end))
    pieces = word_pieces(find_words(part), part.length, size, min(_LARGEST_OVERLAP, (size - 1) // 2))
    return [Piece(start + piece.start, start + piece.end, piece.words) for piece in pieces]


class _RecursiveSplit:
    """One text on its way through the separators."""

    def __init__(
        self, text: Utf16Text, words: Words, separators: Sequence[str], size: int, language: str | None
    ) -> None:
        self.text = text
        self.separators = separators
        self.size = size
        self.language = language
        self.words = words
        self.budget = SeparatorBudget(text.length)

    def spans(self) -> list[Span]:
        """Return the chunks in the order of the text."""
        whole = Piece(0, self.text.length, int(self.words.count(0, self.text.length)))
        spans: list[Span] = []
        # A stack instead of recursion; what is pushed last comes first in the text.
        waiting = [(whole, 0)]
        while waiting:
            piece, depth = waiting.pop()
            if piece.words <= self.size or piece.start == piece.end:
                spans.append((piece.start, piece.end))
            elif depth == len(self.separators):
                spans += self._fall_back(piece)
            else:
                pieces = self._merge(self._split(piece, self.separators[depth]))
                waiting += [(part, depth + 1) for part in reversed(pieces)]
        return spans

    def _split(self, piece: Piece, separator: str) -> list[Piece]:
        """Split before each match; a separator belongs to the piece that it begins."""
        first = self.text.position(piece.start)
        matches = self.budget.split_points(separator, self.text.slice(piece.start, piece.end))
        cuts = [self.text.offset(first + match) for match in matches]
        edges = [piece.start, *(cut for cut in cuts if cut > piece.start), piece.end]
        counts = self.words.count(edges[:-1], edges[1:]).tolist()
        return [
            Piece(start, end, count) for start, end, count in zip(edges[:-1], edges[1:], counts, strict=True)
        ]

    def _merge(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Join neighbours while the sum of their counts fits (it can exceed the count of the joined text)."""
        merged: list[Piece] = []
        for piece in pieces:
            if merged and merged[-1].words + piece.words <= self.size:
                merged[-1] = Piece(merged[-1].start, piece.end, merged[-1].words + piece.words)
            else:
                merged.append(piece)
        return merged

    def _fall_back(self, piece: Piece) -> list[Span]:
        """Cut at sentences, without overlap, what no separator could make small enough."""
        part = Utf16Text(self.text.slice(piece.start, piece.end))
        spans = _sentence_spans(part, find_words(part), self.size, False, self.language)
        return [(piece.start + start, piece.start + end) for start, end in spans]


def _require(settings: ChunkingSettings, strategy: str, chunker: str) -> None:
    """Refuse settings of another strategy, in Elasticsearch's words."""
    if settings.strategy != strategy:
        raise illegal_argument(f"{chunker} can't use ChunkingSettings with strategy [{settings.strategy}]")
