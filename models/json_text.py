"""JSON and other nested values that people and programs bring: bounded in depth, and wrong ones a sentence."""

import json
from typing import Any

MAX_DEPTH = 100


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: it is none, it is nested deeper than `MAX_DEPTH`, or it is no UTF-8; the message is a sentence.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    check_depth(value)
    return value


_TOO_DEEP = f"it is nested deeper than {MAX_DEPTH} levels"


def check_depth(value: Any, limit: int = MAX_DEPTH) -> None:
    """Refuse a value of lists and dicts that is nested too deeply for code that walks it.

    Raises:
        ValueError: it is.
    """
    level = [value]
    for _ in range(limit + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, list | dict)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise ValueError(_TOO_DEEP)
