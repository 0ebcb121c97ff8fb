"""Cases that a test of Elasticsearch itself asserts."""

from chunking_cases import ROWS, check, is_ours, rows_by


@rows_by("A")
def test_case(row):
    check(row)


def test_no_row_is_lost():
    ours = [row for row in ROWS if is_ours(row)]
    assert {row["by"] for row in ours} == {"A", "C", "D"}
    assert len(ours) == 167
