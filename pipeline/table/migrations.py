"""What a table says of fields on their way to other endpoints, for whoever resolves a config for it."""

from collections.abc import Mapping

from pipeline.config.migration import Migration
from pipeline.config.resolve import ResolvedConfig, resolve
from pipeline.config.run_config import RunConfig
from pipeline.table.delta import describe_table, open_table


def resolve_for_table(config: RunConfig) -> ResolvedConfig:
    """Resolve a config, together with the second fields that its table holds for a time.

    Raises:
        ConfigError: see `resolve` and `with_migrations`.
        PipelineError: the table cannot be read.
    """
    return resolve(config, read_migrations(config.table.path))


def read_migrations(table_path: str) -> Mapping[str, Migration]:
    """Semantic field -> its migration, as the table's newest rows have it; none where there is no table."""
    table = open_table(table_path, check=False)
    if table is None:
        return {}
    kept = describe_table(table_path, table).get("migrations", {})
    return {name: Migration.from_json(one) for name, one in kept.items()}
