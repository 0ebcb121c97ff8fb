"""Documents for Elasticsearch, held against an independent checker of what it takes."""

import base64
import json
import shutil
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.paths import ROOT, TEST_DATA
from support.semantic_text_rules import (
    Refused,
    check_bulk,
    check_document,
    check_legacy,
    check_own_chunks,
    java_spelling,
    strict_json,
    units,
)
from support.small_run import SmallRun

from pipeline.__main__ import main
from pipeline.exchange.elasticsearch.forms import dump
from transforms.field_values import field_values

GERMAN = [
    "Der Rhein entspringt in den Alpen. Er mündet in die Nordsee 🌊 und ist rund 1.230 Kilometer lang.",
    "Straßen, Flüsse und Brücken: Köln hat sieben davon. Größe allein genügt nicht.",
]
ODD: list[dict[str, Any]] = [
    {
        "_id": "values",
        "text": ["one 😀 two. Three!", "", "  ", 13.49, True, 75, 1e21, -0.0, 1e-5],
        "title": "𝒯itle",
    },
    {"_id": "blank", "text": "   ", "title": ""},
    {"_id": "nothing", "other": {"_id": 5, "_routing": "kept"}},
    {"_id": "own", "dense": "Only its own value 🦊.", "sparse": ["a b c", "d e f"]},
    {"_id": "ü" * 100, "_index": "not here", "text": "Metadata of a document may not stand inside it. " * 30},
]
CASES = [json.loads(line) for line in (TEST_DATA / "chunking_cases.jsonl").read_text().splitlines()]


def documents_of(corpus: str, count: int) -> list[dict[str, Any]]:
    lines = (ROOT / "data" / corpus / "corpus.jsonl").read_text().splitlines()[:count]
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """Documents in English, Chinese and German, and odd ones."""
    small = SmallRun(tmp_path_factory.mktemp("exchange"))
    german = [{"_id": f"de{number}", "text": text, "title": "Köln"} for number, text in enumerate(GERMAN)]
    chinese = [{**one, "_id": f"zh-{one['_id']}"} for one in documents_of("xquad-zh", 60)]
    small.write([*documents_of("xquad", 60), *chinese, *german, *ODD])
    assert small.run() == 0
    return small


def export(job: SmallRun, folder: Path, *options: str) -> tuple[dict[str, Any], list[bytes], dict[str, Any]]:
    """Index body, lines of all files, and manifest."""
    shutil.rmtree(folder, ignore_errors=True)
    assert main(["export", "elasticsearch", str(job.config_path), str(folder), *options]) == 0
    manifest = json.loads((folder / "manifest.json").read_text())
    names = [entry["name"] for entry in manifest["files"]]
    lines = [line for name in names for line in (folder / name).read_bytes().split(b"\n")[:-1]]
    return json.loads((folder / "index.json").read_text()), lines, manifest


def sent(lines: list[bytes]) -> dict[str, dict[str, Any]]:
    return {
        strict_json(a)["index"]["_id"]: strict_json(d) for a, d in zip(lines[::2], lines[1::2], strict=True)
    }


def test_every_document_is_accepted(job: SmallRun, tmp_path: Path) -> None:
    index, lines, manifest = export(job, tmp_path / "bulk")
    documents, chunks = check_bulk(lines, index["mappings"])
    assert documents == manifest["documents"] == len(job.rows())
    assert chunks > 400
    found = sent(lines)
    assert "_inference_fields" not in found["nothing"]
    assert "_inference_fields" not in found["blank"]
    assert found["nothing"]["other"] == {"_id": 5, "_routing": "kept"}
    assert "_index" not in found["ü" * 100]


def test_slices_are_what_was_embedded(job: SmallRun, tmp_path: Path) -> None:
    """Cut by the checker's own count of UTF-16 units, each chunk is the text that the nested form writes out."""
    semantic = sent(export(job, tmp_path / "a")[1])
    nested = sent(export(job, tmp_path / "b", "--profile", "nested")[1])
    compared = 0
    for id_, document in semantic.items():
        for name, result in document.get("_inference_fields", {}).items():
            expected = nested[id_][f"{name}_chunks"]
            flat = [
                (source, chunk) for source, all_ in result["inference"]["chunks"].items() for chunk in all_
            ]
            for (source, chunk), other in zip(flat, expected, strict=True):
                joined = units("\n".join(field_values(document, source)))
                cut = joined[chunk["start_offset"] : chunk["end_offset"]]
                assert bytes(np.array(cut, "<u2")).decode("utf-16-le") == other["text"]
                assert (other["source_field"], other["start_offset"]) == (source, chunk["start_offset"])
                compared += "😀" in other["text"] or "🌊" in other["text"]
    assert compared >= 4


@pytest.mark.parametrize("vectors", ["base64", "bfloat16", "array"])
def test_nested_vectors_are_the_tables(job: SmallRun, tmp_path: Path, vectors: str) -> None:
    index, lines, _ = export(
        job, tmp_path / "bulk", "--profile", "nested", "--vectors", vectors, "--vector-index", "hnsw"
    )
    field = index["mappings"]["properties"]["dense_chunks"]["properties"]["embedding"]
    assert (field["dims"], field["similarity"], field["index_options"]) == (64, "cosine", {"type": "hnsw"})
    rows = job.rows()
    for id_, document in sent(lines).items():
        for chunk, stored in zip(
            document.get("dense_chunks", []), (rows[id_]["dense"] or {}).get("chunks", []), strict=True
        ):
            value = chunk["embedding"]
            if vectors == "base64":
                value = np.frombuffer(base64.b64decode(value), ">f4")
            elif vectors == "bfloat16":
                halves = np.frombuffer(base64.b64decode(value), ">u2").astype(np.uint32) << 16
                value = halves.view(np.float32)
            exact = vectors != "bfloat16"
            np.testing.assert_allclose(
                np.float32(value),
                np.float32(stored["embeddings"]),
                rtol=0 if exact else 2**-8,
                atol=0 if exact else 1e-38,
            )


SEMANTIC = {"type": "semantic_text", "inference_id": ".hashing-dense"}
BBQ = {"type": "bbq_hnsw", "m": 24, "rescore_vector": {"oversample": 2.0}}
PRUNED = {"prune": True, "pruning_config": {"tokens_freq_ratio_threshold": 3}}


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """A mapping as clusters have them: multi-fields, copies, parameters that only the cluster understands."""
    small = SmallRun(tmp_path_factory.mktemp("rich"))
    small.config["mappings"] = {
        "dynamic": "strict",
        "_meta": {"owner": "search"},
        "_routing": {"required": True},
        "properties": {
            "title": {
                "type": "text",
                "copy_to": ["all", "sparse"],
                "fields": {
                    "keyword": {"type": "keyword", "ignore_above": 256},
                    "semantic": {**SEMANTIC, "index_options": {"dense_vector": BBQ}},
                },
            },
            "all": {"type": "text", "store": True},
            "sparse": {
                "type": "semantic_text",
                "inference_id": ".hashing-sparse",
                "index_options": {"sparse_vector": PRUNED},
                "fields": {"raw": {"type": "keyword"}},
            },
            "meta": {"properties": {"body": SEMANTIC, "place": {"type": "geo_point"}}},
            "raw": {"type": "object", "enabled": False, "dynamic": False},
            "by": {"type": "nested", "properties": {"name": {"type": "keyword"}}},
        },
    }
    places = {"place": {"lat": 1.0, "lon": 2.0}}
    small.write(
        [
            {"_id": "a", "title": ["Red fox 🦊.", "Again."], "meta": {"body": "In a box.", **places}},
            {"_id": "b", "sparse": "own words", "by": [{"name": "x"}], "raw": {"any": 1}},
        ]
    )
    assert small.run() == 0
    return small


def test_an_index_has_the_whole_mapping(rich: SmallRun, tmp_path: Path) -> None:
    index, lines, _ = export(rich, tmp_path / "bulk")
    assert check_bulk(lines, index["mappings"]) == (2, 6)
    mapping = index["mappings"]
    given, properties = rich.config["mappings"]["properties"], mapping["properties"]
    assert (mapping["dynamic"], mapping["_meta"]["owner"]) == ("strict", "search")
    assert "_routing" not in mapping
    for name in ("all", "raw", "by"):
        assert properties[name] == given[name]
    assert properties["meta"]["properties"]["place"] == {"type": "geo_point"}
    assert properties["title"]["copy_to"] == ["all", "sparse"]
    fields = properties["title"]["fields"]
    assert fields["keyword"] == given["title"]["fields"]["keyword"]
    assert fields["semantic"]["index_options"] == {"dense_vector": BBQ}
    assert fields["semantic"]["model_settings"]["dimensions"] == 64
    assert properties["sparse"]["index_options"] == {"sparse_vector": PRUNED}
    results = sent(lines)["a"]["_inference_fields"]
    assert list(results["title.semantic"]["inference"]["chunks"]) == ["title"]
    assert results.keys() == {"title.semantic", "sparse", "meta.body"}


def test_nested_chunks_are_indexed_as_the_mapping_says(rich: SmallRun, tmp_path: Path) -> None:
    index, lines, _ = export(rich, tmp_path / "bulk", "--profile", "nested")
    properties = index["mappings"]["properties"]
    embeddings = {
        name: field["properties"]["embedding"]
        for name, field in properties.items()
        if name.endswith("_chunks")
    }
    assert embeddings["title_semantic_chunks"]["index_options"] == BBQ
    assert embeddings["sparse_chunks"]["index_options"] == PRUNED
    assert "index_options" not in embeddings["meta_body_chunks"]
    assert properties["title"]["copy_to"] == ["all"]
    assert properties["title"]["fields"].keys() == {"keyword"}
    assert properties["sparse"] == {"type": "text", "fields": {"raw": {"type": "keyword"}}}
    assert sent(lines)["a"]["title_semantic_chunks"][0]["source_field"] == "title"


@pytest.mark.parametrize("profile", ["semantic_text", "nested"])
def test_an_option_wins_over_the_mapping(rich: SmallRun, tmp_path: Path, profile: str) -> None:
    index, _, _ = export(rich, tmp_path / "bulk", "--profile", profile, "--vector-index", "flat")
    properties = index["mappings"]["properties"]
    if profile == "nested":
        options = properties["title_semantic_chunks"]["properties"]["embedding"]["index_options"]
    else:
        options = properties["title"]["fields"]["semantic"]["index_options"]["dense_vector"]
    assert options == {"type": "flat"}
    assert str(PRUNED) in str(properties), "sparse vectors have no such choice"


@pytest.mark.parametrize("option", ["--legacy", "--no-overlap"])
def test_results_inside_a_field_need_one_that_is_no_multi_field(
    rich: SmallRun, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "elasticsearch", str(rich.config_path), str(tmp_path / "bulk"), option]) == 1
    assert "[title.semantic] is a multi-field" in capsys.readouterr().err
    assert not (tmp_path / "bulk").exists()


def test_legacy_and_own_chunks(job: SmallRun, tmp_path: Path) -> None:
    index, lines, _ = export(job, tmp_path / "legacy", "--legacy")
    assert index["settings"]["index"]["mapping.semantic_text.use_legacy_format"] is True
    assert sum(check_legacy(document, index["mappings"]) for document in sent(lines).values()) > 400
    index, lines, _ = export(job, tmp_path / "own", "--no-overlap")
    assert "copy_to" not in index["mappings"]["properties"]["text"]
    assert sum(check_own_chunks(document, index["mappings"]) for document in sent(lines).values()) > 300


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case["id"].startswith("F") and "value" in case],
    ids=lambda one: one["id"],
)
def test_cases_of_field_values(case: dict[str, Any], tmp_path: Path) -> None:
    job = SmallRun(tmp_path)
    job.config["mappings"] = {
        "properties": {"sparse_field": {"type": "semantic_text", "inference_id": ".hashing-sparse"}}
    }
    job.config["failures"]["max_ratio"] = 1.0
    job.write([{"_id": "x", "sparse_field": case["value"]}])
    assert job.run() == 0
    if isinstance(case["expect"], dict) and "status" in case["expect"]:
        (report,) = (tmp_path / "failures").iterdir()
        assert case["expect"]["message_like"] in report.read_text()
        return
    index, lines, _ = export(job, tmp_path / "bulk")
    check_bulk(lines, index["mappings"])
    written = sent(lines)["x"].get("_inference_fields", {})
    if isinstance(case["expect"], str):
        assert written == {}
    else:
        chunks = written["sparse_field"]["inference"]["chunks"]["sparse_field"]
        assert [[one["start_offset"], one["end_offset"]] for one in chunks] == case["expect"]["sparse_field"]


def test_cases_of_own_vectors() -> None:
    cases = {case["id"]: case for case in CASES if case["id"].startswith("L") or case["id"] == "F23"}
    mapping = {
        "properties": {"sparse_field": {"type": "semantic_text", "inference_id": "sparse-inference-id"}}
    }
    document = cases["L01"]["doc"]
    assert check_document(document, mapping) == 2
    old_form = {"properties": {"f": {"type": "semantic_text", "inference_id": "x"}}}
    assert check_legacy({"f": cases["F23"]["doc"]}, old_form) == 1
    result = document["_inference_fields"]["sparse_field"]["inference"]
    result["model_settings"]["service"] = "another"  # L06
    assert check_document(document, mapping) == 2
    mapping["properties"]["sparse_field"]["inference_id"] = "swapped"  # L09
    with pytest.raises(Refused, match="not the mapping's"):
        check_document(document, mapping)
    settings = {
        "task_type": "text_embedding",
        "dimensions": 4,
        "similarity": "cosine",
        "element_type": "float",
    }
    own = {"properties": {"f": {"type": "semantic_text", "inference_id": "x", "model_settings": settings}}}
    chunks = [{"start_offset": 0, "end_offset": 5}, {"start_offset": 5, "end_offset": 11}]
    good = {
        "f": {
            "text": "hello world",
            "chunks": [{**chunk, "embeddings": [0.1, 0.2, 0.3, 0.4]} for chunk in chunks],
        }
    }
    assert check_own_chunks(good, own) == 2  # L10
    good["f"]["chunks"][1]["embeddings"] = [0.1]
    with pytest.raises(Refused, match="Expected 4 dimensions for field"):  # L13
        check_own_chunks(good, own)


def test_numbers_are_spelled_as_java_does(job: SmallRun) -> None:
    values = [13.49, True, 75, 1e21, -0.0, 1e-5, 1e7, 123456789.125, 0.001, 9.999e-4, 2**70]
    assert field_values({"f": values}, "f") == [java_spelling(value) for value in values]


def test_files_are_cut_by_bytes_and_a_killed_export_goes_on(
    job: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.exchange.elasticsearch import bulk

    folder = tmp_path / "bulk"
    _, whole, manifest = export(job, folder, "--max-bytes", "9000")
    assert all(entry["size"] <= 9_000 or entry["oversized"] for entry in manifest["files"])
    assert [entry["oversized"] for entry in manifest["files"] if entry["size"] > 9_000]
    untouched = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert main(["export", "elasticsearch", str(job.config_path), str(folder), "--max-bytes", "9000"]) == 0
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == untouched, (
        "complete: nothing is written"
    )

    written = []
    write = bulk._write

    def dies(target: Path, number: int, *rest: Any) -> Any:
        if len(written) == 9:
            raise KeyboardInterrupt
        written.append(number)
        return write(target, number, *rest)

    again = tmp_path / "again"
    monkeypatch.setattr(bulk, "_write", dies)
    assert main(["export", "elasticsearch", str(job.config_path), str(again), "--max-bytes", "9000"]) != 0
    assert len(written) == 9
    monkeypatch.setattr(bulk, "_write", write)
    assert not (again / "manifest.json").exists()
    assert main(["export", "elasticsearch", str(job.config_path), str(again), "--max-bytes", "9000"]) == 0
    names = [entry["name"] for entry in manifest["files"]]
    assert [(again / name).read_bytes() for name in names] == [(folder / name).read_bytes() for name in names]
    assert len(whole) == sum(2 * entry["documents"] for entry in manifest["files"])


@pytest.mark.parametrize(("kind", "program"), [("gz", "gzip"), ("zst", "zstd")])
def test_compressed_files_are_read_by_the_usual_programs(
    job: SmallRun, tmp_path: Path, kind: str, program: str
) -> None:
    if shutil.which(program) is None:
        pytest.fail(f"{program} is missing")
    plain = tmp_path / "plain"
    export(job, plain)
    assert (
        main(["export", "elasticsearch", str(job.config_path), str(tmp_path / kind), "--compress", kind]) == 0
    )
    unpacked = subprocess.run(
        [program, "-dc", tmp_path / kind / f"bulk-00000.ndjson.{kind}"], capture_output=True, check=True
    )
    assert unpacked.stdout == (plain / "bulk-00000.ndjson").read_bytes()


def test_a_nights_export_is_a_nights_changes(tmp_path: Path) -> None:
    job = SmallRun(tmp_path)
    job.write([{"_id": f"d{number}", "text": f"Number {number}."} for number in range(10)])
    assert job.run() == 0
    job.write([{"_id": f"d{number}", "text": f"Number {number} {number == 4}."} for number in range(1, 11)])
    assert job.run("--allow-mass-delete") == 0
    _, lines, manifest = export(job, tmp_path / "night", "--changes-since", "1", "--profile", "nested")
    assert (manifest["since"], manifest["deletions"]) == ([1], 1)
    actions = [strict_json(line) for line in lines]
    assert {"delete": {"_id": "d0"}} in actions
    assert {one["index"]["_id"] for one in actions if "index" in one} == {
        f"d{number}" for number in range(1, 11)
    }


def test_what_is_kept_takes_no_more_memory_than_its_bytes() -> None:
    tracemalloc.start()
    kept = [dump({"token": float(number)}) for number in range(1000)]
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 10 * sum(map(len, kept))
