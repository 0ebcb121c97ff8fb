"""Endpoints that end: what a definition tells, from when on it is said, and what is known of Elastic's own."""

from datetime import date

import pytest

from models.endpoints.endpoint import parse_endpoint
from models.endpoints.lifetime import ending, hosted_endpoints, last_day
from models.endpoints.registry import Registry
from models.endpoints.services import TASKS
from models.errors import InferenceError, ValidationError

SETTINGS = {"service": "cohere", "service_settings": {"api_key": "env:KEY", "model_id": "m"}}
METADATA = {
    "heuristics": {
        "properties": ["multilingual"],
        "status": "deprecated",
        "release_date": "2024-05-01",
        "end_of_life_date": "2027-03-01T00:00:00Z",
    },
    "display": {"name": "M", "model_creator": "Somebody"},
}


def endpoint(metadata):
    return parse_endpoint("mine", {**SETTINGS, "metadata": metadata}, "text_embedding")


def test_metadata_is_kept_and_shown_and_is_no_part_of_the_definition(tmp_path):
    put = Registry(tmp_path).put("mine", {**SETTINGS, "metadata": METADATA}, "text_embedding")
    assert Registry(tmp_path).get("mine").to_json()["metadata"] == METADATA
    assert "metadata" not in put.definition()
    assert put.definition() == parse_endpoint("mine", SETTINGS, "text_embedding").to_json()


@pytest.mark.parametrize(
    ("today", "told"),
    [
        (date(2026, 9, 1), None),
        (
            date(2026, 9, 2),
            "[mine] reaches its end of life on 2027-03-01, in 180 days; after that requests fail",
        ),
        (
            date(2027, 2, 28),
            "[mine] reaches its end of life on 2027-03-01, in 1 day; after that requests fail",
        ),
        (date(2027, 3, 1), "[mine] reaches its end of life on 2027-03-01, today; after that requests fail"),
        (date(2027, 3, 2), "[mine] reached its end of life on 2027-03-01: requests fail"),
    ],
)
def test_an_end_is_told_from_half_a_year_before(today, told):
    found = ending(endpoint(METADATA), today)
    assert (None if found is None else found.told()) == told


def test_nothing_is_told_of_what_is_not_known():
    for metadata in ({}, {"heuristics": {}}, {"heuristics": {"end_of_life_date": None}}):
        assert ending(endpoint(metadata), date(2099, 1, 1)) is None
    assert last_day(Registry(None).get(".minilm-l6-v2")) is None


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (["x"], r"field \[metadata\] is not of the expected type"),
        ({"heuristics": "x"}, r"field \[metadata.heuristics\] is not of the expected type"),
        ({"heuristics": {"end_of_life_date": "soon"}}, r"\[end_of_life_date\] must be a date"),
        ({"heuristics": {"release_date": 20240501.5}}, r"\[release_date\] must be a date"),
    ],
)
def test_wrong_metadata_is_named(metadata, message):
    with pytest.raises(ValidationError, match=message):
        endpoint(metadata)


def test_elastics_hosted_endpoints_are_known_by_name():
    known = hosted_endpoints()
    assert {".google-gemini-embedding-001", ".jina-clip-v2", ".elastic-rerank-v1"} <= known.keys()
    for name, entry in known.items():
        assert name.startswith(".")
        assert entry["task_type"] in TASKS
        assert entry["end_of_life_date"] is None or date.fromisoformat(entry["end_of_life_date"])
    with pytest.raises(
        InferenceError, match="Elastic's inference service hosts it, for clusters only"
    ) as found:
        Registry(None).get(".jina-clip-v2")
    assert found.value.status == 404


def test_a_date_of_the_catalogue_counts_where_the_definition_has_none(monkeypatch):
    known = {"mine": {"task_type": "text_embedding", "end_of_life_date": "2027-01-01"}}
    monkeypatch.setattr("models.endpoints.lifetime.hosted_endpoints", lambda: known)
    assert last_day(endpoint({})) == date(2027, 1, 1)
    assert last_day(endpoint(METADATA)) == date(2027, 3, 1)
