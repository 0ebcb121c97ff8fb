"""Chunks measured in tokens of the endpoint's own tokenizer: the extension ``size_unit: tokens``.

The strategies keep their shape; what changes is the measure. Sizes include the special tokens that the tokenizer
adds, so that a chunk of at most `max_chunk_size` tokens fits a window of that many and is never truncated. Sums of
parts only estimate the tokens of a whole, so every chunk is counted again as it will be sent, and cut if need be.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from models.chunking_settings import SEPARATOR_GROUPS, ChunkingSettings
from models.errors import illegal_argument
from models.text import Utf16Text
from transforms.chunk.boundaries import find_sentences, find_words
from transforms.chunk.separators import SeparatorBudget

CountTokens = Callable[[Sequence[str]], npt.NDArray[np.int32]]
Span = tuple[int, int]

_LARGEST_REPEAT = 20  # tokens of the previous sentence, where all of it does not fit


def token_spans(text: Utf16Text, settings: ChunkingSettings, count_tokens: CountTokens) -> list[Span]:
    """Cut a text into chunks of at most `max_chunk_size` tokens, special tokens included.

    Raises:
        InferenceError: the special tokens alone fill a chunk (status 400).
    """
    filling = _Filling(text, settings, count_tokens)
    if settings.strategy == "word":
        spans = filling.fill_with_words(0, text.length, settings.overlap or 0)
    elif settings.strategy == "recursive":
        spans = filling.fill_recursively(settings.separators or SEPARATOR_GROUPS["plaintext"])
    else:
        spans = filling.fill_with_sentences(0, text.length, bool(settings.sentence_overlap))
    return filling.verified(spans)


class _Filling:
    """One text on its way into chunks."""

    def __init__(self, text: Utf16Text, settings: ChunkingSettings, count_tokens: CountTokens) -> None:
        self.text = text
        self.language = settings.language
        self.count_tokens = count_tokens
        size = settings.max_chunk_size or 0
        self.special = int(count_tokens([""])[0])
        self.room = size - self.special
        if self.room < 1:
            raise illegal_argument(
                f"max_chunk_size [{size}] leaves no room for text: "
                f"the tokenizer adds {self.special} tokens to every chunk"
            )

    def costs(self, spans: Sequence[Span]) -> list[int]:
        """Count the tokens of each span alone, without the special tokens."""
        if not spans:
            return []
        counts = self.count_tokens([self.text.slice(start, end) for start, end in spans])
        return [max(0, int(count) - self.special) for count in counts]

    def fill_with_words(self, start: int, end: int, overlap: int) -> list[Span]:
        """Fill chunks with words; each repeats the last words of the one before it, up to `overlap` tokens."""
        words, costs = self._words(start, end)
        # Running sums: words i to j cost total[j] - total[i].
        total = np.concatenate([[0], np.cumsum(costs)])
        spans: list[Span] = []
        first = 0
        while True:
            last = _furthest(total, first, self.room)
            spans.append((words[first][0], words[last - 1][1]))
            if last == len(words):
                return spans
            # Step back over what is to be repeated, but never so far that nothing new fits.
            back = int(np.searchsorted(total, total[last] - overlap, "left"))
            first = next(
                (
                    word
                    for word in range(max(back, first + 1), last)
                    if total[last + 1] - total[word] <= self.room
                ),
                last,
            )

    def fill_with_sentences(self, start: int, end: int, overlap: bool) -> list[Span]:
        """Fill chunks with sentences; each repeats the last sentence of the one before it, if both fit."""
        sentences = self._sentences(start, end)
        costs = self.costs(sentences)
        spans: list[Span] = []
        chunk_start, filled = start, 0
        for number, ((first, last), cost) in enumerate(zip(sentences, costs, strict=True)):
            if filled + cost > self.room and first > chunk_start:
                spans.append((chunk_start, first))
                repeated = (
                    self._repeat(sentences[number - 1], costs[number - 1], cost) if overlap else (first, 0)
                )
                # A chunk that begins where the last one did would only repeat it.
                chunk_start, filled = repeated if repeated[0] > spans[-1][0] else (first, 0)
            filled += cost
            if filled > self.room:
                *whole, open_chunk = self.fill_with_words(chunk_start, last, min(20, (self.room - 1) // 2))
                spans += whole
                chunk_start, filled = open_chunk[0], self.costs([open_chunk])[0]
        return [*spans, (chunk_start, end)]

    def fill_recursively(self, separators: Sequence[str]) -> list[Span]:
        """Split at the first separator, merge neighbours, split what is still too large at the next one."""
        budget = SeparatorBudget(self.text.length)
        whole = (0, self.text.length)
        waiting = [(whole, self.costs([whole])[0], 0)]
        spans: list[Span] = []
        while waiting:
            span, cost, depth = waiting.pop()
            if cost <= self.room or span[0] == span[1]:
                spans.append(span)
            elif depth == len(separators):
                spans += self.fill_with_sentences(*span, overlap=False)
            else:
                pieces = self._split(span, separators[depth], budget)
                waiting += [(piece, cost, depth + 1) for piece, cost in reversed(self._merge(pieces))]
        return spans

    def verified(self, spans: Sequence[Span]) -> list[Span]:
        """Count each chunk as it will be sent; halve at a word those that are too large after all."""
        checked: list[Span] = []
        for span, cost in zip(spans, self.costs(spans), strict=True):
            if cost <= self.room:
                checked.append(span)
            else:
                words, _ = self._words(*span)
                middle = words[len(words) // 2][0] if len(words) > 1 else self._halve(span)[0][1]
                checked += self.verified([(span[0], middle), (middle, span[1])])
        return checked

    def _words(self, start: int, end: int) -> tuple[list[Span], list[int]]:
        """Cut a region after every word, and words that exceed a chunk into parts; return the parts and costs."""
        region = Utf16Text(self.text.slice(start, end))
        ends = (start + find_words(region).ends()[:-1]).tolist()
        parts = list(zip([start, *ends], [*ends, end], strict=True))
        costs = self.costs(parts)
        while any(
            cost > self.room and self._can_halve(part) for part, cost in zip(parts, costs, strict=True)
        ):
            halves = [
                self._halve(part) if cost > self.room and self._can_halve(part) else [part]
                for part, cost in zip(parts, costs, strict=True)
            ]
            parts = [part for group in halves for part in group]
            costs = self.costs(parts)
        return parts, costs

    def _can_halve(self, span: Span) -> bool:
        return self.text.position(span[1]) - self.text.position(span[0]) > 1

    def _halve(self, span: Span) -> list[Span]:
        """Cut between two characters in the middle of a span."""
        first, last = self.text.position(span[0]), self.text.position(span[1])
        middle = self.text.offset((first + last) // 2)
        return [(span[0], middle), (middle, span[1])]

    def _sentences(self, start: int, end: int) -> list[Span]:
        region = Utf16Text(self.text.slice(start, end))
        ends = (start + find_sentences(region, self.language)).tolist()
        return list(zip([start, *ends[:-1]], ends, strict=True)) if ends else []

    def _repeat(self, previous: Span, cost: int, next_cost: int) -> tuple[int, int]:
        """Begin a chunk with the previous sentence, or with its last words where both do not fit."""
        if cost + next_cost <= self.room:
            return previous[0], cost
        words, costs = self._words(*previous)
        limit = min(self.room // 2, _LARGEST_REPEAT)
        start, repeated = previous[1], 0
        for (word_start, _), word_cost in zip(reversed(words), reversed(costs), strict=True):
            if repeated + word_cost > limit:
                break
            start, repeated = word_start, repeated + word_cost
        return start, repeated

    def _split(self, span: Span, separator: str, budget: SeparatorBudget) -> list[Span]:
        first = self.text.position(span[0])
        matches = budget.split_points(separator, self.text.slice(*span))
        cuts = [self.text.offset(first + match) for match in matches]
        edges = [span[0], *(cut for cut in cuts if cut > span[0]), span[1]]
        return list(pairwise(edges))

    def _merge(self, pieces: Sequence[Span]) -> list[tuple[Span, int]]:
        merged: list[tuple[Span, int]] = []
        for (start, end), cost in zip(pieces, self.costs(pieces), strict=True):
            if merged and merged[-1][1] + cost <= self.room:
                (merged_start, _), merged_cost = merged[-1]
                merged[-1] = ((merged_start, end), merged_cost + cost)
            else:
                merged.append(((start, end), cost))
        return merged


def _furthest(total: npt.NDArray[np.int64], first: int, room: int) -> int:
    """Return the end of the longest run of words from `first` on that fits, at least one word."""
    last = int(np.searchsorted(total, total[first] + room, "right")) - 1
    return max(last, first + 1)
