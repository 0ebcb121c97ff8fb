"""The mapping, as in an Elasticsearch index: plain fields, ``semantic_text`` fields and ``copy_to``."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from models.chunking_settings import parse_chunking_settings
from models.errors import InferenceError
from transforms.index.tantivy_schema import text_analyzer

PLAIN_TYPES = {
    "text": "string",
    "keyword": "string",
    "date": "string",
    "boolean": "bool",
    "long": "int64",
    "integer": "int32",
    "short": "int16",
    "byte": "int8",
    "double": "float64",
    "float": "float32",
}
"""Elasticsearch field type -> Arrow type of its column. Dates stay as they are written, like in ``_source``."""

WITHOUT_MEANING = {
    *("boost", "coerce", "doc_values", "dynamic", "eager_global_ordinals"),
    *("enabled", "fielddata", "fields", "format", "ignore_above"),
    *("ignore_malformed", "index", "index_options", "index_phrases", "index_prefixes"),
    *("locale", "meta", "model_settings", "normalizer", "norms"),
    *("null_value", "position_increment_gap", "search_analyzer", "search_quote_analyzer", "similarity"),
    *("store", "term_vector"),
}
"""Parameters of Elasticsearch's field types that an existing mapping may hold and that change nothing here."""

RESERVED = {"_id", "_source", "content_hash", "fingerprint", "run_id", "ingested_at"}


class Property(BaseModel):
    """One field of the mapping.

    Attributes:
        type: Elasticsearch's field type; a property with `properties` is an `object`.
        copy_to: semantic_text fields that embed this field's value too.
        analyzer: how BM25 splits a text field into terms: `standard`, or a language, which stems as well.
        properties: the fields of an object.
        inference_id: endpoint that embeds the field when documents are ingested (semantic_text).
        search_inference_id: endpoint that embeds queries; the same where none is named.
        chunking_settings: overrides those of the endpoint.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str = "object"
    copy_to: tuple[str, ...] = ()
    analyzer: str | None = None
    properties: dict[str, "Property"] = Field(default_factory=dict)
    inference_id: str | None = None
    search_inference_id: str | None = None
    chunking_settings: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, values: Any) -> Any:
        """Take mappings as they stand in Elasticsearch: leave out what has no meaning here."""
        if not isinstance(values, dict):
            return values
        if values.get("type") == "semantic_text" and values.get("fields"):
            raise ValueError("a field of type [semantic_text] does not support multi-fields")
        return {name: value for name, value in values.items() if name not in WITHOUT_MEANING}

    @field_validator("copy_to", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("type")
    @classmethod
    def _known_type(cls, value: str) -> str:
        if value == "nested":
            raise ValueError("[nested] objects are not supported; use [object]")
        known = [*PLAIN_TYPES, "object", "semantic_text"]
        if value not in known:
            raise ValueError(f"No handler for type [{value}]; known types: {', '.join(known)}")
        return value

    @field_validator("inference_id", "search_inference_id")
    @classmethod
    def _not_empty(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError(
                "must not be empty; leave it out or name an endpoint (`semantic-ingest endpoints list`)"
            )
        return value

    @field_validator("analyzer")
    @classmethod
    def _known_analyzer(cls, value: str | None) -> str | None:
        if value is not None:
            text_analyzer(value)
        return value

    @field_validator("chunking_settings")
    @classmethod
    def _valid_chunking(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        try:
            parse_chunking_settings(value, return_defaults=False)
        except InferenceError as error:
            raise ValueError(error.reason) from None
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "Property":
        semantic = self.type == "semantic_text"
        if semantic and self.inference_id is None:
            raise ValueError(
                "a semantic_text field needs [inference_id]; `semantic-ingest endpoints list` shows them"
            )
        if not semantic and (self.inference_id or self.search_inference_id or self.chunking_settings):
            raise ValueError(
                f"[inference_id] and [chunking_settings] belong to type [semantic_text], not [{self.type}]"
            )
        if semantic and self.copy_to:
            raise ValueError(
                "a semantic_text field cannot copy its value on ([copy_to]); put copy_to on the text field"
            )
        if self.analyzer and self.type != "text":
            raise ValueError(f"[analyzer] belongs to type [text], not [{self.type}]")
        if self.properties and self.type != "object":
            raise ValueError(f"only an object has [properties], not [{self.type}]")
        return self


class Mappings(BaseModel):
    """The ``mappings`` of an index."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    properties: dict[str, Property]

    @model_validator(mode="before")
    @classmethod
    def _not_nested(cls, values: Any) -> Any:
        """Refuse semantic_text inside nested objects with Elasticsearch's words."""
        for name in _nested_semantic("", values, inside=False):
            raise ValueError(f"semantic_text field [{name}] cannot be nested")
        return values

    @model_validator(mode="after")
    def _consistent(self) -> "Mappings":
        fields = dict(self.walk())
        for name in self.properties:
            if name in RESERVED:
                raise ValueError(
                    f"[{name}] is a column of every table and cannot be mapped; rename the field"
                )
        for name, field in fields.items():
            for target in field.copy_to:
                if target not in fields or fields[target].type != "semantic_text":
                    raise ValueError(
                        f"[{name}] has copy_to [{target}], which is not a semantic_text field of the mapping"
                    )
        if not self.semantic():
            raise ValueError("has no semantic_text field: there is nothing to embed")
        return self

    def walk(self) -> Iterator[tuple[str, Property]]:
        """Yield every field that is not an object: full dotted name and property."""
        yield from _walk("", self.properties)

    def semantic(self) -> dict[str, Property]:
        """The semantic_text fields by full name."""
        return {name: field for name, field in self.walk() if field.type == "semantic_text"}

    def plain(self) -> dict[str, str]:
        """Full names of the plain fields -> Arrow type of their column."""
        return {name: PLAIN_TYPES[field.type] for name, field in self.walk() if field.type in PLAIN_TYPES}

    def sources(self, semantic_field: str) -> tuple[str, ...]:
        """Full names of the fields whose values a semantic field embeds: itself first, then copy_to sources."""
        return (semantic_field, *(name for name, field in self.walk() if semantic_field in field.copy_to))


def _nested_semantic(prefix: str, values: Any, *, inside: bool) -> Iterator[str]:
    """Full names of the semantic_text fields below a nested object of a raw mapping."""
    properties = values.get("properties") if isinstance(values, dict) else None
    for name, field in properties.items() if isinstance(properties, dict) else ():
        if isinstance(field, dict):
            if inside and field.get("type") == "semantic_text":
                yield f"{prefix}{name}"
            yield from _nested_semantic(
                f"{prefix}{name}.", field, inside=inside or field.get("type") == "nested"
            )


def _walk(prefix: str, properties: dict[str, Property]) -> Iterator[tuple[str, Property]]:
    for name, field in properties.items():
        full_name = f"{prefix}{name}"
        if field.type == "object":
            yield from _walk(f"{full_name}.", field.properties)
        else:
            yield full_name, field
