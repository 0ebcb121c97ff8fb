"""Prices of a run config's models."""

import pytest

from models.endpoints.endpoint import parse_endpoint
from models.endpoints.prices import price_of, price_problems, without_prices
from models.endpoints.registry import Registry
from models.local.model import local_model
from models.open_model import open_model

SETTINGS = {"service": "cohere", "service_settings": {"api_key": "env:KEY", "model_id": "embed-v4"}}
PRICED = {"price_per_million_tokens": 0.12}


@pytest.mark.parametrize(
    ("models", "price"),
    [
        ({}, None),
        ({"embed-v4": "elsewhere"}, None),
        ({"embed-v4": PRICED}, 0.12),
        ({"mine": {"price_per_million_tokens": 1}, "embed-v4": PRICED}, 1.0),
        ({"mine": {"dtype": "float32"}, "embed-v4": PRICED}, 0.12),
        ({"other": PRICED}, None),
        ({"embed-v4": {"price_per_million_tokens": 0}}, 0.0),
    ],
)
def test_an_endpoint_or_its_model_has_a_price(models, price):
    assert price_of(parse_endpoint("mine", SETTINGS, "text_embedding"), models) == price


@pytest.mark.parametrize("price", [-1, "0.1", True, None, float("inf"), float("nan")])
def test_a_price_is_a_number_from_0_on(price):
    (problem,) = price_problems({"m": {"price_per_million_tokens": price}})
    assert problem.startswith("[m.price_per_million_tokens] must be a number from 0 on")
    assert price_problems({"m": PRICED, "n": "folder"}) == []


def test_a_price_changes_no_model():
    assert without_prices({"a": PRICED, "b": {**PRICED, "dtype": "float32"}, "c": "x", "d": {}}) == {
        "b": {"dtype": "float32"},
        "c": "x",
        "d": {},
    }
    minilm = Registry(None).get(".minilm-l6-v2")
    plain, priced = local_model(minilm), open_model(minilm, {"all-minilm-l6-v2": PRICED})
    assert priced.problems() == []
    assert priced.fingerprint == plain.fingerprint
