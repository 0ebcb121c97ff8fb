"""The Elasticsearch index that exported documents fit into: its settings and its mapping."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    target = _Target(rows, form, vector_index)
    properties = target.properties(mappings.get("properties", {}))
    if form.form == "nested":
        for name, definition in target.semantic.items():
            if chunks_name(name) in properties:
                raise PipelineError(
                    f"the chunks of [{name}] go into [{chunks_name(name)}], and the mapping has such a field"
                )
            settings, options = rows.fields[name]["model_settings"], definition.get("index_options")
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


@dataclass(frozen=True)
class _Target:
    """The fields of the mapping as the index has them.

    Attributes:
        rows: the rows of the table.
        form: how documents are written.
        vector_index: how dense vectors are indexed; None leaves that to others.
        semantic: the definitions of semantic fields that were met, by full name.
    """

    rows: TableRows
    form: DocumentForm
    vector_index: str | None
    semantic: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def properties(self, properties: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        """Fields below a prefix."""
        result = {}
        for name, definition in properties.items():
            full = f"{prefix}{name}"
            if "properties" in definition:
                inner = self.properties(definition["properties"], f"{full}.")
                result[name] = {**definition, "properties": inner}
                continue
            made = {"type": "object", **definition}
            if targets := self._targets(made.pop("copy_to", ())):
                made["copy_to"] = targets
            if "fields" in made:
                made["fields"] = self._multi_fields(full, made["fields"])
            if full in self.rows.fields:
                self.semantic[full] = definition
                made = self._semantic(full, made)
            result[name] = made
        return result

    def _targets(self, names: Sequence[str]) -> list[str]:
        """Where a field's value is copied to; no semantic field where documents bring its text or its chunks."""
        takes_all = self.form.form in ("semantic_text", "legacy")
        return [name for name in names if takes_all or name not in self.rows.fields]

    def _multi_fields(self, parent: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        result = {}
        for name, definition in fields.items():
            full = f"{parent}.{name}"
            if full not in self.rows.fields:
                result[name] = definition
                continue
            self.semantic[full] = definition
            if self.form.form in ("legacy", "own_chunks"):
                raise PipelineError(
                    f"[{full}] is a multi-field, and documents of this form hold the result in the field itself; "
                    "export without --legacy and --no-overlap"
                )
            if self.form.form == "semantic_text":
                result[name] = self._semantic(full, dict(definition))
        return result

    def _semantic(self, name: str, made: dict[str, Any]) -> dict[str, Any]:
        if self.form.form == "nested":
            return {"type": "text", **{key: made[key] for key in ("copy_to", "fields") if made.get(key)}}
        described = self.rows.fields[name]
        settings = described["model_settings"]
        for extension in ("context", "late_chunking"):
            made.pop(extension, None)
        made["inference_id"] = self.form.inference_id(name, described)
        if name in self.form.inference_ids:
            made.pop("search_inference_id", None)
        made["model_settings"] = {key: value for key, value in settings.items() if value is not None}
        if not set(made.get("chunking_settings", ())) <= _CHUNKING:
            del made["chunking_settings"]  # an extension of ours, which the cluster would refuse
        if self.vector_index is not None and settings["task_type"] == "text_embedding":
            made["index_options"] = {"dense_vector": {"type": self.vector_index}}
        return made


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
