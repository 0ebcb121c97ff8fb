"""The Elasticsearch index that exported documents fit into: its settings and its mapping."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import PipelineError, did_you_mean
from pipeline.exchange.elasticsearch.forms import DocumentForm, chunks_name
from pipeline.exchange.rows import TableRows
from transforms.table.parts import open_part

VECTOR_INDEXES = (
    *("hnsw", "flat", "int8_hnsw", "int8_flat", "int4_hnsw", "int4_flat"),
    *("bbq_hnsw", "bbq_flat", "bbq_disk"),
)
NESTED_LIMIT = 10_000
"""Nested documents that Elasticsearch lets one document have, unless a setting says otherwise."""

BASE64_SINCE = (9, 3)
"""The first version that reads vectors as base64, and bfloat16."""

_CHUNKING = {"strategy", "max_chunk_size", "overlap", "sentence_overlap", "separators", "separator_group"}


def index_body(rows: TableRows, form: DocumentForm, vector_index: str | None = None) -> dict[str, Any]:
    """What to create the index with.

    Args:
        rows: the rows of the table.
        form: how documents are written.
        vector_index: how dense vectors are indexed; None leaves that to the mapping's `index_options`, or the
            cluster's default.

    Raises:
        PipelineError: no such kind of vector index, a field's name is taken, or the form has no multi-fields.
    """
    if vector_index is not None and vector_index not in VECTOR_INDEXES:
        raise PipelineError(
            f"unknown vector index [{vector_index}]{did_you_mean(vector_index, VECTOR_INDEXES)}; known: "
            f"{', '.join(VECTOR_INDEXES)}"
        )
    mappings = dict(rows.snapshot.description["mappings"])
    # Where routing is required, the cluster would refuse every document, since the table keeps none.
    mappings.pop("_routing", None)
    found: dict[str, Mapping[str, Any]] = {}
    properties = _properties(mappings.get("properties", {}), "", rows, form, vector_index, found)
    if form.form == "nested":
        for name, field in found.items():
            if chunks_name(name) in properties:
                raise PipelineError(
                    f"the chunks of [{name}] go into [{chunks_name(name)}], and the mapping has such a field"
                )
            settings, options = rows.fields[name]["model_settings"], field.get("index_options")
            properties[chunks_name(name)] = _chunks(settings, form, vector_index, options or {})
    mappings["properties"] = properties
    mappings["_meta"] = {**mappings.get("_meta", {}), "semantic_ingest": identity(rows, form)}
    return {"settings": {"index": _settings(rows, form)}, "mappings": mappings}


def identity(rows: TableRows, form: DocumentForm) -> dict[str, Any]:
    """What an index remembers of the table that it shows."""
    return {"table_id": rows.snapshot.id, "form": form.form}


def _settings(rows: TableRows, form: DocumentForm) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if form.form == "legacy":
        settings["mapping.semantic_text.use_legacy_format"] = True
    chunks = most_chunks(rows)
    if chunks > NESTED_LIMIT:
        settings["mapping.nested_objects.limit"] = chunks
    return settings


def most_chunks(rows: TableRows) -> int:
    """The largest number of chunks, of all fields together, that one document has."""
    largest = 0
    for part in rows.parts():
        file = open_part(rows.snapshot.path, part)
        columns = [f"{name}.chunks.list.element.start_offset" for name in rows.fields]
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=columns)
            counts = pa.array([0] * table.num_rows, pa.int64())
            for column in table.columns:
                lengths = pc.fill_null(
                    pc.list_value_length(pc.struct_field(column.combine_chunks(), "chunks")), 0
                )
                counts = pc.add(counts, lengths.cast(pa.int64()))
            largest = max(largest, pc.max(counts).as_py() or 0)
    return largest


def _properties(
    properties: Mapping[str, Any],
    prefix: str,
    rows: TableRows,
    form: DocumentForm,
    vector_index: str | None,
    found: dict[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The mapping's fields as the target has them; the definitions of semantic ones are put into `found`."""
    result = {}
    for name, definition in properties.items():
        full = f"{prefix}{name}"
        if "properties" in definition:
            inner = _properties(definition["properties"], f"{full}.", rows, form, vector_index, found)
            result[name] = {**definition, "properties": inner}
            continue
        field = {"type": "object", **definition}
        if targets := _targets(field.pop("copy_to", ()), rows, form):
            field["copy_to"] = targets
        if "fields" in field:
            field["fields"] = _multi_fields(full, field["fields"], rows, form, vector_index, found)
        if full in rows.fields:
            found[full] = definition
            field = _semantic(full, field, rows.fields[full], form, vector_index)
        result[name] = field
    return result


def _targets(names: Sequence[str], rows: TableRows, form: DocumentForm) -> list[str]:
    """Where a field's value is copied to; no semantic field where documents bring its text or its chunks."""
    return [name for name in names if form.form in ("semantic_text", "legacy") or name not in rows.fields]


def _multi_fields(
    parent: str,
    fields: Mapping[str, Any],
    rows: TableRows,
    form: DocumentForm,
    vector_index: str | None,
    found: dict[str, Mapping[str, Any]],
) -> dict[str, Any]:
    result = {}
    for name, definition in fields.items():
        full = f"{parent}.{name}"
        if full not in rows.fields:
            result[name] = definition
            continue
        found[full] = definition
        if form.form in ("legacy", "own_chunks"):
            raise PipelineError(
                f"[{full}] is a multi-field, and documents of this form hold the result in the field itself; export "
                "without --legacy and --no-overlap"
            )
        if form.form == "semantic_text":
            result[name] = _semantic(full, dict(definition), rows.fields[full], form, vector_index)
    return result


def _semantic(
    name: str,
    field: dict[str, Any],
    described: Mapping[str, Any],
    form: DocumentForm,
    vector_index: str | None,
) -> dict[str, Any]:
    if form.form == "nested":
        return {"type": "text", **{key: field[key] for key in ("copy_to", "fields") if field.get(key)}}
    settings = described["model_settings"]
    for extension in ("context", "late_chunking"):
        field.pop(extension, None)
    field["inference_id"] = form.inference_id(name, described)
    if name in form.inference_ids:
        field.pop("search_inference_id", None)
    field["model_settings"] = {key: value for key, value in settings.items() if value is not None}
    if not set(field.get("chunking_settings", ())) <= _CHUNKING:
        del field["chunking_settings"]  # an extension of ours, which the cluster would refuse
    if vector_index is not None and settings["task_type"] == "text_embedding":
        field["index_options"] = {"dense_vector": {"type": vector_index}}
    return field


def _chunks(
    settings: Mapping[str, Any], form: DocumentForm, vector_index: str | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """A `nested` field of chunks; `options` are the `index_options` of the semantic field."""
    if settings["task_type"] == "sparse_embedding":
        embedding: dict[str, Any] = {"type": "sparse_vector"}
        indexed = options.get("sparse_vector")
    else:
        element = settings.get("element_type") or "float"
        embedding = {
            "type": "dense_vector",
            "dims": settings["dimensions"],
            "element_type": "bfloat16" if form.vectors == "bfloat16" and element == "float" else element,
            "index": True,
            "similarity": "l2_norm" if element == "bit" else settings.get("similarity") or "cosine",
        }
        indexed = {"type": vector_index} if vector_index is not None else options.get("dense_vector")
    if indexed:
        # How numbers are stored is a matter of the field here, and of the form.
        embedding["index_options"] = {key: value for key, value in indexed.items() if key != "element_type"}
    offset = {"type": "integer"}
    return {
        "type": "nested",
        "properties": {
            "source_field": {"type": "keyword"},
            "start_offset": offset,
            "end_offset": offset,
            "text": {"type": "text", "index": False},
            "embedding": embedding,
        },
    }
