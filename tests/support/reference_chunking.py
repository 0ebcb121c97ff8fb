"""The chunking rules once more, written down step by step and slowly, to compare the real ones with.

It shares nothing with the package: ICU is asked for every boundary of the text one by one, counts are loops, and
texts are sliced as UTF-16 bytes.
"""

from bisect import bisect_left

import icu

DONE = -1


class Boundaries:
    """All boundaries of a text and whether each ends a word."""

    def __init__(self, text, kind):
        root = icu.Locale.getRoot()
        create = (
            icu.BreakIterator.createWordInstance
            if kind == "word"
            else icu.BreakIterator.createSentenceInstance
        )
        iterator = create(root)
        # Surrogates that stand apart in a Python string but form a pair are one character, as in Java.
        iterator.setText(icu.UnicodeString(cut(text, 0, length(text))))
        self.offsets, self.is_word = [0], [False]
        while (offset := iterator.nextBoundary()) != DONE:
            self.offsets.append(offset)
            self.is_word.append(iterator.getRuleStatus() >= 100)

    def preceding(self, start):
        return max(bisect_left(self.offsets, start) - 1, 0)


def cut(text, start, end):
    return text.encode("utf-16-le", "surrogatepass")[2 * start : 2 * end].decode("utf-16-le", "surrogatepass")


def length(text):
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def count(words, start, end):
    index, found = words.preceding(start), 0
    while index < len(words.offsets) and words.offsets[index] <= end:
        found += words.is_word[index]
        index += 1
    return found


def skip(words, text, start, number):
    index, found = words.preceding(start), 0
    while index < len(words.offsets) and found < number:
        found += words.is_word[index]
        index += 1
    return words.offsets[index] if index < len(words.offsets) else length(text)


def word_chunks(text, size, overlap):
    """(start, end, words) of each chunk."""
    words = Boundaries(text, "word")
    chunks, in_window, since, mark, window = [], 0, 0, 0, 0
    for offset, is_word in zip(words.offsets, words.is_word, strict=True):
        if not is_word:
            continue
        in_window += 1
        since += 1
        if in_window >= size:
            chunks.append((window, offset, in_window))
            in_window = overlap
            if overlap == 0:
                mark = offset
            window = mark
        if since == size - overlap:
            mark, since = offset, 0
    if in_window > overlap or not chunks:
        chunks.append((window, length(text), in_window))
    return chunks


def sentence_chunks(text, size, with_overlap):
    words = Boundaries(text, "word")
    chunks = []
    chunk_start = chunk_end = sentence_start = filled = previous_start = previous_count = 0
    for sentence_end in Boundaries(text, "sentence").offsets[1:]:
        in_sentence = count(words, sentence_start, sentence_end)
        if filled + in_sentence <= size:
            filled += in_sentence
        else:
            following = in_sentence
            if filled > 0:
                chunks.append((chunk_start, chunk_end))
                if not with_overlap:
                    chunk_start, filled = chunk_end, in_sentence
                elif previous_count + in_sentence > size:
                    skipped = max(0, previous_count - min(size // 2, 20))
                    chunk_start = skip(words, text, previous_start, skipped)
                    filled = previous_count - skipped + in_sentence
                else:
                    chunk_start, filled = previous_start, previous_count + in_sentence
                following = filled
            if following > size:
                pieces = word_chunks(cut(text, chunk_start, sentence_end), size, min(20, (size - 1) // 2))
                chunks += [(chunk_start + start, chunk_start + end) for start, end, _ in pieces[:-1]]
                chunk_start, filled = chunk_start + pieces[-1][0], pieces[-1][2]
        if with_overlap:
            previous_start, previous_count = sentence_start, in_sentence
        sentence_start = chunk_end = sentence_end
    if filled > 0:
        chunks.append((chunk_start, length(text)))
    return chunks or [(0, length(text))]


def recursive_chunks(text, size, matches_of):
    """`matches_of[i](region)` returns the UTF-16 starts of separator i's matches in a region."""
    words = Boundaries(text, "word")

    def split(start, end, index):
        if start == end or count(words, start, end) <= size:
            return [(start, end)]
        if index == len(matches_of):
            chunks = sentence_chunks(cut(text, start, end), size, False)
            return [(start + first, start + last) for first, last in chunks]
        pieces, piece_start = [], start
        for match in matches_of[index](cut(text, start, end)):
            if piece_start < start + match:
                pieces.append((piece_start, start + match, count(words, piece_start, start + match)))
            piece_start = start + match
        if piece_start < end:
            pieces.append((piece_start, end, count(words, piece_start, end)))
        merged = pieces[:1]
        for piece in pieces[1:]:
            if merged[-1][2] + piece[2] <= size:
                merged[-1] = (merged[-1][0], piece[1], merged[-1][2] + piece[2])
            else:
                merged.append(piece)
        chunks = []
        for first, last, counted in merged:
            chunks += [(first, last)] if counted <= size else split(first, last, index + 1)
        return chunks

    return split(0, length(text), 0)
