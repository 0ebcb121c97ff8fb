"""Move a semantic field to another endpoint, step by step; each step is a run over the table's own documents.

The table holds every source text, so nothing else is read. Beside the field comes a second one with the new embedding;
the switch exchanges their names; at last the old one goes. Each step is one version of the table, and what a step needs
of embeddings that are there it takes from there.
"""

from collections.abc import Mapping
from dataclasses import replace

from deltalake import DeltaTable

from pipeline.config.migration import Embedding, Migration
from pipeline.config.resolve import resolve
from pipeline.config.run_config import RunConfig, SourceConfig
from pipeline.errors import PipelineError
from pipeline.report.run_json import RunSummary
from pipeline.run.job import run_pipeline
from pipeline.table.delta import describe_table, require_table
from pipeline.table.migrations import read_migrations


def begin(config: RunConfig, field: str, after: Embedding, *, quiet: bool = False) -> RunSummary:
    """Embed a field's texts with another endpoint as well, into a second field beside it.

    Begun again it goes on where it was stopped, and takes in what the table has got since.

    Args:
        config: the run config.
        field: full name of the semantic field.
        after: the embedding that it is to get.
        quiet: show no progress.

    Raises:
        PipelineError: there is no such field or no table, or the field is on its way to something else.
    """
    table = require_table(config)
    mapped = config.mappings.semantic().get(field)
    if mapped is None:
        raise PipelineError(
            f"the mapping has no semantic_text field [{field}]; it has {', '.join(config.mappings.semantic())}"
        )
    migrations = read_migrations(config.table.path)
    before = Embedding.of(mapped, config.endpoints.default)
    migration = migrations.get(field, Migration(before, after))
    if migration.switched or migration.after != after:
        step = "--drop-old" if migration.switched else "--drop-next"
        raise PipelineError(
            f"[{field}] is on its way to [{migration.after.inference_id}] already; end that with {step} first"
        )
    _check_embedded_by(table, config, field, before)
    if before == after:
        raise PipelineError(f"[{field}] is embedded by [{after.inference_id}] with these settings already")
    return _run(config, {**migrations, field: migration}, quiet=quiet)


def switch(config: RunConfig, field: str, *, quiet: bool = False) -> RunSummary:
    """Make the new embedding the field's own; the old one stays beside it. The gates of the config decide.

    Raises:
        PipelineError: no migration of the field was begun, or it is switched already.
    """
    migrations = read_migrations(config.table.path)
    migration = _begun(config, migrations, field)
    if migration.switched:
        raise PipelineError(
            f"[{field}] is switched already; `restore` goes back, `--drop-old` lets the old embedding go"
        )
    return _run(config, {**migrations, field: replace(migration, switched=True)}, quiet=quiet)


def drop(config: RunConfig, field: str, *, old: bool, quiet: bool = False) -> RunSummary:
    """End a migration: let the old embedding go after the switch, or the new one before it.

    Args:
        config: the run config; it has to name the embedding that stays.
        field: full name of the semantic field.
        old: whether the old one goes.
        quiet: show no progress.

    Raises:
        PipelineError: it is not there beside the field, or the config names it.
    """
    migrations = read_migrations(config.table.path)
    migration = _begun(config, migrations, field)
    if migration.switched != old:
        has = "switched: it has the new embedding" if migration.switched else "not switched yet"
        raise PipelineError(
            f"[{field}] is {has}; {'--switch comes first' if old else '--drop-old ends that'}"
        )
    stays = migration.after if old else migration.before
    if Embedding.of(config.mappings.semantic()[field], config.endpoints.default) != stays:
        raise PipelineError(
            f"the config still has the other embedding of [{field}], and the next run would make that again; write\n"
            f"{as_yaml(stays)}\nin its place first"
        )
    return _run(config, {name: one for name, one in migrations.items() if name != field}, quiet=quiet)


def as_yaml(embedding: Embedding) -> str:
    """How a mapping says it."""
    import yaml

    named = {name: value for name, value in vars(embedding).items() if value is not None}
    return str(yaml.safe_dump(named, sort_keys=False)).rstrip("\n")


def _check_embedded_by(table: DeltaTable, config: RunConfig, field: str, before: Embedding) -> None:
    described = describe_table(config.table.path, table)["fields"].get(field, {}).get("inference_id")
    if described != before.inference_id:
        raise PipelineError(
            f"the config's [{field}] is embedded by [{before.inference_id}], and the table's by [{described}]; name"
            " that in the config, since it is what the field moves away from, or run once"
        )


def _begun(config: RunConfig, migrations: Mapping[str, Migration], field: str) -> Migration:
    require_table(config)
    if field not in migrations:
        moving = ", ".join(f"[{name}]" for name in migrations) or "none"
        raise PipelineError(
            f"no migration of [{field}] was begun; fields on their way: {moving}. `migrate --to` begins one."
        )
    return migrations[field]


def _run(config: RunConfig, migrations: Mapping[str, Migration], *, quiet: bool) -> RunSummary:
    """A run over the table's own documents. One that another run has overtaken is refused by its commit."""
    resolve(config, migrations)  # what is wrong with the new endpoint is said before anything is read
    source = SourceConfig(format="table", path=config.table.path, split_bytes=config.source.split_bytes)
    return run_pipeline(
        config.model_copy(update={"source": source}), migrations=migrations, quiet=quiet, lock=False
    )
