"""A semantic field on its way to another endpoint: for a time the table holds it twice, side by side.

The second one is a multi-field of the first, or its sibling where it is a multi-field itself, so it embeds the same
values. Until the switch it is the new one, ``<field>.next``; from then on the old one, ``<field>.old``.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.config.mapping import Mappings, Property
from pipeline.config.run_config import RunConfig
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Embedding:
    """How a semantic field is chunked and embedded, in the parameters of its mapping; None is the default of each."""

    inference_id: str | None
    search_inference_id: str | None = None
    chunking_settings: dict[str, Any] | None = None
    context: str | None = None
    late_chunking: bool = False

    @classmethod
    def of(cls, field: Property, default_endpoint: str) -> "Embedding":
        """That of a mapped field; the default endpoint by its name, since the default may change."""
        return cls(
            field.inference_id or default_endpoint,
            field.search_inference_id,
            field.chunking_settings,
            field.context,
            field.late_chunking,
        )


@dataclass(frozen=True)
class Migration:
    """One field's way from one embedding to another.

    Attributes:
        before: the embedding that the field had.
        after: the one that it gets.
        switched: whether the field has the new one already.
    """

    before: Embedding
    after: Embedding
    switched: bool = False

    def to_json(self) -> dict[str, Any]:
        """What the table keeps of it."""
        return asdict(self)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Migration":
        """From what the table keeps."""
        before, after = (Embedding(**kept[name]) for name in ("before", "after"))
        return cls(before, after, kept["switched"])


def second_field(mappings: Mappings, field: str, *, switched: bool) -> str:
    """Full name of the field that holds the other embedding."""
    suffix = "old" if switched else "next"
    return f"{field}.{suffix}" if field in dict(mappings.walk()) else f"{field}_{suffix}"


def in_words(migration: Migration) -> str:
    """What the new embedding has other than the old one, as the mapping says it."""
    before, after = asdict(migration.before), asdict(migration.after)
    changed = {name: value for name, value in after.items() if value != before[name]}
    return (
        ", ".join(f"`{name}: {json.dumps(value)}`" for name, value in changed.items()) or "the same settings"
    )


def reminders(config: RunConfig, migrations: Mapping[str, Migration]) -> list[str]:
    """What is left to do of each migration, in sentences."""
    told = []
    for name, one in migrations.items():
        field = config.mappings.semantic().get(name)
        if one.switched and field and Embedding.of(field, config.endpoints.default) == one.before:
            told.append(
                f"mappings.properties.{name}: the table has switched this field to [{one.after.inference_id}]; give it"
                f" {in_words(one)} in the config, then `migrate --drop-old`"
            )
        elif one.switched:
            told.append(f"[{name}] still keeps its old embedding beside it; `migrate --drop-old` lets it go")
        else:
            told.append(
                f"[{name}] has the embedding of [{one.after.inference_id}] beside it; next comes"
                " `migrate --switch`, or `--drop-next`"
            )
    return told


def with_migrations(config: RunConfig, migrations: Mapping[str, Migration]) -> RunConfig:
    """The config of a run that keeps both embeddings of each field on its way.

    Args:
        config: the run config; each of the fields has either of its two embeddings there.
        migrations: field -> migration, as the table keeps them.

    Raises:
        ConfigError: the config gives such a field a third embedding, or no longer has it.
    """
    if not migrations:
        return config
    mappings = config.mappings
    problems = [problem for name in migrations for problem in _misfit(config, name, migrations[name])]
    if problems:
        raise ConfigError("run config", problems)
    for name, migration in migrations.items():
        mappings = _with_both(mappings, name, migration)
    return config.model_copy(update={"mappings": mappings})


def _misfit(config: RunConfig, name: str, migration: Migration) -> list[str]:
    field = config.mappings.semantic().get(name)
    place = f"mappings.properties.{name}"
    if field is None:
        return [
            f"{place}: the table is moving this field to another endpoint, and the mapping has it no more"
        ]
    known = (migration.before, migration.after)
    if Embedding.of(field, config.endpoints.default) not in known:
        ids = " to ".join(f"[{one.inference_id}]" for one in known)
        return [
            f"{place}: the table is moving this field from {ids}, and the config names [{field.inference_id}] or other"
            " settings; end that first with `migrate --drop-next` or `migrate --drop-old`"
        ]
    return []


def _with_both(mappings: Mappings, name: str, migration: Migration) -> Mappings:
    """The mapping with the field as it is now, and the second one beside it."""
    own, other = migration.before, migration.after
    if migration.switched:
        own, other = other, own
    second = second_field(mappings, name, switched=migration.switched)
    tree = mappings.model_dump(exclude_defaults=True)
    parent, leaf = _place(mappings, tree["properties"], name)
    leaf.update(asdict(own))
    inner = second.rpartition(".")[2]
    parent.setdefault("fields", {})[inner] = {"type": "semantic_text", **asdict(other)}
    return Mappings.model_validate(tree)


def _place(
    mappings: Mappings, properties: dict[str, Any], name: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The field that the second one is a multi-field of, and the field itself, in the dumped mapping."""
    parent = next(owner for full, _, owner in mappings.with_multi_fields() if full == name)
    owner = _find(properties, parent)
    return owner, owner if parent == name else owner["fields"][name[len(parent) + 1 :]]


def _find(properties: dict[str, Any], path: str) -> dict[str, Any]:
    """A field of a dumped mapping by its full name, whose parts may be dotted names themselves."""
    for name, field in properties.items():
        if name == path:
            found: dict[str, Any] = field
            return found
        if path.startswith(f"{name}.") and "properties" in field:
            return _find(field["properties"], path[len(name) + 1 :])
    raise KeyError(path)
