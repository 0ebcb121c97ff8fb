"""Separators of the recursive strategy: Java regular expressions, run by Python, within bounds of time."""

import time
from functools import lru_cache
from typing import Any

from models.errors import illegal_argument
from transforms.chunk.java_regex import JavaRegexError, to_python

_LEAST_SECONDS = 1.0
# Elasticsearch lets a separator read a text ten times over. Python cannot count that, but it can keep time: this is
# far more than ten readings of a million code units take.
_SECONDS_PER_UNIT = 1e-6


class SeparatorBudget:
    """The time that the separators of one value may take, all of them together."""

    def __init__(self, length: int) -> None:
        """Grant time to a value of `length` UTF-16 code units."""
        self.seconds = _LEAST_SECONDS + length * _SECONDS_PER_UNIT

    def split_points(self, separator: str, text: str) -> list[int]:
        """Return where the matches of a separator start in `text`.

        Args:
            separator: a Java regular expression, as compiled with MULTILINE.
            text: the region that is searched; the expression sees nothing outside it.

        Raises:
            InferenceError: the separator does not compile, or the time is used up (status 400).
        """
        import regex

        pattern = compile_separator(separator)
        started = time.process_time()
        try:
            return [match.start() for match in pattern.finditer(text, timeout=max(self.seconds, 1e-3))]
        except (TimeoutError, MemoryError, regex.error):
            raise illegal_argument(
                f"Chunk separator regex [{separator}] has exceeded the character read limit"
            ) from None
        finally:
            self.seconds -= time.process_time() - started


@lru_cache(1024)
def compile_separator(separator: str) -> Any:
    """Compile a Java regular expression as Elasticsearch does, with MULTILINE.

    Raises:
        InferenceError: Java would not compile it (status 400).
    """
    import regex

    try:
        return regex.compile(to_python(separator), regex.VERSION1)
    except (JavaRegexError, regex.error, OverflowError, RecursionError) as error:
        raise illegal_argument(
            f"Chunk separator regex [{separator}] is not a valid Java regular expression: {error}"
        ) from None
