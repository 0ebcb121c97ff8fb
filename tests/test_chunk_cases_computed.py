"""Cases computed from Elasticsearch's rules with ICU: strong, but no test of Elasticsearch asserts them."""

from chunking_cases import check, rows_by


@rows_by("C")
def test_case(row):
    check(row)
