"""Text from outside on its way to a terminal or a log: the one place where it loses every power over them.

Documents, services, file names and mapping keys may hold escape sequences, markup, line breaks and characters that
turn the direction of writing. Here they become visible symbols.
"""

import re
import sys

_CONTROLS = {code: 0x2400 + code for code in range(32)}
_LONE = dict.fromkeys((*range(0x7F, 0xA0), *range(0xD800, 0xE000)), 0xFFFD)
# Line and paragraph separators, and what turns the direction of writing.
_TURNS = dict.fromkeys(
    (0x061C, 0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)), 0xFFFD
)
_ONE_LINE = {**_CONTROLS, **_LONE, **_TURNS}
_LINES = {code: symbol for code, symbol in _ONE_LINE.items() if chr(code) not in "\n\t"}
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Show control characters as symbols; line breaks and tabs stay, and so does the length."""
    return text.translate(_LINES)


def one_line(text: str) -> str:
    """Show control characters as symbols, line breaks and tabs too."""
    return text.translate(_ONE_LINE)


def number_of(count: int, noun: str) -> str:
    """So many of something: ``1 document``, ``2,000 queries``."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def printable_json(text: str) -> str:
    """JSON without the control characters that JSON lets stand in its strings; it means the same."""
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def show_error(text: str, *, lines: bool = False) -> None:
    """Say on stderr what went wrong.

    Args:
        text: what went wrong.
        lines: whether its line breaks are ours; those of a text from outside are none.
    """
    print(f"error: {printable(text) if lines else one_line(text)}", file=sys.stderr)
