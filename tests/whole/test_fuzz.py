"""Every parser of what people bring takes any value: it understands it, or says in a sentence what is wrong."""

import contextlib
import io
import json

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.small_run import SmallRun, document

from models.chunking_settings import parse_chunking_settings
from models.endpoints.endpoint import parse_endpoint
from models.endpoints.registry import Registry
from models.endpoints.services import SERVICES
from models.errors import InferenceError
from pipeline.__main__ import main
from pipeline.config.load import load_config
from pipeline.config.run_config import RunConfig
from pipeline.errors import PipelineError
from pipeline.evaluation.judgements import load_qrels, load_queries
from pipeline.search.filters import parse_filters
from transforms.chunk.json_lines import chunk_lines

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from(
        [2**63, -(2**70), 10**400, "", "\x1b[31m", "[/close]", "\ud800", "a" * 3000, "${x}", "{", "٣"]
    ),
    st.floats(),
    st.text(max_size=8),
)


def nested(*keys: str) -> st.SearchStrategy:
    """Values of any type at any depth, whose objects have keys that the parser knows."""
    names = st.sampled_from(keys) | st.text(max_size=4)
    return st.recursive(
        ODD, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4)
    )


def says(error: Exception) -> None:
    sentence = getattr(error, "reason", str(error))
    assert sentence.strip()
    assert len(sentence) < 20_000


CHUNKING = (
    "strategy",
    "max_chunk_size",
    "overlap",
    "sentence_overlap",
    "separators",
    "separator_group",
    "sentence",
)
SETTING_NAMES = sorted(
    {name for service in SERVICES.values() for name in (*service.settings, *service.task_settings)}
)


@given(nested(*CHUNKING, "word", "recursive", "none"))
def test_chunking_settings(value):
    try:
        parse_chunking_settings(value)
    except InferenceError as error:
        says(error)


@given(
    st.sampled_from(sorted(SERVICES)), nested(*SETTING_NAMES), nested(*SETTING_NAMES), nested(*CHUNKING), ODD
)
def test_endpoint_bodies(service, service_settings, task_settings, chunking, task_type):
    body = {
        "service": service,
        "service_settings": service_settings,
        "task_settings": task_settings,
        "chunking_settings": chunking,
        "task_type": task_type,
    }
    for one in (body, {**body, "service": service_settings}, service_settings):
        try:
            parse_endpoint("fuzzed", one)
        except InferenceError as error:
            says(error)


@pytest.mark.parametrize("name", sorted(SERVICES))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10)
@given(data=st.data())
def test_every_setting_of_a_service(name, data):
    known = SERVICES[name].settings
    chosen = {key: data.draw(nested("format", "path", "request"), label=key) for key in known}
    try:
        Registry("nowhere").put("fuzzed", {"service": name, "service_settings": chosen}, dry_run=True)
    except InferenceError as error:
        says(error)


MAPPING = (
    "properties",
    "type",
    "fields",
    "copy_to",
    "inference_id",
    "search_inference_id",
    "text",
    "semantic_text",
)


@given(nested(*MAPPING, "chunking_settings", "format", "dynamic", "_source", "analyzer", "keyword", "date"))
def test_mappings(value):
    rest = {"source": {"format": "jsonl", "path": "x"}, "table": {"path": "t"}, "failures": {"path": "f"}}
    for mapping in (value, {"properties": value}, {"properties": {"text": value}}):
        try:
            RunConfig.model_validate({**rest, "mappings": mapping})
        except ValueError as error:
            says(error)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nested(*RunConfig.model_fields, *MAPPING, "path", "format", "id", "name", "workers", "max_ratio"))
def test_configs(tmp_path, value):
    file = tmp_path / "run.yaml"
    try:
        file.write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8", errors="replace")
        load_config(str(file))
    except PipelineError as error:
        says(error)


@given(nested("bool", "must", "should", "term", "terms", "range", "exists", "field", "gte", "value"))
def test_filters(value):
    for text in (json.dumps(value), str(value)):
        try:
            parse_filters([text])
        except PipelineError as error:
            says(error)


LINES = st.lists(
    st.one_of(
        nested("_id", "text", "metadata").map(json.dumps),
        st.text(max_size=20),
        st.lists(ODD.map(str), max_size=5).map("\t".join),
        st.sampled_from(
            ["<top>", "<num>1", "<title>x", "</top>", "q 0 d 1", "q 0 d inf", "q 0 d nan", "q\td\t1e400"]
        ),
    ),
    max_size=6,
).map("\n".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LINES)
def test_queries_and_judgements(tmp_path, text):
    file = tmp_path / "lines"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    for load in (load_queries, load_qrels):
        try:
            load(file)
        except PipelineError as error:
            says(error)


@given(
    st.lists(
        nested("id", "text", "chunking_settings", *CHUNKING).map(json.dumps) | st.text(max_size=20),
        max_size=4,
    )
)
def test_chunk_lines(lines):
    lines = [line.replace("\n", " ").replace("\r", " ") for line in lines]
    out = io.BytesIO()
    chunk_lines(io.BytesIO("\n".join(lines).encode("utf-8", "surrogatepass")), out)
    answers = [json.loads(line) for line in out.getvalue().splitlines()]
    assert len(answers) == sum(bool(line.encode("utf-8", "surrogatepass").strip()) for line in lines)
    assert all({"chunks", "error"} & answer.keys() for answer in answers)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A small table with an index, for commands that read it beside what is fuzzed."""
    job = SmallRun(tmp_path_factory.mktemp("fuzz"))
    job.write([document(number) for number in range(4)])
    assert job.run("--quiet") == 0
    (job.folder / "queries.jsonl").write_text('{"_id": "q", "text": "red fox"}\n')
    (job.folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\td1\t1\n")
    return job


def asked(job, kind, file):
    """The command that reads a fuzzed file."""
    config, folder = str(job.config_path), job.folder
    return {
        "config": ["check", str(file)],
        "mapping": ["check", str(file)],
        "endpoint": ["endpoints", "put", "text_embedding/fuzzed", "--dry-run", "--file", str(file)],
        "filter": ["search", config, "fox", "--mode", "bm25", "--filter", file.read_text()],
        "queries": ["search", config, "--mode", "bm25", "--queries", str(file)],
        "topics": ["evaluate", config, "--queries", str(file), "--qrels", f"{folder}/qrels.tsv"],
        "judgements": ["evaluate", config, "--queries", f"{folder}/queries.jsonl", "--qrels", str(file)],
        "chunk lines": ["chunk", str(file)],
        "chunking settings": ["chunk", f"{folder}/queries.jsonl", "--settings", file.read_text()],
    }[kind]


def yaml_text(value):
    return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "replace").decode()


def mapping_in(value):
    properties = {"properties": {"text": {"type": "text"}, "odd": value}}
    rest = {"source": {"format": "jsonl", "path": "x"}, "table": {"path": "t"}, "failures": {"path": "f"}}
    return yaml_text({**rest, "mappings": properties})


INPUTS = {
    "config": nested(*RunConfig.model_fields, "path", "format").map(yaml_text),
    "mapping": nested(*MAPPING, *CHUNKING).map(mapping_in),
    "endpoint": nested("service", "service_settings", "task_settings", "chunking_settings", "url").map(
        json.dumps
    ),
    "filter": nested("bool", "must", "term", "terms", "range", "exists", "field", "gte", "year").map(
        json.dumps
    )
    | st.text(max_size=20),
    "queries": LINES,
    "topics": LINES,
    "judgements": LINES,
    "chunk lines": LINES,
    "chunking settings": nested(*CHUNKING).map(json.dumps),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", INPUTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(data=st.data())
def test_the_command_line_ends_with_1_or_2_and_a_sentence(job, kind, data):
    file = job.folder / "fuzzed"
    file.write_bytes(data.draw(INPUTS[kind]).replace("\0", "").encode("utf-8", "surrogatepass"))
    try:
        argv = asked(job, kind, file)
    except UnicodeDecodeError:
        return  # no command line holds this
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = main(argv)  # which lets no error pass but those that it has no sentence for
    assert code in (0, 1, 2)
    assert code == 0 or said.getvalue().strip()
    assert "Traceback" not in said.getvalue()
