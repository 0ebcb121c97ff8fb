"""Chunking cases by where they come from: `tests/data/CHUNKING_CASES.md` says what each letter means."""

from support.chunking_cases import ROWS, check, is_ours, rows_by


@rows_by("A")
def test_asserted_case(row):
    """A test of Elasticsearch itself asserts it."""
    check(row)


@rows_by("C")
def test_computed_case(row):
    """Computed from Elasticsearch's rules with ICU: strong, but no test of Elasticsearch asserts it."""
    check(row)


@rows_by("D")
def test_documented_case(row):
    """Elasticsearch's documentation or source states it."""
    check(row)


def test_no_row_is_lost():
    ours = [row for row in ROWS if is_ours(row)]
    assert {row["by"] for row in ours} == {"A", "C", "D"}
    assert len(ours) == 167
