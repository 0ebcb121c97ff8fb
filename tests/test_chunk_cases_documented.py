"""Cases that Elasticsearch's documentation or source states."""

from chunking_cases import check, rows_by


@rows_by("D")
def test_case(row):
    check(row)
