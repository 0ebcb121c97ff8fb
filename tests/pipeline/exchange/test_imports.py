"""Mappings and endpoints of a cluster, as they come."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.endpoints.registry import Registry
from pipeline.__main__ import main
from pipeline.config.mapping import Mappings

MAPPING = {
    "docs-1": {
        "mappings": {
            "dynamic": "strict",
            "properties": {
                "title": {
                    "type": "text",
                    "copy_to": ["body_semantic", "shadow"],
                    "fields": {"raw": {"type": "keyword"}},
                },
                "shadow": {"type": "text"},
                "body": {"type": "text", "copy_to": "body_semantic", "analyzer": "english"},
                "body_semantic": {
                    "type": "semantic_text",
                    "inference_id": ".elser-2-elasticsearch",
                    "model_settings": {"task_type": "sparse_embedding"},
                },
                "author": {"properties": {"name": {"type": "keyword"}, "face": {"type": "no_such_type"}}},
                "percolated": {"type": "no_such_type_either"},
            },
        }
    }
}
ENDPOINTS: dict[str, Any] = {
    "endpoints": [
        {
            "inference_id": ".elser-2-elasticsearch",
            "task_type": "sparse_embedding",
            "service": "elasticsearch",
            "service_settings": {},
        },
        {
            "inference_id": "mine",
            "task_type": "text_embedding",
            "service": "openai",
            "service_settings": {
                "model_id": "text-embedding-3-small",
                "similarity": "dot_product",
                "dimensions": 1536,
            },
            "chunking_settings": {"strategy": "sentence", "max_chunk_size": 100, "sentence_overlap": 1},
        },
        {
            "inference_id": "reranks",
            "task_type": "rerank",
            "service": "cohere",
            "service_settings": {"model_id": "rerank-v3"},
        },
        {
            "inference_id": "strange",
            "task_type": "text_embedding",
            "service": "no-such-service",
            "service_settings": {},
        },
    ]
}


def write(path: Path, value: Any) -> str:
    path.write_text(json.dumps(value))
    return str(path)


def test_a_mapping_becomes_a_config_and_the_rest_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", "mapping", write(tmp_path / "mapping.json", MAPPING)]) == 0
    told = capsys.readouterr()
    mappings = Mappings.model_validate(yaml.safe_load(told.out)["mappings"])
    assert mappings.sources("body_semantic") == ("body_semantic", "title", "body")
    assert dict(mappings.walk())["author.name"].type == "keyword"
    for name in ("author.face", "percolated"):
        assert f"left out: {name}: no_such_type" in told.err
    assert "percolated" not in dict(mappings.walk())


def test_what_is_no_mapping_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "mapping", write(tmp_path / "m.json", {"a": 1, "b": 2})]) == 1
    assert "no mapping with [properties]" in capsys.readouterr().err
    assert main(["import", "mapping", str(tmp_path / "none.json")]) == 1
    assert "there is no file" in capsys.readouterr().err


def test_endpoints_become_definitions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "endpoints"
    argv = [
        "import",
        "endpoints",
        write(tmp_path / "all.json", ENDPOINTS),
        "--path",
        str(folder),
        "--format",
        "json",
    ]
    assert main([*argv, "--dry-run"]) == 0
    assert not folder.exists() or not list(folder.iterdir())
    capsys.readouterr()
    assert main(argv) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["known"] == [".elser-2-elasticsearch"]
    assert told["defined"] == ["mine", "reranks"]
    assert told["secrets"] == {"mine": ["MINE_API_KEY"], "reranks": ["RERANKS_API_KEY"]}
    assert set(told["left_out"]) == {"strange"}
    endpoint = Registry(str(folder)).get("mine")
    assert endpoint.chunking_settings.to_json()["max_chunk_size"] == 100
    assert main(argv) == 0
    assert json.loads(capsys.readouterr().out)["known"] == [".elser-2-elasticsearch", "mine", "reranks"]
