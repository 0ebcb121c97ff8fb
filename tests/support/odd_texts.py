"""Texts that try a tokenizer: every kind of character, marks in any order, special tokens, blanks, long words."""

import unicodedata
from random import Random

CODE_POINTS = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
_ASSIGNED = [chr(point) for point in CODE_POINTS if unicodedata.category(chr(point)) not in ("Cn", "Co")]
_MARKS = [character for character in _ASSIGNED if unicodedata.category(character)[0] == "M"]
_COMPOSED = [character for character in _ASSIGNED if unicodedata.decomposition(character)]
_BLANKS = [*filter(str.isspace, _ASSIGNED), *"\u200b\ufeff\0\ufffd\x85\xad\u180e"]
_HANGUL = [chr(point) for point in range(0xAC00, 0xD7A4)]
_LATIN = "abcdefghijklmnopqrstuvwxyzABCDEFZÄÖÜéß0123456789-'.,"
_SPECIAL = [
    "[CLS]",
    "[SEP]",
    "[MASK]",
    " [MASK] ",
    "[PAD]",
    "[UNK]",
    "[",
    "]",
    "[cls]",
    "##",
    "İ",
    "ΑΣ",
    "<s>",
    "≮",
]


def odd_text(random: Random, words: list[str]) -> str:
    """Make a text of at most a dozen parts.

    Args:
        random: decides.
        words: what a vocabulary holds.
    """

    def some(characters: list[str] | str, most: int) -> str:
        return "".join(random.choices(characters, k=random.randint(1, most)))

    parts = (
        (25, lambda: random.choice(words)),
        (15, lambda: some(_ASSIGNED, 6)),
        (10, lambda: some(_MARKS, 2)),
        (10, lambda: random.choice(_BLANKS)),
        (8, lambda: some(_COMPOSED, 4)),
        (7, lambda: random.choice(_SPECIAL)),
        (5, lambda: chr(random.choice(CODE_POINTS))),
        (2, lambda: random.choice("abcé東한") * random.choice([33, 34, 50, 51, 99, 100, 101, 200])),
        (8, lambda: some(_LATIN, 15)),
        (3, lambda: some(_HANGUL, 5)),
        (7, lambda: " "),
    )
    chosen = random.choices(
        [make for _, make in parts], [weight for weight, _ in parts], k=random.randint(0, 12)
    )
    return "".join(make() for make in chosen)
