"""Dates: formats, the range that a date stands for, and date math."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.dates import DEFAULT_FORMATS, DEFAULT_NANOS_FORMATS, date_math, parse_date

SECOND = 10**9


def moment(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND


@pytest.mark.parametrize(
    ("text", "formats", "first", "after"),
    [
        ("2020", DEFAULT_FORMATS, "2020-01-01", "2021-01-01"),
        ("2020-02", DEFAULT_FORMATS, "2020-02-01", "2020-03-01"),
        ("2020-02-29", DEFAULT_FORMATS, "2020-02-29", "2020-03-01"),
        ("2020-02-29T10", DEFAULT_FORMATS, "2020-02-29T10:00:00", "2020-02-29T11:00:00"),
        ("2020/01/05", ("yyyy/MM/dd",), "2020-01-05", "2020-01-06"),
        ("20200105", ("basic_date",), "2020-01-05", "2020-01-06"),
        ("05 Mar 2021 03:04 PM", ("dd MMM yyyy hh:mm a",), "2021-03-05T15:04:00", "2021-03-05T15:05:00"),
        ("2020-01-01 10:00:07", ("yyyy-MM-dd HH:mm:ss[.SSS]",), "2020-01-01T10:00:07", "2020-01-01T10:00:08"),
        ("2020-060", ("ordinal_date",), "2020-02-29", "2020-03-01"),
    ],
)
def test_a_date_stands_for_all_of_its_smallest_part(text, formats, first, after):
    found = parse_date(text, formats)
    assert (found.first, found.last) == (moment(first), moment(after) - 1)


def test_nanoseconds_have_a_time_with_seconds_or_none():
    formats = DEFAULT_NANOS_FORMATS
    for text in (
        "2020",
        "2020-02",
        "2020-02-29",
        "2020-02-29T10:30:15",
        "2020-02-29T10:30:15.1Z",
        "1580000000000",
    ):
        parse_date(text, formats)
    for text in ("2020-02-29T", "2020-02-29T10", "2020-02-29T10:30", "2020-02-29T10:30Z"):
        with pytest.raises(ValueError, match="is no date of the format"):
            parse_date(text, formats)


@given(st.datetimes(timezones=st.just(UTC)))
def test_iso_dates_and_milliseconds_agree(instant):
    instant = instant.replace(microsecond=instant.microsecond // 1000 * 1000)
    since = instant - datetime(1970, 1, 1, tzinfo=UTC)
    milliseconds = since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000
    assert parse_date(instant.isoformat(timespec="milliseconds")).first == milliseconds * 10**6
    assert parse_date(str(milliseconds), ("epoch_millis",)).first == milliseconds * 10**6


@pytest.mark.parametrize("text", ["2020-13-01", "2020-02-30", "2020-1-1", "blue", "", "2020-01-01T25"])
def test_what_is_no_date_is_refused(text):
    with pytest.raises(ValueError, match=r"there is no|is no date"):
        parse_date(text)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("now", "2024-03-31T12:00:00"),
        ("now-7d/d", "2024-03-24"),
        ("now-1M/M", "2024-02-01"),
        ("2024-01-31||+1M", "2024-02-29"),
        ("2024-02-15||/w", "2024-02-12"),
        ("now/y", "2024-01-01"),
    ],
)
def test_date_math(text, first):
    assert date_math(text, DEFAULT_FORMATS, moment("2024-03-31T12:00:00")).first == moment(first)
