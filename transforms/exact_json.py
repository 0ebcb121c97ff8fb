"""JSON that keeps every number as it was sent.

A 64-bit integer and a double hold most numbers. One that they do not hold, such as an account number of 23 digits or
a price with 20 of them, is a `Decimal` here, from the source file to the table's ``_source`` and back.
"""

import json
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

_SHAPE, _SIGNS = bytes.maketrans(b"123456789.E", b"0000000000e"), b"+-"
_LONG, _HIGH = b"0" * 17, b"0e000"
"""The shapes of a number that a double may not hold, without signs: more than 15 digits and a point, or an exponent
of three."""

_EXACT = frozenset((str, int, bool, type(None)))
"""Types that hold what was sent; an integer that is too long is parsed as a float."""

_MAX_EXPONENT = 100_000


def loads(text: bytes | str) -> Any:
    """Parse JSON; a number that neither a 64-bit integer nor a double holds is a Decimal.

    Raises:
        orjson.JSONDecodeError: it is not JSON. Like ``json.JSONDecodeError`` it is a ValueError.
        ValueError: a number has an exponent beyond 100,000.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if "infinity" not in str(error):
            raise
    else:
        # Most documents are text and small numbers. To see that must cost less than to parse them.
        if type(found) is dict and _EXACT.issuperset(map(type, found.values())):
            return found
        shape = raw.translate(_SHAPE, _SIGNS)
        if _LONG not in shape and _HIGH not in shape:
            return found
    return json.loads(
        raw.decode(), parse_int=exact_number, parse_float=exact_number, parse_constant=exact_number
    )


def exact_number(digits: str) -> int | float | Decimal:
    """The number that some digits stand for, as a Python number or a Decimal that holds all of them.

    Raises:
        ValueError: they are no number, or its exponent is beyond 100,000.
    """
    try:
        exact = Decimal(digits)
    except InvalidOperation:
        raise ValueError(f"[{digits}] is not a number") from None
    return plain_number(exact)


def plain_number(exact: Decimal) -> int | float | Decimal:
    """The same number as an integer of 64 bits or a double, where one of them holds it; else unchanged.

    Raises:
        ValueError: it is not finite, or its exponent is beyond 100,000.
    """
    exponent = exact.as_tuple().exponent
    if not isinstance(exponent, int):
        raise ValueError(f"[{exact}] is not a finite number")
    if abs(exact.adjusted()) > _MAX_EXPONENT or abs(exponent) > _MAX_EXPONENT:
        raise ValueError(f"[{str(exact)[:40]}] has an exponent beyond {_MAX_EXPONENT:,}")
    if exponent == 0:
        number = int(exact)
        return number if -(2**63) <= number < 2**64 else exact
    double = float(exact)
    # The shortest digits of the double must be those of the number.
    return double if Decimal(repr(double)) == exact else exact


def dumps(value: Any, *, sort_keys: bool = False) -> bytes:
    """Write JSON.

    Raises:
        TypeError: a value has no JSON form (`orjson.JSONEncodeError`).
    """
    return orjson.dumps(value, _decimal, orjson.OPT_SORT_KEYS if sort_keys else 0)


def _decimal(value: Any) -> Any:
    if isinstance(value, Decimal):
        return orjson.Fragment(str(value))
    raise TypeError(f"a value of type {type(value).__name__} has no JSON form")
