"""Mappings of well-known kinds of indices, from memory of their field types, and random ones: all are accepted."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.text_job import Job, lines

from pipeline.config.field_notes import field_notes
from pipeline.config.mapping import SOURCE_ONLY, Mappings
from transforms.plain_values import COLUMN_TYPES

SHORT = {"type": "keyword", "ignore_above": 1024}
KEYWORD, TEXT, DATE, LONG = {"type": "keyword"}, {"type": "text"}, {"type": "date"}, {"type": "long"}
BOTH = {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 256}}}
SEMANTIC = {"type": "semantic_text"}


def objects(**fields):
    return {"properties": fields}


TEMPLATES = {
    "logs": {
        "@timestamp": DATE,
        "message": {"type": "match_only_text"},
        "host": objects(name=KEYWORD, ip={"type": "ip"}),
    },
    "ecs": {
        "@timestamp": DATE,
        "ecs": objects(version={"type": "keyword", "ignore_above": 1024}),
        "event": objects(duration=LONG, risk_score={"type": "float"}, original={**KEYWORD, "index": False}),
        "labels": {"type": "object", "dynamic": True},
        "process": objects(
            args=KEYWORD, command_line={"type": "wildcard", "fields": {"text": {"type": "match_only_text"}}}
        ),
        "data_stream": objects(type={"type": "constant_keyword", "value": "logs"}),
        "source": objects(geo=objects(location={"type": "geo_point"}), bytes=LONG),
    },
    "metrics": {
        "@timestamp": DATE,
        "cpu": {"type": "scaled_float", "scaling_factor": 1000, "time_series_metric": "gauge"},
        "pod": {**KEYWORD, "time_series_dimension": True},
        "latency": {"type": "histogram"},
        "stats": {"type": "aggregate_metric_double", "metrics": ["min", "max"], "default_metric": "max"},
    },
    "traces": {
        "trace": objects(id=KEYWORD),
        "span": objects(duration=objects(us=LONG)),
        "tags": {"type": "flattened"},
    },
    "wikipedia": {
        "title": {
            "type": "text",
            "analyzer": "text",
            "copy_to": ["suggest", "all"],
            "fields": {"plain": TEXT},
        },
        "suggest": {"type": "completion", "max_input_length": 50},
        "all": {"type": "text", "index_options": "offsets", "position_increment_gap": 10},
        "timestamp": {"type": "date", "format": "strict_date_time_no_millis"},
        "incoming_links": {"type": "integer", "coerce": True},
        "coordinates": {"type": "nested", "properties": {"coord": {"type": "geo_point"}}},
    },
    "shop": {
        "products": objects(price={"type": "half_float"}, sku=KEYWORD, created_on=DATE),
        "taxful_total_price": {"type": "half_float"},
        "order_date": {"type": "date", "format": "yyyy-MM-dd'T'HH:mm:ssXXX||epoch_second"},
        "day_of_week_i": {"type": "integer"},
        "email": {**KEYWORD, "normalizer": "lowercase"},
        "release": {"type": "version"},
    },
    "flights": {
        "AvgTicketPrice": {"type": "float"},
        "DestLocation": {"type": "geo_point"},
        "timestamp": DATE,
    },
    "bank": {
        "account_number": LONG,
        "balance": LONG,
        "firstname": BOTH,
        "lastname": BOTH,
        "age": {"type": "byte"},
    },
    "shakespeare": {
        "speaker": KEYWORD,
        "play_name": KEYWORD,
        "line_id": {"type": "integer"},
        "text_entry": TEXT,
    },
    "movies": {
        "plot": TEXT,
        "year": {"type": "short"},
        "genres": KEYWORD,
        "rating": {"type": "rank_feature"},
    },
    "elser": {"content": {"type": "text", "copy_to": "sem"}, "tokens": {"type": "sparse_vector"}},
    "knn": {
        "image-vector": {"type": "dense_vector", "dims": 3, "index": True, "similarity": "l2_norm"},
        "title": TEXT,
    },
    "hybrid": {"content": {"type": "text", "copy_to": "sem", "fields": {"semantic": SEMANTIC}}},
    "questions": {
        "join": {"type": "join", "relations": {"question": "answer"}},
        "query": {"type": "percolator"},
    },
    "nginx access": {
        "@timestamp": DATE,
        "data_stream": objects(
            dataset={"type": "constant_keyword", "value": "nginx.access"},
            namespace={"type": "constant_keyword"},
            type={"type": "constant_keyword", "value": "logs"},
        ),
        "event": objects(created=DATE, outcome={**SHORT, "null_value": "unknown"}),
        "http": objects(
            request=objects(method=SHORT, referrer=SHORT),
            response=objects(
                body=objects(bytes={**LONG, "null_value": 0}), status_code={"type": "short", "null_value": -1}
            ),
        ),
        "source": objects(
            address=SHORT, ip={"type": "ip", "null_value": "0.0.0.0", "ignore_malformed": True}
        ),
        "tags": SHORT,
        "url": objects(
            original={
                "type": "wildcard",
                "ignore_above": 8191,
                "fields": {"text": {"type": "match_only_text"}},
            }
        ),
        "user_agent": objects(original={**SHORT, "fields": {"text": {"type": "match_only_text"}}}),
    },
    "stack overflow": {
        "title": {**TEXT, "copy_to": "sem", "term_vector": "with_positions_offsets", "norms": False},
        "body": {**TEXT, "analyzer": "english", "search_analyzer": "english", "index_options": "offsets"},
        "tags": {**KEYWORD, "eager_global_ordinals": True, "null_value": "untagged", "ignore_above": 35},
        "creation_date": {"type": "date", "format": "yyyy-MM-dd'T'HH:mm:ss.SSS||strict_date_optional_time"},
        "is_answered": {"type": "boolean", "null_value": False},
        "score": {"type": "integer", "doc_values": True},
        "owner": objects(reputation={"type": "integer"}, name={**SHORT, "normalizer": "lowercase"}),
    },
    "listings": {
        "amenities": KEYWORD,
        "last_scraped": {"type": "date", "format": "yyyy-MM-dd", "null_value": "1970-01-01"},
        "location": {"type": "geo_point", "ignore_malformed": True, "null_value": "0,0"},
        "price": {"type": "scaled_float", "scaling_factor": 100, "coerce": True, "null_value": 0},
        "review_scores": objects(rating={"type": "half_float"}),
        "host_since": {"type": "date", "format": "yyyy-MM-dd||epoch_millis"},
        "availability": {
            "type": "nested",
            "properties": {"period": {"type": "date_range"}, "free": {"type": "boolean"}},
        },
    },
    "passages": {
        "content": {**TEXT, "copy_to": ["sem"]},
        "content_embedding": {"type": "sparse_vector", "index_options": {"prune": True}},
        "text_embedding": objects(
            predicted_value={"type": "dense_vector", "dims": 384, "index_options": {"type": "bbq_hnsw"}},
            model_id=KEYWORD,
        ),
    },
    "calendar": {
        "period": {"type": "date_range", "format": "yyyy-MM-dd"},
        "seats": {"type": "integer_range"},
        "at": {"type": "date_nanos"},
        "route": {"type": "alias", "path": "at"},
        "blob": {"type": "binary", "doc_values": True},
        "big": {"type": "unsigned_long"},
        "words": {"type": "token_count", "analyzer": "standard"},
        "typed": {"type": "search_as_you_type", "max_shingle_size": 3},
        "area": {"type": "geo_shape", "orientation": "right"},
    },
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_accepted_and_each_field_told(name):
    whole = {
        "dynamic": "strict",
        "_meta": {"version": 1},
        "date_detection": False,
        "dynamic_templates": [{"strings": {"match_mapping_type": "string", "mapping": KEYWORD}}],
        "runtime": {"day": {"type": "keyword"}},
        "properties": {**TEMPLATES[name], "sem": SEMANTIC},
    }
    mappings = Mappings.model_validate({f"{name}-000001": {"mappings": whole}})
    notes = {note.name: note.becomes for note in field_notes(mappings, ".default")}
    assert notes["sem"].startswith("column of chunks and embeddings")
    assert {name for name, _, _ in mappings.with_multi_fields()} <= set(notes)
    assert Mappings.model_validate(mappings.describe()["mappings"]) == mappings


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_passes_the_check(tmp_path, capsys, name):
    """As GET index/_mapping returns it, through the command line."""
    job = Job(tmp_path, lines(tmp_path / "in.jsonl", {"_id": "a", "sem": "one"}))
    mappings = {
        "dynamic": True,
        "properties": {**TEMPLATES[name], "sem": {**SEMANTIC, "inference_id": ".hashing-dense"}},
    }
    for field in _leaves(mappings):
        if field.get("type") == "semantic_text":
            field["inference_id"] = ".hashing-dense"
    job.config["mappings"] = json.loads(json.dumps({f"{name}-000001": {"mappings": mappings}}))
    code = job.run(command="check")
    told = capsys.readouterr()
    if code:  # the only document fills one of two semantic fields
        assert name == "hybrid"
        assert "no document fills the semantic_text field [content.semantic]" in told.err
        return
    assert "ready to run" in told.out
    fields = Mappings.model_validate(mappings).with_multi_fields()
    assert {field for field, _, _ in fields} <= {line.split(" ")[0] for line in told.out.splitlines()}


def _leaves(field):
    for inner in [*field.get("properties", {}).values(), *field.get("fields", {}).values()]:
        yield inner
        yield from _leaves(inner)


def test_the_templates_hold_what_is_easily_refused():
    fields = [field for template in TEMPLATES.values() for field in _leaves({"properties": template})]
    assert len(TEMPLATES) >= 15
    assert {
        "null_value",
        "ignore_above",
        "normalizer",
        "scaling_factor",
        "copy_to",
        "format",
        "index_options",
    } <= {parameter for field in fields for parameter in field}
    assert "constant_keyword" in {field.get("type") for field in fields}


NAMES = st.text("abcXY_", min_size=1, max_size=4)
LEAVES = st.builds(
    lambda type_, options: {"type": type_, **options},
    st.sampled_from([*COLUMN_TYPES, *SOURCE_ONLY]),
    st.dictionaries(st.sampled_from(["boost", "doc_values", "index", "meta", "store"]), st.booleans()),
)
PROPERTIES = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=4),
    lambda inner: st.dictionaries(
        NAMES, LEAVES | inner.map(lambda fields: {"properties": fields}), max_size=4
    ),
)


@given(PROPERTIES)
def test_a_random_mapping_is_accepted_or_refused_in_a_sentence(properties):
    whole = {"properties": {**properties, "sem": SEMANTIC}}
    names = [name.lower() for name in _names("", whole["properties"])]
    if len(set(names)) < len(names):
        with pytest.raises(ValidationError, match="would be the same column"):
            Mappings.model_validate(whole)
        return
    mappings = Mappings.model_validate(whole)
    assert len(field_notes(mappings, ".default")) == len(list(mappings.with_multi_fields()))


def _names(prefix, properties):
    for name, field in properties.items():
        yield f"{prefix}{name}"
        yield from _names(f"{prefix}{name}.", field.get("properties", {}))
