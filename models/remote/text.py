"""Lengths and cuts as Elasticsearch counts them: UTF-16 code units, tokens as three of them, and ICU words."""

import math
from collections.abc import Iterator, Sequence

from models.text import utf16_length

CHARACTERS_PER_TOKEN = 3


def cut_to_tokens(text: str, max_tokens: int | None) -> tuple[str, bool]:
    """Cut a text to three UTF-16 code units a token.

    Returns:
        The text, and whether something was cut.
    """
    return (text, False) if max_tokens is None else cut_utf16(text, max_tokens * CHARACTERS_PER_TOKEN)


def halve(text: str) -> str:
    """Cut a text to half its UTF-16 code units, rounded down."""
    return cut_utf16(text, math.floor(utf16_length(text) * 0.5))[0]


def cut_utf16(text: str, length: int) -> tuple[str, bool]:
    """Cut a text to `length` UTF-16 code units; half of a surrogate pair is left out.

    Returns:
        The text, and whether something was cut.
    """
    if len(text) * 2 <= length or utf16_length(text) <= length:
        return text, False
    return text.encode("utf-16-le", "surrogatepass")[: 2 * length].decode("utf-16-le", "ignore"), True


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of a text for a tokenizer that is not here: Elasticsearch's three units a token."""
    return math.ceil(utf16_length(text) / CHARACTERS_PER_TOKEN)


def count_icu_words(text: str) -> int:
    """Count the words of a text with ICU's word breaks."""
    import icu

    words = icu.BreakIterator.createWordInstance(icu.Locale.getRoot())
    words.setText(text)
    return sum(words.getRuleStatus() >= 100 for _ in words)


def batches(texts: Sequence[str], most: int, characters: int) -> Iterator[slice]:
    """Cut texts into runs that fit one request.

    Args:
        texts: the texts.
        most: texts of one request, at most.
        characters: UTF-16 code units of all its texts; a text that has more goes alone.
    """
    start, taken = 0, 0
    for position, text in enumerate(texts):
        length = utf16_length(text)
        if position > start and (position - start == most or taken + length > characters):
            yield slice(start, position)
            start, taken = position, 0
        taken += length
    if texts:
        yield slice(start, len(texts))
