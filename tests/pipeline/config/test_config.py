"""The run config and the mapping: every problem at once, each with its place and the fix."""

import re
from pathlib import Path

import pytest
import yaml
from support.small_run import SmallRun, document

from pipeline.config.load import load_config
from pipeline.config.mapping import Mappings
from pipeline.errors import ConfigError

QUICKSTART = "run_configs/quickstart.yaml"


def write(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return str(path)


def test_the_quickstart_is_valid_and_every_default_is_written_out(capsys):
    from pipeline.__main__ import main

    assert main(["check", QUICKSTART, "--print"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["source"]["max_delete_ratio"] == 0.2
    assert printed["runner"]["name"] == "local"


@pytest.mark.parametrize("path", sorted(Path("run_configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_valid(path):
    assert load_config(str(path)).mappings.semantic()


def test_all_problems_are_named_with_their_lines(tmp_path):
    path = write(
        tmp_path,
        """source:
  format: xml
  path: a.jsonl
  pth: typo
mappings:
  properties:
    text: {type: txt}
table: {path: t, part_rows: 0}
""",
    )
    with pytest.raises(ConfigError) as error:
        load_config(path)
    problems = "\n".join(error.value.problems)
    assert "line 2: source.format" in problems
    assert "line 4: source.pth: unknown key; did you mean [path]?; known are format, path," in problems
    assert "line 7: mappings.properties.text.type: No handler for type [txt]" in problems
    assert "line 8: table.part_rows" in problems
    assert "failures" not in problems, "has a default"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a mapping"),
        ("a: [", "is not valid YAML"),
        ("- 1", "must be a mapping"),
    ],
)
def test_a_file_that_is_no_config(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text))


def test_a_file_that_is_not_utf8(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("source: {path: café.jsonl}".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not UTF-8: byte 0xe9 at 18"):
        load_config(str(tmp_path / "latin.yaml"))


def test_an_endpoint_that_is_not_there_names_one_like_it(tmp_path, capsys):
    job = SmallRun(tmp_path)
    job.write([document(0)])
    job.config["mappings"]["properties"]["dense"]["inference_id"] = ".hashing-dens"
    assert job.run(command="check") == 2
    message = capsys.readouterr().err
    assert "Inference endpoint not found [.hashing-dens]; did you mean [.hashing-dense]?" in message


def test_a_missing_file_ends_with_exit_code_2(capsys):
    from pipeline.__main__ import main

    assert main(["run", "no/such.yaml"]) == 2
    assert "no/such.yaml" in capsys.readouterr().err


def test_set_overrides_any_value():
    config = load_config(QUICKSTART, ["source.path=[a, b]", "runner.workers=2", "models.x=/folder"])
    assert config.source.paths == ["a", "b"]
    assert (config.runner.workers, config.models) == (2, {"x": "/folder"})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("source.path", "is not of the form key.path=value"),
        ("source.path.deeper=1", "holds a value, not a section"),
        ("source.path=[", "not valid YAML"),
        ("source.nope=1", "--set source.nope: unknown key; known are format, path"),
        ("tabel.path=x", "--set tabel: unknown key; did you mean [table]?"),
        ("source.format=xml", "--set source.format: Input should be"),
        ("runner={worker: 2}", "--set runner.worker: unknown key; did you mean [workers]?"),
    ],
)
def test_a_wrong_override_says_so(override, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config(QUICKSTART, [override])


def semantic(**changes):
    return {"type": "semantic_text", "inference_id": ".hashing-dense", **changes}


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"text": {"type": "text"}}, "has no semantic_text field"),
        ({"s": semantic(inference_id="")}, "must not be empty"),
        (
            {"s": semantic(), "t": {"type": "text", "copy_to": "x"}},
            r"copy_to \[x\], which is not a field of the mapping",
        ),
        ({"s": semantic(), "_source": {"type": "text"}}, "is a column of every table"),
        (
            {"s": semantic(chunking_settings={"strategy": "sentence", "max_chunk_size": 5})},
            "greater than or equal to",
        ),
        ({"s": semantic(chunking_settings={"max_chunk_size": 50})}, "without ChunkingStrategy"),
        ({"s": semantic(nope=1)}, r"unknown parameter \[nope\]"),
        (
            {"s": semantic(), "nested": {"type": "nested", "properties": {"semantic": semantic()}}},
            r"semantic_text field \[nested.semantic\] cannot be nested",
        ),
        ({"s": semantic(), "t": {"type": "text"}, "T": {"type": "text"}}, "would be the same column"),
        (
            {"s": semantic(), "a": {"properties": {"b": {"type": "keyword"}}}, "a.b": {"type": "long"}},
            r"\[a.b\] \(once with dots and once as an object\) would be the same column",
        ),
        ({"s": semantic(), "a": {"type": "keyword"}, "a.b": {"type": "long"}}, r"lies inside \[a\]"),
        ({"s": semantic(), "d": {"type": "date", "format": "yyyy-QQ"}}, "which is not known"),
        ({"s": semantic(), "t": {"type": "keyword", "analyzer": "english"}}, r"belongs to type \[text\]"),
        ({"s": semantic(), "t": {"type": "text", "inference_id": "x"}}, r"belong to type \[semantic_text\]"),
        (
            {"s": semantic(), "t": {"type": "text", "properties": {"a": {"type": "text"}}}},
            r"only an object has",
        ),
    ],
)
def test_a_wrong_mapping_is_refused(properties, message):
    with pytest.raises(ValueError, match=message):
        Mappings.model_validate({"properties": properties})


def test_fields_of_objects_have_dotted_names():
    mappings = Mappings.model_validate(
        {
            "properties": {
                "meta": {
                    "properties": {"author": {"type": "keyword"}, "note": {"type": "text", "copy_to": "s"}}
                },
                "s": semantic(),
            }
        }
    )
    assert [field.name for field in mappings.columns()] == ["meta.author", "meta.note"]
    assert mappings.sources("s") == ("s", "meta.note")


def test_a_mapping_is_taken_as_it_stands_in_elasticsearch():
    mappings = Mappings.model_validate(
        {
            "properties": {
                "tags": {"type": "keyword", "ignore_above": 256, "doc_values": False},
                "text": {
                    "type": "text",
                    "fields": {"raw": {"type": "keyword"}},
                    "copy_to": "s",
                    "index_options": "freqs",
                },
                "s": semantic(index_options={"dense_vector": {"type": "bbq_hnsw"}}, meta={"team": "search"}),
            }
        }
    )
    assert [field.name for field in mappings.columns()] == ["tags", "text"]


def test_null_and_empty_chunking_settings_of_a_field_mean_not_set():
    for value in (None, {}):
        Mappings.model_validate({"properties": {"s": semantic(chunking_settings=value)}})


def test_check_names_everything_that_would_stop_a_run(tmp_path, capsys):
    job = SmallRun(tmp_path)
    job.write([document(0)])
    job.config["mappings"]["properties"]["dense"]["inference_id"] = "nobody-knows"
    job.config["source"]["path"] = str(tmp_path / "missing.jsonl")
    (tmp_path / "file").write_text("")
    job.config["failures"]["path"] = str(tmp_path / "file" / "failures")
    assert job.run(command="check") == 2
    message = capsys.readouterr().err
    assert "mappings.properties.dense" in message
    assert "nobody-knows" in message
    assert "missing.jsonl" in message
    assert "failures.path" in message


@pytest.mark.parametrize(("name", "what"), [("nothing.yaml", "does not exist"), ("folder", "is a folder")])
def test_what_is_no_config_says_how_to_make_one(tmp_path, name, what):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=f"{what}; a run config is wanted here, and `semantic-ingest init"):
        load_config(str(tmp_path / name))
