"""Everything that can be known before a run: config, mapping, endpoints, weights, source, and writable places."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile

from models.local.device import describe_device
from pipeline.config.migration import Migration
from pipeline.config.resolve import resolve
from pipeline.config.run_config import RunConfig
from pipeline.errors import ConfigError, PipelineError
from pipeline.run.look import SourceSeen, look_at_source
from pipeline.run.source import find_source, source_format
from pipeline.runners.execute import check_runner, pipeline_options
from pipeline.table.delta import open_table
from pipeline.table.migrations import read_migrations
from transforms import files
from transforms.read.formats import FORMATS


def find_problems(config: RunConfig) -> tuple[list[str], SourceSeen]:
    """Name everything that would stop a run, each with its place in the config, and tell what the source holds."""
    problems: list[str] = []
    resolved, seen = None, SourceSeen()
    try:
        resolved = resolve(config, _migrations(config))
    except ConfigError as error:
        problems += error.problems
    except PipelineError as error:
        problems.append(str(error))
    for place, check in (("source", _check_source), ("table", _check_table), ("runner", _check_runner)):
        try:
            check(config)
        except (PipelineError, OSError, ValueError, SystemExit) as error:
            problems.append(f"{place}: {error}")
    if resolved is not None and not any(problem.startswith("source") for problem in problems):
        try:
            seen = look_at_source(resolved)
        except (PipelineError, OSError) as error:
            problems.append(f"source: {error}")
        problems += seen.problems
    places = {"table.path": config.table.path, "failures.path": config.failures.path}
    if config.index is not None:
        places["index.path"] = config.index.path
    problems += [f"{name}: {problem}" for name, path in places.items() for problem in _not_writable(path)]
    for name in ("queries", "qrels"):
        path = getattr(config.gates, name)
        if path is not None and not files.exists(path):
            problems.append(f"gates.{name}: [{path}] does not exist")
    return problems, seen


def _migrations(config: RunConfig) -> Mapping[str, Migration]:
    """Fields on their way to other endpoints; what is wrong with the table is told where that is looked at."""
    try:
        return read_migrations(config.table.path)
    except PipelineError:
        return {}


def describe_engine(config: RunConfig) -> str | None:
    """Say what the local models of a config without problems compute with; None where it has none.

    Raises:
        InferenceError: they cannot compute here as the config wants it.
    """
    models = [field.model for field in resolve(config).fields if field.model.weight_bytes]
    if not models:
        return None
    dtypes = [dtype for model in models if (dtype := model.describe().get("dtype"))]
    return describe_device(config.runner.device, dtypes)


def _check_source(config: RunConfig) -> None:
    check = FORMATS[config.source.format].check
    if check is None:
        find_source(config)
    else:
        check(source_format(config))


def _check_table(config: RunConfig) -> None:
    open_table(config.table.path)


def _check_runner(config: RunConfig) -> None:
    check_runner(config)
    if config.runner.name != "local" or config.runner.options:
        pipeline_options(config.runner)


def _not_writable(path: str) -> list[str]:
    """Say why a place cannot be written, by writing there; locally the nearest folder that exists decides."""
    if not files.is_local(path):
        probe = files.join(path, ".write-probe")
        try:
            with files.create(probe) as handle:
                handle.write(b"")
            files.delete([probe])
        except Exception as error:  # whatever the client of the store raises
            return [f"[{path}] cannot be written: {error}"]
        return []
    place = Path(path).absolute()
    if place.exists() and not place.is_dir():
        return [f"[{path}] is a file, not a folder"]
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        return [f"[{path}] cannot be made: [{place}] is a file"]
    try:
        with TemporaryFile(dir=place) as handle:
            handle.write(b"probe")
    except PermissionError:
        return [f"[{path}] cannot be written: no permission for [{place}]"]
    except OSError as error:
        return [f"[{path}] cannot be written: {error.strerror} at [{place}]"]
    return []
