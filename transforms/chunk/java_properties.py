r"""``\p{...}`` of Java regular expressions, as members of a character class of the `regex` module."""

from collections.abc import Mapping
from functools import cache

_POSIX: Mapping[str, str] = {
    "Lower": "a-z",
    "Upper": "A-Z",
    "ASCII": r"\x00-\x7f",
    "Alpha": "A-Za-z",
    "Digit": "0-9",
    "Alnum": "A-Za-z0-9",
    "Punct": r"\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e",
    "Graph": r"\x21-\x7e",
    "Print": r"\x20-\x7e",
    "Blank": r"\x20\t",
    "Cntrl": r"\x00-\x1f\x7f",
    "XDigit": "0-9A-Fa-f",
    "Space": r"\x20\t\n\x0b\x0c\r",
}
_UNICODE_POSIX: Mapping[str, str] = {
    "Lower": r"\p{Lowercase}",
    "Upper": r"\p{Uppercase}",
    "Alpha": r"\p{Alphabetic}",
    "Digit": r"\p{Nd}",
    "Alnum": r"\p{Alphabetic}\p{Nd}",
    "Punct": r"\p{P}",
    "Blank": r"\p{Zs}\t",
    "Cntrl": r"\p{Cc}",
    "XDigit": r"\p{Nd}\p{Hex_Digit}",
    "Space": r"\p{White_Space}",
}
_JAVA: Mapping[str, str] = {
    "javaLowerCase": r"\p{Lowercase}",
    "javaUpperCase": r"\p{Uppercase}",
    "javaTitleCase": r"\p{Lt}",
    "javaAlphabetic": r"\p{Alphabetic}",
    "javaIdeographic": r"\p{Ideographic}",
    "javaLetter": r"\p{L}",
    "javaDigit": r"\p{Nd}",
    "javaLetterOrDigit": r"\p{L}\p{Nd}",
    "javaSpaceChar": r"\p{Z}",
    "javaISOControl": r"\x00-\x1f\x7f-\x9f",
    "javaWhitespace": r"\t-\r\x1c-\x20\u1680\u2000-\u2006\u2008-\u200a\u2028\u2029\u205f\u3000",
}
_OTHERS: Mapping[str, str] = {
    "L1": r"\x00-\xff",
    "LC": r"\p{Lu}\p{Ll}\p{Lt}",
    "LD": r"\p{L}\p{Nd}",
    "all": r"\s\S",
}
_KEYS: Mapping[str, str] = {
    "script": "Script",
    "sc": "Script",
    "block": "Block",
    "blk": "Block",
    "general_category": "gc",
    "gc": "gc",
}


def property_class(name: str, *, unicode_classes: bool) -> str | None:
    r"""Return the members of ``\p{name}``, or None if there is no such property.

    Args:
        name: what stands between the braces.
        unicode_classes: whether the POSIX classes go beyond ASCII, as under the flag ``(?U)``.
    """
    if unicode_classes and name in _UNICODE_POSIX:
        return _UNICODE_POSIX[name]
    for table in (_POSIX, _JAVA, _OTHERS):
        if name in table:
            return table[name]
    key, equals, value = name.partition("=")
    if equals:
        return _known(f"{_KEYS[key.lower()]}={value}") if key.lower() in _KEYS else None
    if name.startswith("Is"):
        return _known(name[2:])
    if name.startswith("In"):
        return _known(f"Block={name[2:]}")
    return _known(f"gc={name}")


@cache
def _known(name: str) -> str | None:
    import regex

    members = f"\\p{{{name}}}"
    try:
        regex.compile(members, regex.VERSION1)
    except regex.error:
        return None
    return members
