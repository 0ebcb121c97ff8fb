"""Entries of `models` that nothing would look at are told, not passed over."""

import pytest
from support.small_run import SmallRun

from models.endpoints.registry import Registry
from pipeline.config.resolve import resolve
from pipeline.config.run_config import RunConfig
from pipeline.errors import ConfigError

PRICE = {"price_per_million_tokens": 1}


def with_models(tmp_path, models) -> RunConfig:
    return RunConfig.model_validate({**SmallRun(tmp_path).config, "models": models})


@pytest.mark.parametrize(
    "models",
    [
        {"all-minilm-l6-v2": {"dtype": "float32"}},
        {".elser_model_2": "splade-tiny"},
        {"elser_model_2": "splade-tiny"},
        {"rerank-v1": {"location": "/models/reranker"}},
        {".minilm-l6-v2": PRICE},
        {"all-minilm-l6-v2": PRICE},
    ],
)
def test_what_an_endpoint_looks_at(tmp_path, models):
    resolve(with_models(tmp_path, models))


@pytest.mark.parametrize(
    ("models", "problem"),
    [
        (
            {"all-minilm-l6-v3": {"dtype": "int8"}},
            "models.all-minilm-l6-v3: no endpoint has this model; did you mean [all-minilm-l6-v2]?",
        ),
        ({"nothing-like-it": PRICE}, "models.nothing-like-it: no endpoint has this model"),
        ({".minilm-l6-v2": {"dtype": "int8"}}, "its model is [all-minilm-l6-v2]"),
        ({".hashing-dense": {"dtype": "int8"}}, "which loads no weights here"),
    ],
)
def test_what_nobody_looks_at(tmp_path, models, problem):
    with pytest.raises(ConfigError) as error:
        resolve(with_models(tmp_path, models))
    assert problem in str(error.value)


def test_a_services_model_has_a_price_and_no_weights(tmp_path):
    settings = {"model_id": "text-embedding-3-small", "api_key": "env:KEY"}
    folder = str(tmp_path / "endpoints")
    Registry(folder).put("remote", {"service": "openai", "service_settings": settings}, "text_embedding")
    config = with_models(tmp_path, {"text-embedding-3-small": PRICE})
    config = config.model_copy(update={"endpoints": config.endpoints.model_copy(update={"path": folder})})
    resolve(config)
    wrong = config.model_copy(update={"models": {"text-embedding-3-small": {"dtype": "int8"}}})
    with pytest.raises(ConfigError, match="loads no weights here"):
        resolve(wrong)
