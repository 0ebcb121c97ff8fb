"""Dates as Elasticsearch reads them: by the formats of a mapping, with as many parts as are written, and date math.

A date is a range: ``2024-03`` is the month, from its first nanosecond to its last. Numbers are nanoseconds since 1970.
"""

import re
from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import accumulate
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DEFAULT_FORMATS = ("strict_date_optional_time", "epoch_millis")
DEFAULT_NANOS_FORMATS = ("strict_date_optional_time_nanos", "epoch_millis")

_SECOND = 10**9
_LENGTHS = {
    "d": 86_400 * _SECOND,
    "h": 3_600 * _SECOND,
    "m": 60 * _SECOND,
    "s": _SECOND,
    "ms": 10**6,
    "ns": 1,
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

_NAMED = {
    "basic_date": "yyyyMMdd",
    "basic_date_time": "yyyyMMdd'T'HHmmss.SSSXX",
    "basic_date_time_no_millis": "yyyyMMdd'T'HHmmssXX",
    "date": "yyyy-MM-dd",
    "year_month_day": "yyyy-MM-dd",
    "year_month": "yyyy-MM",
    "year": "yyyy",
    "date_hour": "yyyy-MM-dd'T'HH",
    "date_hour_minute": "yyyy-MM-dd'T'HH:mm",
    "date_hour_minute_second": "yyyy-MM-dd'T'HH:mm:ss",
    "date_hour_minute_second_millis": "yyyy-MM-dd'T'HH:mm:ss.SSS",
    "date_hour_minute_second_fraction": "yyyy-MM-dd'T'HH:mm:ss.SSS",
    "date_time": "yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
    "date_time_no_millis": "yyyy-MM-dd'T'HH:mm:ssXXX",
    "ordinal_date": "yyyy-DDD",
}
_OPTIONAL_TIME = (
    r"(?P<y>\d{4}|[-+]\d{4,9})(?:-(?P<M>\d{%s})(?:-(?P<d>\d{%s}))?)?"
    r"(?:T(?:(?P<H>\d{%s})(?::(?P<m>\d{%s})(?::(?P<s>\d{%s})(?:[.,](?P<S>\d{1,9}))?)?)?(?P<X>Z|[-+]\d{2}(?::?\d{2})?)?)?)?"
)
_OPTIONAL_WHOLE_TIME = (
    r"(?P<y>\d{4}|[-+]\d{4,9})(?:-(?P<M>\d\d)(?:-(?P<d>\d\d)"
    r"(?:T(?P<H>\d\d):(?P<m>\d\d):(?P<s>\d\d)(?:[.,](?P<S>\d{1,9}))?(?P<X>Z|[-+]\d{2}(?::?\d{2})?)?)?)?)?"
)
"""Of ``date_nanos``: a time is there with its seconds or not at all, as Elasticsearch 9.5 has it."""

_LETTERS = {
    "y": {1: r"(?P<y>[-+]?\d+)", 2: r"(?P<yy>\d{2})", 4: r"(?P<y>\d{4}|[-+]\d{4,9})"},
    "u": {1: r"(?P<y>[-+]?\d+)", 2: r"(?P<yy>\d{2})", 4: r"(?P<y>\d{4}|[-+]\d{4,9})"},
    "M": {1: r"(?P<M>\d{1,2})", 2: r"(?P<M>\d{2})", 3: r"(?P<MMM>[A-Za-z]{3})", 4: r"(?P<MMM>[A-Za-z]+)"},
    "L": {1: r"(?P<M>\d{1,2})", 2: r"(?P<M>\d{2})"},
    "d": {1: r"(?P<d>\d{1,2})", 2: r"(?P<d>\d{2})"},
    "D": {1: r"(?P<D>\d{1,3})", 3: r"(?P<D>\d{3})"},
    "H": {1: r"(?P<H>\d{1,2})", 2: r"(?P<H>\d{2})"},
    "k": {1: r"(?P<H>\d{1,2})", 2: r"(?P<H>\d{2})"},
    "h": {1: r"(?P<h>\d{1,2})", 2: r"(?P<h>\d{2})"},
    "m": {1: r"(?P<m>\d{1,2})", 2: r"(?P<m>\d{2})"},
    "s": {1: r"(?P<s>\d{1,2})", 2: r"(?P<s>\d{2})"},
    "a": {1: r"(?P<a>[AaPp][Mm])"},
    "E": dict.fromkeys(range(1, 5), r"[A-Za-z]+"),
    "X": dict.fromkeys(range(1, 6), r"(?P<X>Z|[-+]\d{2}(?::?\d{2})?)"),
    "x": dict.fromkeys(range(1, 6), r"(?P<X>[-+]\d{2}(?::?\d{2})?)"),
    "Z": dict.fromkeys(range(1, 6), r"(?P<X>Z|[-+]\d{2}:?\d{2})"),
    "z": dict.fromkeys(range(1, 5), r"(?P<V>[A-Za-z][\w/+-]*)"),
    "V": {2: r"(?P<V>[A-Za-z][\w/+-]*)"},
}


@dataclass(frozen=True, slots=True)
class Moment:
    """A date as it was written.

    Attributes:
        first: its first nanosecond.
        last: its last nanosecond, which is the same one where all parts were written.
    """

    first: int
    last: int


def parse_date(text: str, formats: Sequence[str] = DEFAULT_FORMATS, zone: str | None = None) -> Moment:
    """Read a date by the first format that fits.

    Args:
        text: the date.
        formats: names of formats and Java patterns.
        zone: time zone of a date that names none; None is UTC.

    Raises:
        ValueError: no format fits, or the date does not exist.
    """
    for name in formats:
        if name in ("epoch_millis", "epoch_second"):
            digits = re.fullmatch(r"(-?)([0-9]{1,18})(?:\.([0-9]{1,9}))?", text)
            if digits:
                unit = 10**6 if name == "epoch_millis" else _SECOND
                fraction = int((digits[3] or "").ljust(9, "0")) * unit // _SECOND
                first = int(digits[2]) * unit + fraction
                first = -first if digits[1] else first
                return Moment(first, first)
            continue
        match = date_pattern(name).fullmatch(text)
        if match:
            return _moment(match.groupdict(), zone)
    raise ValueError(f"[{text}] is no date of the format [{'||'.join(formats)}]")


@cache
def date_pattern(name: str) -> re.Pattern[str]:
    """The regular expression of a format.

    Raises:
        ValueError: it is no known name and no Java pattern that this program reads.
    """
    plain = name.removeprefix("strict_")
    if plain == "date_optional_time_nanos":
        return re.compile(_OPTIONAL_WHOLE_TIME, re.ASCII)
    if plain in ("date_optional_time", "iso8601"):
        width = "2" if name != plain or plain == "iso8601" else "1,2"
        return re.compile(_OPTIONAL_TIME % ((width,) * 5), re.ASCII)
    return re.compile(_java_pattern(_NAMED.get(plain, name)), re.ASCII)


def _java_pattern(pattern: str) -> str:
    parts: list[str] = []
    for token in re.finditer(r"'((?:[^']|'')*)'|([A-Za-z])\2*|(.)", pattern.removeprefix("8"), re.DOTALL):
        quoted, letter, other = token.groups()
        if letter:
            parts.append(_letters(letter, len(token[0]), pattern))
        elif other:
            parts.append({"[": "(?:", "]": ")?"}.get(other, re.escape(other)))
        else:
            parts.append(re.escape(quoted.replace("''", "'") or "'"))
    try:
        re.compile(joined := "".join(parts))
    except re.error:
        raise ValueError(f"[{pattern}] is not a date format that this program reads") from None
    return joined


def _letters(letter: str, count: int, pattern: str) -> str:
    if letter in "Sn":
        return rf"(?P<S>\d{{{count}}})"
    found = _LETTERS.get(letter, {}).get(count)
    if found is None:
        names = "strict_date_optional_time, epoch_millis, epoch_second, basic_date, date_time"
        raise ValueError(
            f"the date format [{pattern}] has [{letter * count}], which is not known; formats are {names}"
        )
    return found


def _moment(parts: dict[str, str | None], zone: str | None) -> Moment:
    """The range of a date whose parts were matched; the smallest part that is written decides its length."""

    def number(name: str, default: int) -> int:
        return int(parts.get(name) or default)

    year = 2000 + number("yy", 0) if parts.get("yy") else number("y", 1970)
    month = _MONTHS.index((parts.get("MMM") or "")[:3].lower()) + 1 if parts.get("MMM") else number("M", 1)
    hour = (
        number("H", 0)
        if not parts.get("h")
        else number("h", 0) % 12 + 12 * ((parts.get("a") or "").lower() == "pm")
    )
    clock = (hour, number("m", 0), number("s", 0))
    if clock[0] > 23 or clock[1] > 59 or clock[2] > 59:
        raise ValueError(f"there is no time {hour:02}:{clock[1]:02}:{clock[2]:02}")
    day = number("d", 1)
    start = (days_of(year, month, day) + (number("D", 1) - 1)) * _LENGTHS["d"]
    start += (clock[0] * 3600 + clock[1] * 60 + clock[2]) * _SECOND + int(
        (parts.get("S") or "").ljust(9, "0")
    )
    written = [unit for unit, names in _WRITTEN if any(parts.get(name) for name in names)]
    unit = written[0] if written else "y"
    last = add(start, 1, unit) - 1 if unit != "S" else start
    shift = _offset(parts.get("X"), parts.get("V") or zone, start)
    return Moment(start - shift, last - shift)


_WRITTEN = (
    ("S", ("S",)),
    ("s", ("s",)),
    ("m", ("m",)),
    ("h", ("H", "h")),
    ("d", ("d", "D")),
    ("M", ("M", "MMM")),
    ("y", ("y", "yy")),
)


def days_of(year: int, month: int, day: int) -> int:
    """Days from 1970 to a date of the Gregorian calendar, whatever its year.

    Raises:
        ValueError: there is no such date.
    """
    if not 1 <= month <= 12 or not 1 <= day <= month_days(year, month):
        raise ValueError(f"there is no date {year:04}-{month:02}-{day:02}")
    # Years begin in March here, so that a leap day is the last one and 400 years always have 146,097 days.
    shifted = year - (month <= 2)
    era, of_era = divmod(shifted, 400)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


def month_days(year: int, month: int) -> int:
    """Days of a month; the calendar repeats every 400 years."""
    return monthrange(2000 + year % 400, month)[1]


def _date_of(days: int) -> tuple[int, int, int]:
    """Year, month and day of a number of days since 1970: `days_of` backwards."""
    era, of_era_day = divmod(days + 719_468, 146_097)
    of_era = (of_era_day - of_era_day // 1_460 + of_era_day // 36_524 - of_era_day // 146_096) // 365
    of_year = of_era_day - (365 * of_era + of_era // 4 - of_era // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    return of_era + era * 400 + (month <= 2), month, day


def _offset(written: str | None, zone: str | None, start: int) -> int:
    """Nanoseconds that a zone is ahead of UTC."""
    text = written or zone
    if text in (None, "Z", "UTC", "GMT"):
        return 0
    fixed = re.fullmatch(r"([-+])(\d{2}):?(\d{2})?", text)
    if fixed:
        seconds = int(fixed[2]) * 3600 + int(fixed[3] or 0) * 60
        return (-seconds if fixed[1] == "-" else seconds) * _SECOND
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=start // _SECOND)
        offset = moment.replace(tzinfo=ZoneInfo(text)).utcoffset()
    except (ZoneInfoNotFoundError, ValueError, OverflowError):
        raise ValueError(f"[{text}] is no time zone") from None
    return round((offset or timedelta()).total_seconds()) * _SECOND


def add(moment: int, count: int, unit: str) -> int:
    """Move a moment by some units of date math; a month that is too short ends it."""
    if unit in ("M", "y"):
        days, rest = divmod(moment, _LENGTHS["d"])
        year, month, day = _date_of(days)
        years, month0 = divmod(month - 1 + count * (12 if unit == "y" else 1), 12)
        day = min(day, month_days(year + years, month0 + 1))
        return days_of(year + years, month0 + 1, day) * _LENGTHS["d"] + rest
    length = 7 * _LENGTHS["d"] if unit == "w" else _LENGTHS[unit.lower() if unit == "H" else unit]
    return moment + count * length


def _floor(moment: int, unit: str) -> int:
    days = moment // _LENGTHS["d"]
    year, month, _ = _date_of(days)
    if unit in ("y", "M"):
        return days_of(year, 1 if unit == "y" else month, 1) * _LENGTHS["d"]
    if unit == "w":
        return (days - (days + 3) % 7) * _LENGTHS["d"]  # 1970 began on a Thursday, weeks begin on Mondays
    length = _LENGTHS[unit.lower() if unit == "H" else unit]
    return moment // length * length


_STEP = re.compile(r"(?:([-+])(\d*)|(/))([yMwdhHms])")


def date_math(text: str, formats: Sequence[str], now: int, zone: str | None = None) -> Moment:
    """Read a date of a query: one of the formats, or date math from ``now`` or from a date that ``||`` ends.

    Raises:
        ValueError: it is neither.
    """
    if text.startswith("now"):
        base, steps = Moment(now, now), text[3:]
    elif "||" in text:
        written, _, steps = text.partition("||")
        base = parse_date(written, formats, zone)
    else:
        return parse_date(text, formats, zone)
    found = list(_STEP.finditer(steps))
    if "".join(step[0] for step in found) != steps:
        raise ValueError(f"[{text}] is no date math: write now-7d/d or 2024-01-01||+1M")
    return list(accumulate(found, _step, initial=base))[-1]


def _step(moment: Moment, step: re.Match[str]) -> Moment:
    sign, count, rounds, unit = step.groups()
    if rounds:
        first = _floor(moment.first, unit)
        return Moment(first, add(first, 1, unit) - 1)
    by = int(count or 1) * (-1 if sign == "-" else 1)
    return Moment(add(moment.first, by, unit), add(moment.last, by, unit))
