r"""Java regular expressions, rewritten for Python's `regex` module.

Elasticsearch compiles separators with Java's ``Pattern.MULTILINE``. Where both dialects mean different things by the
same text the pattern is spelled out: line ends (Java knows six, Python one), ``\s \w \d \b`` (ASCII in Java), letter
case (ASCII in Java), POSIX and ``java...`` classes, ``\h \v \R \Z \z \Q...\E``, octal and hexadecimal escapes,
intersections of character classes. What Java refuses is refused here too.
"""

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from transforms.chunk.java_properties import property_class

LINE_END = r"\n\r\x85\u2028\u2029"
_VERTICAL = r"\n\x0b\x0c\r\x85\u2028\u2029"
_HORIZONTAL = r"\x20\t\xa0\u1680\u180e\u2000-\u200a\u202f\u205f\u3000"
_WORD = "A-Za-z0-9_"

# Members of a character class for each class escape; capitals are their complements.
_CLASSES: Mapping[str, str] = {
    "d": "0-9",
    "w": _WORD,
    "s": r"\x20\t\n\x0b\x0c\r",
    "h": _HORIZONTAL,
    "v": _VERTICAL,
}
_UNICODE_CLASSES: Mapping[str, str] = {
    "d": r"\p{Nd}",
    "w": r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}",
    "s": r"\p{White_Space}",
}
_CONTROLS: Mapping[str, str] = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "a": "\a", "e": "\x1b"}
_FLAGS = "idmsuxU"


class JavaRegexError(ValueError):
    """The pattern is none that Java would compile, or uses what cannot be carried over."""


@dataclass(frozen=True, slots=True)
class _Flags:
    """Java's flags, by the letter that switches each on."""

    i: bool = False
    d: bool = False
    m: bool = True
    s: bool = False
    u: bool = False
    x: bool = False
    U: bool = False


def to_python(pattern: str) -> str:
    """Rewrite a Java pattern, compiled with MULTILINE, for ``regex.VERSION1`` without flags.

    Raises:
        JavaRegexError: Java would not compile it, or a property is unknown.
    """
    return _Rewriter(pattern).rewrite()


class _Rewriter:
    """Reads a pattern once, from left to right."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.position = 0
        self.flags = _Flags()
        self.outer: list[_Flags] = []
        self.groups = 0
        self.out: list[str] = []

    def rewrite(self) -> str:
        """Rewrite the whole pattern."""
        special: Mapping[str, Callable[[], str]] = {
            "\\": self._escape,
            "[": self._class,
            "(": self._open_group,
            ")": self._close_group,
            ".": self._dot,
            "^": self._caret,
            "$": self._dollar,
            "{": self._repetition,
        }
        while self.position < len(self.pattern):
            character = self._next()
            if self.flags.x and (character in " \t\n\x0b\x0c\r" or character == "#"):
                self._skip_comment(character)
            elif character in special:
                self.out.append(special[character]())
            elif character in "*+?|":
                self.out.append(character)
            else:
                self.out.append(self._literal(character))
        if self.outer:
            raise self._error("Unclosed group")
        return "".join(self.out)

    def _next(self) -> str:
        if self.position >= len(self.pattern):
            raise self._error("Unexpected end of the pattern")
        self.position += 1
        return self.pattern[self.position - 1]

    def _take(self, text: str) -> bool:
        """Step over `text` if it comes next."""
        if not self.pattern.startswith(text, self.position):
            return False
        self.position += len(text)
        return True

    def _until(self, end: str) -> str:
        """Step over everything up to and including `end`; return what stands before it."""
        found = self.pattern.find(end, self.position)
        if found < 0:
            raise self._error(f"Missing [{end}]")
        text = self.pattern[self.position : found]
        self.position = found + len(end)
        return text

    def _error(self, problem: str) -> JavaRegexError:
        return JavaRegexError(f"{problem} near index {self.position}")

    def _skip_comment(self, character: str) -> None:
        if character == "#":
            rest = self.pattern[self.position :].splitlines(keepends=True)
            self.position += len(rest[0]) if rest else 0

    def _literal(self, character: str) -> str:
        """A character that stands for itself, in both cases where case is ignored."""
        if self.flags.i and self.flags.u:
            return f"(?i:{_quoted(character)})"
        if self.flags.i and character.isascii() and character.isalpha():
            return f"[{character.lower()}{character.upper()}]"
        return _quoted(character)

    # Anchors and the dot

    def _line_end(self) -> str:
        return r"\n" if self.flags.d else LINE_END

    def _dot(self) -> str:
        return r"[\s\S]" if self.flags.s else f"[^{self._line_end()}]"

    def _caret(self) -> str:
        if not self.flags.m:
            return r"\A"
        after = r"(?<=\n)" if self.flags.d else r"(?:(?<=[\n\x85\u2028\u2029])|(?<=\r)(?!\n))"
        # Unlike Python's, Java's ^ never matches at the very end.
        return rf"(?:(?!\Z)(?:\A|{after}))"

    def _dollar(self) -> str:
        before = r"(?=\n)" if self.flags.d else r"(?:(?=[\r\x85\u2028\u2029])|(?<!\r)(?=\n))"
        if self.flags.m:
            return rf"(?:\Z|{before})"
        return self._before_last_line_end()

    def _before_last_line_end(self) -> str:
        if self.flags.d:
            return r"(?=\n?\Z)"
        return r"(?:(?=\r\n\Z)|(?<!\r)(?=\n\Z)|(?=[\r\x85\u2028\u2029]?\Z))"

    def _repetition(self) -> str:
        """``{n}``, ``{n,}`` or ``{n,m}``; Java accepts no other brace."""
        bounds = self._until("}") if "}" in self.pattern[self.position :] else ""
        least, comma, most = bounds.partition(",")
        if not least.isdecimal() or not least.isascii() or (most and not most.isdecimal()):
            raise self._error("Illegal repetition")
        return f"{{{least}{comma}{most}}}"

    # Groups and flags

    def _open_group(self) -> str:
        if not self._take("?"):
            self.groups += 1
            self.outer.append(self.flags)
            return "("
        for opening in ("<=", "<!", "=", "!", ">", ":"):
            if self._take(opening):
                self.outer.append(self.flags)
                return f"(?{opening}"
        if self._take("<"):
            name = self._until(">")
            if not (name.isascii() and name.isalnum() and name[0].isalpha()):
                raise self._error("Illegal group name")
            self.groups += 1
            self.outer.append(self.flags)
            return f"(?<{name}>"
        return self._switch_flags()

    def _switch_flags(self) -> str:
        """``(?i)`` holds up to the end of the enclosing group, ``(?i:...)`` within its own."""
        flags, on = self.flags, True
        while (letter := self._next()) not in "):":
            if letter == "-":
                on = False
            elif letter in _FLAGS:
                flags = replace(flags, **{letter: on})
            else:
                raise self._error(f"Unknown inline modifier [{letter}]")
        if flags.U:
            flags = replace(flags, u=True)
        if letter == ":":
            self.outer.append(self.flags)
        self.flags = flags
        return "(?:" if letter == ":" else ""

    def _close_group(self) -> str:
        if not self.outer:
            raise self._error("Unmatched closing )")
        self.flags = self.outer.pop()
        return ")"

    # Escapes

    def _escape(self) -> str:
        letter = self._next()
        if letter == "Q":
            end = self.pattern.find("\\E", self.position)
            quoted = self._until("\\E") if end >= 0 else self.pattern[self.position :]
            self.position = len(self.pattern) if end < 0 else self.position
            # One group, so that a quantifier behind it still takes the last character only.
            return "".join(map(self._literal, quoted))
        if letter in "123456789":
            return self._back_reference(letter)
        if letter == "k":
            if not self._take("<"):
                raise self._error(r"\k is not followed by [<] for a named group")
            return f"(?P={self._until('>')})"
        fixed = self._fixed_escape(letter)
        if fixed is not None:
            return fixed
        members = self._class_escape(letter)
        return f"[{members}]" if members is not None else self._literal(self._character(letter))

    def _fixed_escape(self, letter: str) -> str | None:
        """Escapes that match a place rather than a character of a class."""
        if letter in "bB" and not self.flags.U:
            inside = f"(?<=[{_WORD}])(?=[{_WORD}])|(?<![{_WORD}])(?![{_WORD}])"
            edge = f"(?<=[{_WORD}])(?![{_WORD}])|(?<![{_WORD}])(?=[{_WORD}])"
            return f"(?:{edge if letter == 'b' else inside})"
        fixed = {
            "b": r"\b",
            "B": r"\B",
            "A": r"\A",
            "G": r"\G",
            "z": r"\Z",
            "Z": self._before_last_line_end(),
            "R": rf"(?:\r\n|[{_VERTICAL}])",
            "X": r"\X",
        }
        return fixed.get(letter)

    def _back_reference(self, digits: str) -> str:
        """Take further digits as long as there are that many groups; a missing group never matches."""
        while self.position < len(self.pattern) and self.pattern[self.position] in "0123456789":
            if int(digits + self.pattern[self.position]) > self.groups:
                break
            digits += self._next()
        return f"(?:\\{digits})" if int(digits) <= self.groups else "(?!)"

    def _class_escape(self, letter: str) -> str | None:
        r"""The members of a class escape such as ``\d`` or ``\p{Lu}``; None for any other."""
        if letter in "pP":
            name = self._until("}") if self._take("{") else self._next()
            members = property_class(name, unicode_classes=self.flags.U)
            if members is None:
                raise self._error(f"Unknown character property name {{{name}}}")
            return f"[^{members}]" if letter == "P" else members
        lower = letter.lower()
        if lower not in _CLASSES:
            return None
        members = _UNICODE_CLASSES.get(lower, _CLASSES[lower]) if self.flags.U else _CLASSES[lower]
        return members if letter == lower else f"[^{members}]"

    def _character(self, letter: str) -> str:
        """The one character that an escape stands for."""
        if letter in _CONTROLS:
            return _CONTROLS[letter]
        if letter == "0":
            return self._octal()
        if letter == "x":
            return self._code_point(self._until("}") if self._take("{") else self._digits(2))
        if letter == "u":
            return self._utf16_escape()
        if letter == "c":
            return chr(ord(self._next()) ^ 64)
        if letter == "N" and self._take("{"):
            return self._named(self._until("}"))
        if letter.isascii() and letter.isalpha():
            raise self._error(f"Illegal/unsupported escape sequence [\\{letter}]")
        return letter

    def _digits(self, count: int) -> str:
        digits = self.pattern[self.position : self.position + count]
        if len(digits) < count:
            raise self._error("Illegal hexadecimal escape sequence")
        self.position += count
        return digits

    def _code_point(self, digits: str) -> str:
        try:
            return chr(int(digits, 16))
        except (ValueError, OverflowError):
            raise self._error("Illegal hexadecimal escape sequence") from None

    def _utf16_escape(self) -> str:
        r"""``\uhhhh``; two that form a surrogate pair are one character."""
        high = self._code_point(self._digits(4))
        if "\ud800" <= high <= "\udbff" and self._take("\\u"):
            low = self._code_point(self._digits(4))
            return (high + low).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        return high

    def _octal(self) -> str:
        digits = ""
        while len(digits) < 3 and self.pattern[self.position : self.position + 1] in tuple("01234567"):
            if int(digits + self.pattern[self.position], 8) > 0o377:
                break
            digits += self._next()
        if not digits:
            raise self._error("Illegal octal escape sequence")
        return chr(int(digits, 8))

    def _named(self, name: str) -> str:
        try:
            return unicodedata.lookup(name)
        except KeyError:
            raise self._error(f"Unknown character name [{name}]") from None

    # Character classes

    def _class(self) -> str:
        """A class in brackets, ``[`` already read; Java's intersections bind weaker than its unions."""
        negation = "^" if self._take("^") else ""
        operands: list[list[str]] = [[]]
        first = True
        while not (self.pattern.startswith("]", self.position) and not first):
            if self._take("&&"):
                operands.append([])
            else:
                operands[-1].append(self._class_member())
            first = False
        self.position += 1
        unions = ["".join(operand) for operand in operands if operand]
        if not unions:
            raise self._error("Bad intersection syntax")
        body = unions[0] if len(unions) == 1 else "&&".join(f"[{union}]" for union in unions)
        ignore_case = self.flags.i and self.flags.u
        return f"(?i:[{negation}{body}])" if ignore_case else f"[{negation}{body}]"

    def _class_member(self) -> str:
        """One member: a nested class, a class escape, a character or a range."""
        if self.position >= len(self.pattern):
            raise self._error("Unclosed character class")
        character = self._next()
        if character == "[":
            return self._class()
        if self.flags.x and character in " \t\n\x0b\x0c\r":
            return ""
        if character == "\\":
            letter = self._next()
            if letter == "Q":
                return "".join(self._range(each, each) for each in self._until("\\E"))
            members = self._class_escape(letter)
            if members is not None:
                return members
            character = self._character(letter)
        rest = self.pattern[self.position : self.position + 2]
        if len(rest) < 2 or rest[0] != "-" or rest[1] in "][":
            return self._range(character, character)
        self.position += 1
        last = self._next()
        return self._range(character, self._character(self._next()) if last == "\\" else last)

    def _range(self, first: str, last: str) -> str:
        if first > last:
            raise self._error("Illegal character range")
        members = f"{_quoted_member(first)}-{_quoted_member(last)}"
        if not self.flags.i:
            return members
        for lower, upper in (("a", "z"), ("A", "Z")):
            start, end = max(first, lower), min(last, upper)
            if start <= end:
                members += f"{start.swapcase()}-{end.swapcase()}"
        return members


def _quoted(character: str) -> str:
    """Spell a character so that it means nothing but itself."""
    return character if character.isalnum() else _quoted_member(character)


def _quoted_member(character: str) -> str:
    """Spell a character so that it means nothing but itself inside a class."""
    if character.isascii() and character.isalnum():
        return character
    return f"\\U{ord(character):08x}"
