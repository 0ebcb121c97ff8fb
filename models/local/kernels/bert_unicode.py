"""Writes `bert_unicode.inc`: what BERT's normalizer and word splitter of ``tokenizers`` do to each code point.

The Rust library takes its Unicode data from three crates of three Unicode versions, so the one sure source is the
library: it is asked for every code point, one option of ``BertNormalizer`` at a time. Run this when a new version of
``tokenizers`` makes ``tests/models/local/test_wordpiece.py`` fail::

    python models/local/kernels/bert_unicode.py

Lower case is that of one character (Rust's ``char::to_lowercase``), with no regard to its neighbours; decomposition is
canonical (NFD). Hangul syllables are left out: their decomposition is arithmetic.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import tokenizers
from tokenizers import normalizers, pre_tokenizers

OUTPUT = Path(__file__).with_name("bert_unicode.inc")

CONTROL, BLANK, IDEOGRAPH, SPACE, PUNCTUATION, MARK, REORDERED = (1 << bit for bit in range(7))

HANGUL = range(0xAC00, 0xD7A4)
_LOWEST_MARK, _HIGHEST_MARK = "\u0334", "\u0345"  # the least and the greatest combining class of marks


def code_points() -> Iterator[int]:
    """All code points that a Rust string can hold."""
    yield from range(0xD800)
    yield from range(0xE000, 0x110000)


def normalizer(**option: bool) -> Callable[[str], str]:
    """BERT's normalizer with a single option on."""
    options = dict.fromkeys(("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"), False)
    return normalizers.BertNormalizer(**(options | option)).normalize_str


_clean = normalizer(clean_text=True)
_set_apart = normalizer(handle_chinese_chars=True)
_strip = normalizer(strip_accents=True)
_lower = normalizer(lowercase=True)
_decompose = normalizers.NFD().normalize_str
_split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str


def flags(character: str) -> int:
    """What a character is to the normalizer and to the splitter, as a sum of the constants above."""
    cleaned, pieces = _clean(character), len(_split(f"a{character}b"))
    return (
        (CONTROL if not cleaned else 0)
        | (BLANK if cleaned == " " else 0)
        | (IDEOGRAPH if _set_apart(character) != character else 0)
        | (SPACE if pieces == 2 else 0)
        | (PUNCTUATION if pieces == 3 else 0)
        | (MARK if not _strip(character) else 0)
        | (REORDERED if any(map(_is_reordered, _strip(character))) else 0)
    )


def _is_reordered(character: str) -> bool:
    """Whether canonical ordering moves a character (its combining class is not 0)."""
    after = _decompose(character + _HIGHEST_MARK) != _decompose(character) + _HIGHEST_MARK
    marks = _LOWEST_MARK + _HIGHEST_MARK
    return after or _decompose(marks + character) != marks + _decompose(character)


def _runs() -> Iterator[tuple[int, int]]:
    """Where a new value of `flags` begins, and the value."""
    last = None
    for point in code_points():
        if (value := flags(chr(point))) != last:
            yield point, value
            last = value


def _changes(change: Callable[[str], str]) -> Iterator[tuple[int, ...]]:
    """Each code point that `change` makes another, and what it makes of it; marks and Hangul aside."""
    for point in code_points():
        changed = change(chr(point))
        if changed and changed != chr(point) and point not in HANGUL:
            yield point, len(changed), *map(ord, changed)


def _array(comment: str, name: str, numbers: list[int]) -> Iterator[str]:
    yield f"// {comment}"
    yield f"static const uint32_t {name}[] = {{"
    line = "   "
    for number in numbers:
        if len(line) + len(part := f" {number:#x},") > 118:
            yield line
            line = "   "
        line += part
    yield from (line, "};")


def table() -> str:
    """The text of `bert_unicode.inc`."""
    arrays = (
        ("First code point of a run, its flags.", "RUNS", _runs()),
        (
            "Code point, count, what is left once it is decomposed and marks are gone.",
            "STRIPPED",
            _changes(_strip),
        ),
        ("Code point, count, its lower case.", "LOWERED", _changes(_lower)),
    )
    lines = [f"// Written by bert_unicode.py from tokenizers {tokenizers.__version__}. Do not edit."]
    for comment, name, rows in arrays:
        lines += _array(comment, name, [number for row in rows for number in row])
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(table())
