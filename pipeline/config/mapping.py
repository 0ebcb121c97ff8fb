"""The mapping, as Elasticsearch gives it: plain fields, ``semantic_text`` fields, multi-fields and ``copy_to``."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from models.chunking_settings import parse_chunking_settings
from models.errors import InferenceError
from pipeline.config.mapping_parameters import PARAMETERS, TOP_PARAMETERS
from pipeline.errors import did_you_mean
from transforms.chunk.context import SECTION, ContextTemplate
from transforms.dates import DEFAULT_FORMATS, DEFAULT_NANOS_FORMATS, date_pattern
from transforms.index.tantivy_schema import text_analyzer
from transforms.plain_values import COLUMN_TYPES, TEXT_TYPES, PlainField

SOURCE_ONLY = (
    *(
        "aggregate_metric_double",
        "alias",
        "annotated_text",
        "binary",
        "completion",
        "dense_vector",
        "flattened",
    ),
    *(
        "geo_point",
        "geo_shape",
        "histogram",
        "join",
        "murmur3",
        "nested",
        "percolator",
        "point",
        "rank_feature",
    ),
    *("rank_features", "rank_vectors", "shape", "sparse_vector", "token_count"),
    *("date_range", "double_range", "float_range", "integer_range", "ip_range", "long_range"),
)
"""Field types without a column: their values are kept in ``_source``."""

RESERVED = ("_id", "_source", "content_hash", "fingerprint", "run_id", "ingested_at")


ANALYZED = ("text", "search_as_you_type", "token_count", "annotated_text", "completion")
"""Field types with an analyzer."""


class Property(BaseModel):
    """One field of the mapping, with all its parameters as they stand.

    Attributes:
        type: Elasticsearch's field type; a property with `properties` is an `object`.
        copy_to: fields that get this field's values too.
        analyzer: how BM25 splits a text field into terms: `standard`, or a language, which stems as well.
        properties: the fields of an object.
        fields: the same values once more, as other types.
        inference_id: endpoint that embeds the field when documents are ingested (semantic_text); None is the default.
        search_inference_id: endpoint that embeds queries; the same where none is named.
        chunking_settings: overrides those of the endpoint.
        context: template of what stands before each chunk when it is embedded, an extension of ours (semantic_text).
        late_chunking: whether chunks are embedded within their value, an extension of ours (semantic_text).
        index_options: how Elasticsearch indexes the embeddings; kept with the table for exports.
        format: formats of a date, `||` between them.
        coerce: whether a number may be written as text or with digits behind the point.
        ignore_malformed: whether a value that does not fit is left out, instead of failing its document.
        null_value: what filters find in place of a null.
        ignore_above: length of the longest text that filters find.
        scaling_factor: of a scaled_float, whose values filters know in steps of one by this.
        value: the one value of a constant_keyword.
        enabled: whether the fields of an object have a meaning at all.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = "object"
    copy_to: tuple[str, ...] = ()
    analyzer: str | None = None
    properties: dict[str, "Property"] = Field(default_factory=dict)
    fields: dict[str, "Property"] = Field(default_factory=dict)
    inference_id: str | None = None
    search_inference_id: str | None = None
    chunking_settings: dict[str, Any] | None = None
    context: str | None = None
    late_chunking: bool = False
    index_options: Any = None
    format: str | None = None
    coerce: bool = True
    ignore_malformed: bool = False
    null_value: Any = None
    ignore_above: int | None = None
    scaling_factor: float | None = None
    value: Any = None
    enabled: bool = True

    @model_validator(mode="before")
    @classmethod
    def _known_parameters(cls, values: Any) -> Any:
        known = {*PARAMETERS, *cls.model_fields}
        for name in values if isinstance(values, dict) else ():
            if name not in known:
                raise ValueError(f"unknown parameter [{name}]{did_you_mean(str(name), known)}")
        return values

    @field_validator("copy_to", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("type")
    @classmethod
    def _known_type(cls, value: str) -> str:
        known = [*COLUMN_TYPES, *SOURCE_ONLY, "object", "passthrough", "semantic_text"]
        if value not in known:
            raise ValueError(
                f"No handler for type [{value}]{did_you_mean(value, known)}; known types: {', '.join(sorted(known))}"
            )
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
        # An analyzer of the cluster's own cannot be had here; `check` says which one takes its place.
        return value

    @field_validator("chunking_settings")
    @classmethod
    def _valid_chunking(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        try:
            parse_chunking_settings(value, return_defaults=False)
        except InferenceError as error:
            raise ValueError(error.reason) from None
        return value

    @field_validator("context")
    @classmethod
    def _valid_context(cls, value: str | None) -> str | None:
        if value is not None:
            ContextTemplate.parse(value)
        return value

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: str | None) -> str | None:
        for one in (value or "").split("||"):
            if one not in ("", "epoch_millis", "epoch_second"):
                date_pattern(one)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "Property":
        own = (
            self.inference_id,
            self.search_inference_id,
            self.chunking_settings,
            self.context,
            self.late_chunking,
        )
        if self.type != "semantic_text" and any(own):
            raise ValueError(
                "[inference_id], [chunking_settings], [context] and [late_chunking] belong to type [semantic_text], not"
                f" [{self.type}]"
            )
        if self.context and self.late_chunking:
            raise ValueError(
                "[context] and [late_chunking] exclude each other: both tell a chunk what it is about; keep one"
            )
        if self.analyzer and self.type not in (
            "text",
            "search_as_you_type",
            "token_count",
            "annotated_text",
            "completion",
        ):
            raise ValueError(f"[analyzer] belongs to type [text], not [{self.type}]")
        if self.properties and self.type not in ("object", "nested", "passthrough"):
            raise ValueError(f"only an object has [properties], not [{self.type}]")
        if self.null_value is not None and self.type in COLUMN_TYPES:
            _ = self.plain("null_value", ()).convert(self.null_value)
        for name, field in self.fields.items():
            if field.fields or field.properties or field.copy_to or field.type in ("object", "nested"):
                raise ValueError(
                    f"the multi-field [{name}] cannot have fields, properties or copy_to of its own"
                )
        return self

    @property
    def is_object(self) -> bool:
        """Whether the field holds other fields."""
        return self.type in ("object", "passthrough")

    def plain(self, name: str, sources: tuple[str, ...]) -> PlainField:
        """The field as one that has a column or a filter."""
        default = DEFAULT_NANOS_FORMATS if self.type == "date_nanos" else DEFAULT_FORMATS
        formats = tuple(self.format.split("||")) if self.format else default
        return PlainField(
            name,
            self.type,
            formats,
            self.coerce,
            self.ignore_malformed,
            sources,
            self.null_value,
            self.ignore_above,
            self.scaling_factor,
            None if self.value is None or self.type != "constant_keyword" else str(self.value),
        )


class Mappings(BaseModel):
    """The ``mappings`` of an index, alone or inside what ``GET index/_mapping`` returns."""

    model_config = ConfigDict(extra="allow", frozen=True)

    properties: dict[str, Property]

    @model_validator(mode="before")
    @classmethod
    def _unwrapped(cls, values: Any) -> Any:
        """Take off what a cluster puts around a mapping, and refuse what is in it twice."""
        while isinstance(values, dict) and "properties" not in values and len(values) == 1:
            ((name, inner),) = values.items()
            if not isinstance(inner, dict) or (name != "mappings" and "mappings" not in inner):
                break
            values = inner["mappings"] if name != "mappings" and "mappings" in inner else inner
        if isinstance(values, dict):
            known = {*TOP_PARAMETERS, "properties"}
            for name in values:
                if name not in known:
                    raise ValueError(f"unknown key [{name}]{did_you_mean(str(name), known)}")
        for name in _nested_semantic("", values, inside=False):
            raise ValueError(f"semantic_text field [{name}] cannot be nested")
        return values

    @model_validator(mode="after")
    def _consistent(self) -> "Mappings":
        names = [name for name, _ in _every_field("", self.properties)]
        seen: dict[str, str] = {}
        for name in names:
            # Columns of Delta Lake differ in more than the case of letters.
            other = seen.setdefault(name.lower(), name)
            if other is not name:
                what = (
                    f"[{other}] and [{name}]"
                    if other != name
                    else f"[{name}] (once with dots and once as an object)"
                )
                raise ValueError(f"{what} would be the same column; rename or remove one of them")
            if name.lower() in RESERVED:
                raise ValueError(
                    f"[{name}] is a column of every table and cannot be mapped; rename the field"
                )
        fields = dict(self.walk())
        for name in fields:
            parents = name.split(".")
            for count in range(1, len(parents)):
                if (parent := ".".join(parents[:count])) in fields:
                    raise ValueError(
                        f"[{name}] lies inside [{parent}], which is mapped as a value, not as an object"
                    )
        for name, field in fields.items():
            for target in field.copy_to:
                if target not in fields:
                    raise ValueError(
                        f"[{name}] has copy_to [{target}], which is not a field of the mapping"
                        f"{did_you_mean(target, fields)}"
                    )
        for name, field in self.semantic().items():
            for named in ContextTemplate.parse(field.context).names if field.context else ():
                if named not in fields:
                    raise ValueError(
                        f"[{name}] has the context [{{{named}}}], which is not a field of the mapping"
                        f"{did_you_mean(named, [*fields, SECTION])}"
                    )
        if not self.semantic():
            raise ValueError("has no semantic_text field: there is nothing to embed")
        return self

    def walk(self) -> Iterator[tuple[str, Property]]:
        """Yield every field that is not an object and no multi-field: full dotted name and property."""
        yield from _walk("", self.properties)

    def with_multi_fields(self) -> Iterator[tuple[str, Property, str]]:
        """Yield every field that is not an object: full dotted name, property, and the field that holds its values."""
        for name, field in self.walk():
            yield name, field, name
            yield from ((f"{name}.{inner}", multi, name) for inner, multi in field.fields.items())

    def semantic(self) -> dict[str, Property]:
        """The semantic_text fields by full name."""
        return {name: field for name, field, _ in self.with_multi_fields() if field.type == "semantic_text"}

    def objects(self) -> tuple[str, ...]:
        """Full names of the objects whose fields have a meaning."""
        return tuple(
            name for name, field in _every_field("", self.properties) if field.is_object and field.enabled
        )

    def columns(self) -> tuple[PlainField, ...]:
        """The plain fields that have a column."""
        return tuple(field.plain(name, (name,)) for name, field in self.walk() if field.type in COLUMN_TYPES)

    def filters(self) -> tuple[PlainField, ...]:
        """The fields that filters can use: columns that are no text, multi-fields, targets of ``copy_to``."""
        return tuple(
            field.plain(name, self._sources(parent))
            for name, field, parent in self.with_multi_fields()
            if field.type in COLUMN_TYPES and field.type not in TEXT_TYPES
        )

    def texts(self) -> dict[str, tuple[str, ...]]:
        """Full names of the fields that BM25 searches -> the fields whose values they have."""
        return {
            name: self._sources(parent)
            for name, field, parent in self.with_multi_fields()
            if field.type in TEXT_TYPES
        }

    def analyzers(self) -> dict[str, str]:
        """Full names of the text fields with an analyzer that is known here -> the analyzer."""
        return {
            name: field.analyzer
            for name, field, _ in self.with_multi_fields()
            if field.type in TEXT_TYPES and field.analyzer is not None and is_known_analyzer(field.analyzer)
        }

    def describe(self) -> dict[str, Any]:
        """The mapping as the table keeps it: as it stands, and what it comes to for filters and BM25."""
        analyzers = self.analyzers()
        return {
            "mappings": self.model_dump(exclude_defaults=True),
            "filters": {field.name: asdict(field) for field in self.filters()},
            "texts": {
                name: {"sources": list(sources), "analyzer": analyzers.get(name)}
                for name, sources in self.texts().items()
            },
        }

    def sources(self, semantic_field: str) -> tuple[str, ...]:
        """Full names of the fields whose values a semantic field embeds: its own first, then copy_to sources."""
        parent = next(parent for name, _, parent in self.with_multi_fields() if name == semantic_field)
        return self._sources(parent)

    def _sources(self, field: str) -> tuple[str, ...]:
        return (field, *(name for name, other in self.walk() if field in other.copy_to))


def is_known_analyzer(name: str) -> bool:
    """Whether the local index has an analyzer of that name."""
    try:
        text_analyzer(name)
    except ValueError:
        return False
    return True


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
        if not field.is_object:
            yield f"{prefix}{name}", field
        elif field.enabled:
            yield from _walk(f"{prefix}{name}.", field.properties)


def _every_field(prefix: str, properties: dict[str, Property]) -> Iterator[tuple[str, Property]]:
    """Every field of the mapping: objects, their fields and multi-fields."""
    for name, field in properties.items():
        yield f"{prefix}{name}", field
        if field.is_object and field.enabled:
            yield from _every_field(f"{prefix}{name}.", field.properties)
        yield from ((f"{prefix}{name}.{inner}", multi) for inner, multi in field.fields.items())
