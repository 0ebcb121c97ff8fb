"""Separators of the recursive strategy: Java regular expressions, run by Python, within bounds."""

import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from models.chunking_settings import illegal_argument


class SeparatorBudget:
    def __init__(self, length: int) -> None:
        self.seconds = 2.0 + length / 1e6


@lru_cache(256)
def _compile(separator: str) -> Any:
    import regex

    return regex.compile(separator, regex.MULTILINE | regex.VERSION1)


def split_points(separator: str, text: str, budget: SeparatorBudget) -> list[int]:
    started = time.monotonic()
    try:
        return [m.start() for m in _compile(separator).finditer(text, timeout=budget.seconds)]
    except TimeoutError:
        raise illegal_argument(
            f"Chunk separator regex [{separator}] has exceeded the character read limit"
        ) from None
    finally:
        budget.seconds -= time.monotonic() - started
