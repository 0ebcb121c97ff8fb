"""Who uses an inference endpoint: run configs that name it, and tables whose rows it embedded."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.endpoints.registry import Usage
from pipeline.config.defaults import DEFAULT_ENDPOINTS
from pipeline.config.yaml_text import parse_yaml
from pipeline.errors import PipelineError


def find_usages(inference_id: str, endpoints_path: str, configs: Sequence[str] = ()) -> list[Usage]:
    """Find what would break without an endpoint, as `inference_id` or as `search_inference_id`.

    Args:
        inference_id: the endpoint.
        endpoints_path: folder of its definition; run configs of other folders mean other endpoints.
        configs: run configs to look into, besides those in ``run_configs/`` and beside the folder.
    """
    return find_all_usages(endpoints_path, configs).get(inference_id, [])


def find_all_usages(endpoints_path: str, configs: Sequence[str] = ()) -> dict[str, list[Usage]]:
    """Find what uses each endpoint that anything uses; see `find_usages`."""
    usages: dict[str, list[Usage]] = {}
    for path, config in _run_configs(endpoints_path, configs):
        table = (config.get("table") or {}).get("path") if isinstance(config.get("table"), dict) else None
        named = _named(config.get("mappings"))
        for inference_id in named:
            found = [Usage("pipelines", path), Usage("indexes", str(table or path))]
            usages.setdefault(inference_id, []).extend(found)
        for inference_id in _embedded(str(table)) - named if table else ():
            usages.setdefault(inference_id, []).append(Usage("indexes", str(table)))
    return usages


def _run_configs(endpoints_path: str, configs: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every run config that takes its endpoints from this folder."""
    folder = Path(endpoints_path).resolve()
    candidates = [*(Path(config) for config in configs)]
    for pattern in ("*.yaml", "*.yml"):
        candidates += sorted(
            [*Path("run_configs").rglob(pattern), *Path(endpoints_path).parent.glob(pattern)]
        )
    seen = set()
    for file in candidates:
        if file.resolve() in seen:
            continue
        seen.add(file.resolve())
        config = _read(file, required=str(file) in configs)
        section = config.get("endpoints")
        named = section.get("path") if isinstance(section, dict) else None
        if config and Path(named or DEFAULT_ENDPOINTS).resolve() == folder:
            yield str(file), config


def _read(file: Path, *, required: bool) -> Mapping[str, Any]:
    """A YAML file as a mapping; a file that is none uses no endpoint."""
    try:
        config = parse_yaml(file.read_text(encoding="utf-8"))[1]
    except (OSError, ValueError) as error:
        if required:
            raise PipelineError(f"{file} cannot be read: {error}") from None
        return {}
    return config if isinstance(config, dict) else {}


def _named(node: Any) -> set[str]:
    """Every endpoint that a mapping names, at any depth."""
    if not isinstance(node, dict):
        return set()
    here = {node[key] for key in ("inference_id", "search_inference_id") if isinstance(node.get(key), str)}
    return here.union(*map(_named, node.values()))


def _embedded(table_path: str) -> set[str]:
    """The endpoints of a table's rows, as the table tells."""
    from pipeline.table.delta import describe_table, open_table

    try:
        table = open_table(table_path)
    except PipelineError:
        return set()
    fields = describe_table(table_path, table).get("fields", {}) if table else {}
    return _named(dict(fields))
