"""Resolve a run config: which endpoint and model embed which field, what a row holds, and what its fingerprint is."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from models.chunking_settings import parse_chunking_settings
from models.endpoints.endpoint import Endpoint
from models.endpoints.prices import priced_names, without_prices
from models.endpoints.registry import Registry
from models.errors import InferenceError, TransientError
from models.late_chunking import LateChunking, late_chunking
from models.model import Model
from models.open_model import entry_names, open_model
from pipeline.config.migration import Migration, with_migrations
from pipeline.config.run_config import RunConfig
from pipeline.errors import ConfigError, PipelineError, did_you_mean
from transforms.read.columns import DocumentShape
from transforms.records import SemanticField
from transforms.table.fingerprint import FieldIdentity, embedding_fingerprint, make_fingerprint
from transforms.table.schema import TABLE_FORMAT, SemanticColumn, TableLayout


@dataclass(frozen=True)
class ResolvedField:
    """A semantic_text field with everything that its name stands for.

    Attributes:
        field: name, source fields and chunking settings.
        endpoint: the endpoint that embeds its chunks.
        model: the endpoint's model, not loaded.
        column: its column of the table.
        embedding_fingerprint: changes when the same text would get another embedding.
        search_inference_id: the endpoint that embeds queries.
        late: what groups its chunks, where it has late chunking.
    """

    field: SemanticField
    endpoint: Endpoint
    model: Model
    column: SemanticColumn
    embedding_fingerprint: str
    search_inference_id: str
    late: LateChunking | None = None

    @property
    def identity(self) -> FieldIdentity:
        """What the field's chunks depend on, for the fingerprint of rows."""
        return FieldIdentity(
            self.embedding_fingerprint,
            inference_ids=(self.endpoint.inference_id, self.search_inference_id),
            sources=self.field.sources,
            chunking=self.field.chunking.to_json(),
        )

    @property
    def name(self) -> str:
        """The field's full name in the mapping."""
        return self.field.name


@dataclass(frozen=True)
class ResolvedConfig:
    """A run config together with the endpoints and models that it names."""

    config: RunConfig
    fields: tuple[ResolvedField, ...]
    layout: TableLayout

    @property
    def embedding_fingerprints(self) -> dict[str, str]:
        """Semantic field -> fingerprint of its embedding."""
        return {field.name: field.embedding_fingerprint for field in self.fields}

    @property
    def late(self) -> dict[str, LateChunking]:
        """Name of each semantic field with late chunking -> what groups its chunks."""
        return {field.name: field.late for field in self.fields if field.late}

    @property
    def shape(self) -> DocumentShape:
        """The mapping as far as it concerns single documents."""
        mappings = self.config.mappings
        columns = mappings.columns()
        names = {field.name for field in columns}
        return DocumentShape(
            columns,
            tuple(field for field in mappings.filters() if field.name not in names),
            mappings.objects(),
            {field.name: field.field.sources for field in self.fields},
            self.layout.lists,
        )

    def with_lists(self, lists: Collection[str]) -> "ResolvedConfig":
        """The same config, with columns that hold lists of values."""
        return replace(self, layout=replace(self.layout, lists=frozenset(lists)))

    @property
    def substitutions(self) -> dict[str, str]:
        """Model that an endpoint asks for -> the model that stands in for it here."""
        described = (field.model.describe() for field in self.fields)
        return {
            str(model["substituted_for"]): str(model.get("model_id"))
            for model in described
            if model.get("substituted_for")
        }


NO_MIGRATIONS: Mapping[str, Migration] = {}


def resolve(config: RunConfig, migrations: Mapping[str, Migration] = NO_MIGRATIONS) -> ResolvedConfig:
    """Look up the endpoints and models of a config.

    Args:
        config: the run config.
        migrations: semantic fields that the table is moving to other endpoints; it holds each of them twice.

    Raises:
        ConfigError: with every endpoint that is unknown or wrong and every model that cannot be used.
        PipelineError: a service that must be asked about its model does not answer.
    """
    config = with_migrations(config, migrations)
    registry = Registry(config.endpoints.path)
    fields, problems = [], _unused_models(config, registry)
    for name in config.mappings.semantic():
        try:
            fields.append(_resolve_field(config, registry, name))
        except TransientError as error:
            raise PipelineError(f"mappings.properties.{name}: {error.reason}") from None
        except InferenceError as error:
            problems.append(f"mappings.properties.{name}: {error.reason}")
    if problems:
        raise ConfigError("run config", problems)
    return ResolvedConfig(config, tuple(fields), _layout(config, fields, migrations))


def _resolve_field(config: RunConfig, registry: Registry, name: str) -> ResolvedField:
    mapped = config.mappings.semantic()[name]
    endpoint = _endpoint(registry, mapped.inference_id or config.endpoints.default)
    search_inference_id = mapped.search_inference_id or endpoint.inference_id
    _endpoint(registry, search_inference_id)
    model = open_model(endpoint, config.models)
    problems = model.problems()
    if problems:
        default = "" if mapped.inference_id else f"{_by_default(config)}. "
        raise InferenceError(default + "; ".join(problems), status=400)
    chunking = (
        parse_chunking_settings(mapped.chunking_settings, return_defaults=False) or endpoint.chunking_settings
    )
    late = late_chunking(model) if mapped.late_chunking else None
    field = SemanticField(name, config.mappings.sources(name), chunking, mapped.context, mapped.late_chunking)
    # A service that must be asked for its dimensions is asked here, where it is known which field to blame.
    _ = model.model_settings
    element = "sparse" if endpoint.is_sparse else "float" if endpoint.element_type == "float" else "byte"
    column = SemanticColumn(name, endpoint.inference_id, element)
    fingerprint = embedding_fingerprint(model.fingerprint, mapped.context, late_chunking=mapped.late_chunking)
    return ResolvedField(field, endpoint, model, column, fingerprint, search_inference_id, late)


def _unused_models(config: RunConfig, registry: Registry) -> list[str]:
    """Entries of ``models`` that nothing would look at: for no endpoint's model, or weights for what loads none."""
    if not config.models:
        return []
    endpoints = registry.list()
    loaded = {name for endpoint in endpoints for name in entry_names(endpoint)}
    priced = loaded | {name for endpoint in endpoints for name in priced_names(endpoint)}
    unused = []
    for name in config.models:
        is_price = not without_prices({name: config.models[name]})
        if name in (priced if is_price else loaded):
            continue
        if name in priced:
            own = sorted({key for one in endpoints if name in priced_names(one) for key in entry_names(one)})
            hint = f"; its model is [{own[-1]}]" if own else ", which loads no weights here"
            unused.append(f"models.{name}: this is the name of an endpoint or of a service's model{hint}")
        else:
            unused.append(f"models.{name}: no endpoint has this model{did_you_mean(name, loaded)}")
    return unused


def _by_default(config: RunConfig) -> str:
    return (
        f"It names no [inference_id], so the default [{config.endpoints.default}] embeds it: set [inference_id] in the "
        "mapping, or endpoints.default, for example to .minilm-l6-v2, whose weights are here"
    )


def _endpoint(registry: Registry, inference_id: str) -> Endpoint:
    try:
        endpoint = registry.get(inference_id)
    except InferenceError as error:
        known = (endpoint.inference_id for endpoint in registry.list())
        hint = did_you_mean(inference_id, known) if error.status == 404 else ""
        raise InferenceError(f"{error.reason}{hint}", status=error.status) from None
    if not endpoint.embeds:
        raise InferenceError(
            f"[{inference_id}] is an endpoint of task type [{endpoint.task_type}] and makes no embeddings",
            status=400,
        )
    return endpoint


def _layout(
    config: RunConfig, fields: list[ResolvedField], migrations: Mapping[str, Migration]
) -> TableLayout:
    plain = {field.name: field.arrow_type for field in config.mappings.columns()}
    # Whether a column holds lists is no part of the fingerprint: rows get their lists by being copied.
    fingerprint = make_fingerprint(
        {field.name: field.identity for field in fields},
        columns=[asdict(field) for field in config.mappings.columns()],
        analyzers=config.mappings.analyzers(),
        lists=sorted(config.table.lists),
    )
    return TableLayout(
        plain=plain,
        semantic=tuple(field.column for field in fields),
        fingerprint=fingerprint,
        description=json.dumps(_describe(config, fields, migrations), sort_keys=True),
    )


def _describe(
    config: RunConfig, fields: list[ResolvedField], migrations: Mapping[str, Migration]
) -> dict[str, Any]:
    """The table's description of itself: mapping, endpoints and models. Holds references to secrets, no secrets."""
    moving = {name: migration.to_json() for name, migration in migrations.items()}
    return {
        **({"migrations": moving} if moving else {}),
        "format": TABLE_FORMAT,
        **config.mappings.describe(),
        "models": without_prices(config.models),
        "endpoints_path": config.endpoints.path,
        "fields": {
            field.name: {
                "inference_id": field.endpoint.inference_id,
                "search_inference_id": field.search_inference_id,
                "sources": list(field.field.sources),
                "model_settings": field.model.model_settings,
                "endpoint": field.endpoint.definition(),
                "model": field.model.describe(),
                "embedding_fingerprint": field.embedding_fingerprint,
                "chunking_settings": field.field.chunking.to_json(),
                **({"context": field.field.context} if field.field.context else {}),
                **({"late_chunking": True} if field.late else {}),
            }
            for field in fields
        },
    }
