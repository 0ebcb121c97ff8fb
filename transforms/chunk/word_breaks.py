"""ICU's word boundaries, most of them found by array arithmetic.

ICU's word rules are those of Unicode (UAX #29), plus dictionaries for the scripts that write no spaces. Among
plain letters, digits, spaces and punctuation the rules look at no more than two characters to each side, so all
boundaries of a text can be found at once. Every other character (marks, emoji, Han, Kana, Hangul, Thai, ...) goes
through ICU itself, together with its surroundings up to the nearest places where a break is certain and no rule
looks across.
The tests compare both ways over every pair and triple of classes, and over random text.
"""

import threading
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Marks = npt.NDArray[np.uint8]
BREAK, WORD_END = 1, 2

# Classes of characters; those from _LETTER to _CONNECTOR join one another.
_OTHER, _LETTER, _NUMBER, _CONNECTOR, _MID_LETTER, _MID_NUMBER, _MID_BOTH, _SPACE = range(8)
_CR, _LF, _NEWLINE, _HARD = range(8, 12)

_SETS = {
    _LETTER: "[:WB=ALetter:]",
    _NUMBER: "[:WB=Numeric:]",
    _CONNECTOR: "[:WB=ExtendNumLet:]",
    _MID_LETTER: "[:WB=MidLetter:]",
    _MID_NUMBER: "[:WB=MidNum:]",
    _MID_BOTH: "[:WB=MidNumLet:][:WB=Single_Quote:]",
    _SPACE: "[:WB=WSegSpace:]",
    _CR: "[:WB=CR:]",
    _LF: "[:WB=LF:]",
    _NEWLINE: "[:WB=Newline:]",
    # Last, because it overrules the others: whatever a rule could look further for.
    _HARD: "[:WB=Extend:][:WB=Format:][:WB=ZWJ:][:WB=Katakana:][:WB=Hebrew_Letter:][:WB=Regional_Indicator:]"
    "[:Han:][:Hiragana:][:Katakana:][:Hangul:][:Ideographic:][:LineBreak=Complex_Context:][:Cs:]",
}

SHORT = 1500  # below this length plain ICU is done before the arrays are set up
_BLOCK = 1 << 18  # code units that are looked at together; keeps the arrays within the processor's cache
_MOSTLY = 0.25  # share of hard characters from which a block is left to ICU altogether
_GAP = 128  # stretches for ICU that are closer than this are handed over together

_local = threading.local()


def icu_iterator(kind: str) -> Any:
    """Return this thread's ICU break iterator over ``word`` or ``sentence``, root locale.

    Iterators keep a position, so that threads must not share them.
    """
    iterator = getattr(_local, kind, None)
    if iterator is None:
        import icu

        create = {
            "word": icu.BreakIterator.createWordInstance,
            "sentence": icu.BreakIterator.createSentenceInstance,
        }
        iterator = create[kind](icu.Locale.getRoot())
        setattr(_local, kind, iterator)
    return iterator


def mark_word_breaks(units: npt.NDArray[np.uint16]) -> Marks:
    """Find the word boundaries of a text.

    Args:
        units: the UTF-16 code units of the text.

    Returns:
        One mark for each position from 0 to the end: 0 no boundary, `BREAK`, or `WORD_END` where a word ends.
    """
    marks = np.zeros(len(units) + 1, np.uint8)
    marks[0] = BREAK
    start = 0
    while start < len(units):
        end = _block_end(units, start)
        block = units[start:end]
        into = marks[start + 1 : end + 1]
        if len(block) < SHORT:
            into[:] = _icu_marks(block)
        else:
            _mark_block(block, into)
        start = end
    return marks


def _mark_block(units: npt.NDArray[np.uint16], into: Marks) -> None:
    """Write the marks of the positions after each code unit of a block."""
    classes = _classes(units)
    hard = np.flatnonzero(classes == _HARD)
    if len(hard) > _MOSTLY * len(units):
        into[:] = _icu_marks(units)
        return
    into[:] = _simple_marks(classes)
    for start, end in _stretches(classes, hard):
        into[start:end] = _icu_marks(units[start:end])


def _classes(units: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    """The class of each code unit."""
    wide = np.flatnonzero(units > 0xFF)
    if len(wide) > _MOSTLY * len(units):
        return _class_table()[units]
    # Bytes are translated several times as fast as numbers are looked up; the few that are none are mended.
    low = bytearray(units.astype(np.uint8)).translate(_class_table()[:256].tobytes())
    classes = np.frombuffer(low, np.uint8)
    classes[wide] = _class_table()[units[wide]]
    return classes


def _block_end(units: npt.NDArray[np.uint16], start: int) -> int:
    """Return where to end the block that begins at `start`: the last certain break within reach."""
    reach = _BLOCK
    while start + reach < len(units):
        # Nearly always a line or a word ends within the last stretch of the block.
        for tail in (1000, reach):
            first = start + reach - tail
            breaks = np.flatnonzero(_certain_breaks(_class_table()[units[first : start + reach]]))
            if len(breaks):
                return first + int(breaks[-1]) + 1
        reach *= 2
    return len(units)


def _simple_marks(classes: npt.NDArray[np.uint8]) -> Marks:
    """Apply the word rules to characters none of which is hard; marks of the positions after each."""
    # Classes are unsigned: what is below _LETTER wraps to a large number, so one comparison tests a range.
    joining = (classes - _LETTER) <= _CONNECTOR - _LETTER
    # A break after every character, but for those that stay together with the next one (WB3, WB3d, WB5 to WB13b).
    breaks = np.ones(len(classes), np.bool_)
    within = joining[:-1] & joining[1:]
    within |= (classes[:-1] == _SPACE) & (classes[1:] == _SPACE)
    within |= (classes[:-1] == _CR) & (classes[1:] == _LF)
    np.logical_not(within, out=breaks[:-1])
    # WB6, WB7, WB11 and WB12: no break on either side of what holds two letters or two digits together.
    middles = _joining_middles(classes)
    breaks[middles - 1] = False
    breaks[middles] = False
    # A token is a word by its first character: all that joins is of the same kind.
    ends = np.flatnonzero(breaks)
    starts = np.concatenate([[0], ends[:-1] + 1])
    is_word = joining[starts]
    # A connector alone, such as "_", is no word; two of them are.
    is_word &= (classes[starts] != _CONNECTOR) | (ends > starts)
    marks = breaks.view(np.uint8)  # true is `BREAK`
    marks[ends[is_word]] = WORD_END
    return marks


def _joining_middles(classes: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    """Find the characters that hold a word or number together, as in ``don't`` and ``3.14``."""
    middles = np.flatnonzero((classes - _MID_LETTER) <= _MID_BOTH - _MID_LETTER)
    middles = middles[(middles > 0) & (middles < len(classes) - 1)]
    kind, before, after = classes[middles], classes[middles - 1], classes[middles + 1]
    alike = before == after
    holds_letters = alike & (before == _LETTER) & (kind != _MID_NUMBER)
    holds_numbers = alike & (before == _NUMBER) & (kind != _MID_LETTER)
    return middles[holds_letters | holds_numbers]


def _certain_breaks(classes: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Tell for each position between two characters whether it is a boundary that no rule looks across.

    That is so before a space (but not between spaces), and before and after an end of line.
    """
    before, after = classes[:-1], classes[1:]
    ends_line = (after - _CR) <= _NEWLINE - _CR
    ended_line = (before - _CR) <= _NEWLINE - _CR
    certain = ((after == _SPACE) & (before != _SPACE)) | ends_line | ended_line
    result: npt.NDArray[np.bool_] = certain & ~((before == _CR) & (after == _LF))
    return result


def _stretches(classes: npt.NDArray[np.uint8], hard: npt.NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """Yield the stretches between certain breaks that hold the hard characters, close ones together."""
    if not len(hard):
        return
    breaks = np.flatnonzero(_certain_breaks(classes)) + 1
    cuts = np.concatenate([[0], breaks, [len(classes)]])
    # The piece that each hard character lies in, each piece once.
    pieces = np.searchsorted(cuts, hard, "right") - 1
    pieces = pieces[np.diff(pieces, prepend=-1) > 0]
    starts, ends = cuts[pieces], cuts[pieces + 1]
    # Join neighbours: a stretch starts at the first piece and behind every wide gap, and ends before each.
    apart = np.flatnonzero(starts[1:] - ends[:-1] > _GAP)
    starts = starts[np.concatenate([[0], apart + 1])]
    ends = ends[np.concatenate([apart, [len(ends) - 1]])]
    yield from zip(starts.tolist(), ends.tolist(), strict=True)


def _icu_marks(units: npt.NDArray[np.uint16]) -> Marks:
    """Ask ICU; marks of the positions after each code unit."""
    signed = signed_boundaries(units.tobytes().decode("utf-16-le", "surrogatepass"))
    marks = np.zeros(len(units), np.uint8)
    # Boundaries count from before the first unit, marks from behind it.
    marks[np.abs(signed) - 1] = np.where(signed > 0, WORD_END, BREAK)
    return marks


def signed_boundaries(text: str) -> npt.NDArray[np.int64]:
    """Return ICU's word boundaries after the first, negative where no word ends."""
    iterator = icu_iterator("word")
    iterator.setText(text)
    # The rule status is read in the same pass: it is 0 for what is no word.
    status = iterator.getRuleStatus
    return np.fromiter((end if status() else -end for end in iterator), np.int64)


@cache
def _class_table() -> npt.NDArray[np.uint8]:
    """Return the class of every UTF-16 code unit, from ICU's own character properties."""
    import icu

    table = np.zeros(1 << 16, np.uint8)
    for number, pattern in _SETS.items():
        members = "".join(icu.UnicodeSet(f"[[{pattern}]&[\\u0000-\\uFFFF]]"))
        table[np.frombuffer(members.encode("utf-16-le", "surrogatepass"), "<u2")] = number
    return table
