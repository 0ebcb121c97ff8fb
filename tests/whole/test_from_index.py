"""A real Elasticsearch's documents become a table; embeddings that they bring along are not made again."""

import json

import numpy as np
import pytest
from support.servers.elasticsearch import ElasticsearchServer
from support.small_run import SmallRun, document

from pipeline.config.load import load_config
from pipeline.config.resolve import resolve


def config(url: str, **source: object) -> dict:
    return {"format": "elasticsearch", "url": url, "index": "articles", **source}


def inference_fields(run: SmallRun) -> dict[str, dict]:
    """What Elasticsearch would have stored beside the values of each row of a table."""
    settings = {
        field.name: field.model.model_settings for field in resolve(load_config(str(run.config_path))).fields
    }
    stored: dict[str, dict] = {}
    for document_id, row in run.rows().items():
        stored[document_id] = {}
        for name, of_model in settings.items():
            chunks: dict[str, list] = {}
            for chunk in row[name]["chunks"]:
                values = chunk["embeddings"]
                embeddings = dict(values) if values and isinstance(values[0], tuple) else list(values)
                place = {key: chunk[key] for key in ("start_offset", "end_offset")}
                chunks.setdefault(chunk["source_field"], []).append({**place, "embeddings": embeddings})
            inference = {
                "inference_id": row[name]["inference_id"],
                "model_settings": of_model,
                "chunks": chunks,
            }
            stored[document_id][name] = {"inference": inference}
    return stored


@pytest.mark.slow
@pytest.mark.servers
def test_an_index_becomes_a_table(tmp_path):
    import elasticsearch

    made = SmallRun(tmp_path / "made")
    (tmp_path / "made").mkdir()
    documents = [document(number) for number in range(1300)]
    made.write(documents)
    assert made.run() == 0
    stored = inference_fields(made)

    with ElasticsearchServer() as server, elasticsearch.Elasticsearch(server.url) as client:
        mapping = {
            "properties": {
                "_inference_fields": {"type": "object", "enabled": False},
                "year": {"type": "integer"},
            }
        }
        client.indices.create(index="articles", mappings=mapping)
        operations = []
        for one in documents:
            fields = {name: value for name, value in one.items() if name != "_id"}
            operations += [
                {"index": {"_id": one["_id"]}},
                {**fields, "_inference_fields": stored[one["_id"]]},
            ]
        for start in range(0, len(operations), 400):
            assert not client.bulk(index="articles", operations=operations[start : start + 400])["errors"]
        client.indices.refresh(index="articles")

        run = SmallRun(tmp_path / "run", source=config(server.url))
        (tmp_path / "run").mkdir()
        assert run.run() == 0
        assert run.summary["documents"]["added"] == 1300
        assert (run.summary["embedded"], run.summary["reused"]) == (0, made.summary["chunks"])
        theirs, ours = made.rows(), run.rows()
        assert ours.keys() == theirs.keys()
        for document_id, row in theirs.items():
            assert json.loads(ours[document_id]["_source"]) == json.loads(row["_source"])
            assert ours[document_id]["sparse"] == row["sparse"]
            for mine, other in zip(ours[document_id]["dense"]["chunks"], row["dense"]["chunks"], strict=True):
                np.testing.assert_allclose(mine["embeddings"], other["embeddings"], atol=1e-6)

        client.delete(index="articles", id="d5")
        changed = {name: value for name, value in document(7, edition=1).items() if name != "_id"}
        client.index(index="articles", id="d7", document=changed)
        client.indices.refresh(index="articles")
        assert run.run() == 0
        counts = {name: count for name, count in run.summary["documents"].items() if count}
        assert counts == {"changed": 1, "deleted": 1, "unchanged": 1298}
        assert run.summary["embedded"] > 0

        run.config["source"] = config(server.url, query={"range": {"year": {"lt": 2003}}}, sync="incremental")
        run.config["table"] = {"path": str(tmp_path / "run" / "some")}
        run.config["index"] = None
        assert run.run() == 0
        assert run.summary["documents"]["added"] == 3
        run.config["source"] = config(server.url, index="nothing")
        assert run.run(command="check") != 0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"url": "http://127.0.0.1:9"}, "source [articles]"),
        ({"url": "http://me:secret@127.0.0.1:9"}, "write `url: env:NAME`"),
        ({"url": "http://127.0.0.1:9", "api_key": "abc"}, "write `api_key: env:NAME`"),
        ({"url": "http://127.0.0.1:9", "id": "other"}, "is its `_id`"),
    ],
)
def test_what_is_wrong_is_said_before_a_run(tmp_path, capsys, source, message):
    run = SmallRun(tmp_path, source=config(**source))
    assert run.run(command="check") != 0
    shown = " ".join(capsys.readouterr().err.split())
    assert message in shown
    assert "secret@" not in shown
