"""Arguments and options that several commands share, and what they stand for."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipeline.config.defaults import DEFAULT_ENDPOINTS
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from models.endpoints.registry import Registry
    from models.reranker import Reranker
    from pipeline.search.open_index import SearchIndex
    from pipeline.search.pruning import Pruning

Config = Annotated[str, typer.Argument(metavar="CONFIG", help="Run config, a YAML file.")]
Index = Annotated[str, typer.Argument(metavar="CONFIG|INDEX", help="Run config, or folder of an index.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one value of the config, e.g. runner.workers=2."
    ),
]
Format = Annotated[Literal["table", "json"], typer.Option("--format", help="What stdout gets.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Field = Annotated[str | None, typer.Option(help="Field to search; by default the first that fits.")]
Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="FILTER",
        help="Only documents with `year>=1970 AND kind=report`, or an Elasticsearch query in JSON; all must hold.",
    ),
]
PruningOption = Annotated[
    str | None,
    typer.Option(
        "--pruning",
        metavar="elasticsearch|RATIO,WEIGHT",
        help="Leave frequent light tokens out of sparse queries; `elasticsearch` is its default, 5,0.4.",
    ),
]

RerankOption = Annotated[
    str | None,
    typer.Option("--rerank", metavar="ID", help="Rank the best documents again by this rerank endpoint."),
]
DepthOption = Annotated[
    int | None,
    typer.Option("--depth", min=1, help="Documents of each query that --rerank ranks again; by default 100."),
]

Target = Annotated[
    str, typer.Argument(metavar="[TASK/]ID", help="The endpoint's id, with or without its task type.")
]
Folder = Annotated[
    str | None,
    typer.Option(
        "--path", metavar="FOLDER", help="Folder of the definitions.", show_default=DEFAULT_ENDPOINTS
    ),
]
ModelsFrom = Annotated[
    str | None,
    typer.Option("--config", metavar="CONFIG", help="Run config whose endpoints and models sections hold."),
]
Timeout = Annotated[
    float | None, typer.Option("--timeout", min=0.1, help="Seconds that a service may take for one attempt.")
]


def index_path(config_or_index: str, overrides: Sequence[str] | None = None) -> str:
    """The index that a command's first argument means: a folder with an index, or a run config that names one.

    Raises:
        PipelineError: it is neither.
    """
    from pipeline.config.load import load_config

    if Path(config_or_index).is_dir():
        return config_or_index
    config = load_config(config_or_index, list(overrides or []))
    if config.index is None:
        raise PipelineError(f"{config_or_index} has no index section; add `index: {{path: out/index}}`")
    return config.index.path


def depth_of(depth: int | None, rerank: str | None) -> int:
    """The number of documents that are ranked again.

    Raises:
        PipelineError: one is asked for, and nothing ranks again.
    """
    from pipeline.search.hits.reranking import DEPTH

    if depth is not None and rerank is None:
        raise PipelineError(f"--depth {depth} needs --rerank ID: without it nothing is ranked again")
    return DEPTH if depth is None else depth


def reranker_from(
    inference_id: str | None, config_or_index: str, overrides: Sequence[str] | None, index: "SearchIndex"
) -> "Reranker | None":
    """The model that `--rerank` names, by the run config's endpoints and models, or by those that the index knows.

    Raises:
        PipelineError: it cannot be used.
    """
    from pipeline.config.load import load_config
    from pipeline.search.hits.reranking import open_reranker, reranker_of

    if inference_id is None:
        return None
    if Path(config_or_index).is_dir():
        return reranker_of(index, inference_id)
    config = load_config(config_or_index, list(overrides or []))
    return open_reranker(inference_id, config.endpoints.path, config.models)


def registry_of(path: str | None, config: str | None = None) -> tuple["Registry", Mapping[str, Any]]:
    """The endpoints of a folder, and the ``models`` section that says where their weights lie.

    Args:
        path: folder of the definitions; None takes the run config's, or the default one.
        config: run config whose sections hold.
    """
    from models.endpoints.registry import Registry

    if config is None:
        return Registry(path or DEFAULT_ENDPOINTS), {}
    from pipeline.config.load import load_config

    loaded = load_config(config)
    return Registry(path or loaded.endpoints.path), loaded.models


def split_target(target: str) -> tuple[str | None, str]:
    """Split ``TASK/ID`` into task and id; an id has no slash."""
    task_type, slash, inference_id = target.removeprefix("_inference/").partition("/")
    return (task_type, inference_id) if slash else (None, target)


def read_json(file: str | None) -> Any:
    """Read a request body from a file, or from standard input.

    Raises:
        InferenceError: there is none, or it is not JSON.
    """
    from models.errors import bad_request
    from models.json_text import parse_json

    try:
        return parse_json(_read_text(file, "the request body is missing; name it with --file, or pipe it in"))
    except ValueError as error:
        problem = f"the request body is not JSON: {error}"
    bad_request(problem, "x_content_parse_exception")


def read_lines(file: str | None) -> list[str]:
    """Read texts, one a line, from a file or from standard input.

    Only line feeds end a line; a text may hold other separators.

    Raises:
        InferenceError: the file cannot be read, or standard input is a terminal.
    """
    lines = _read_text(file, "Field [input] cannot be null").split("\n")
    texts = [line.removesuffix("\r") for line in lines]
    return texts[:-1] if texts[-1] == "" else texts


def _read_text(file: str | None, nothing: str) -> str:
    from models.errors import bad_request

    if file in (None, "-"):
        if sys.stdin is None or sys.stdin.isatty():
            bad_request(nothing, "action_request_validation_exception")
        return sys.stdin.buffer.read().decode("utf-8", "replace").removeprefix("\ufeff")
    try:
        return Path(str(file)).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        problem = f"[{file}] is not UTF-8 text"
    except OSError as error:
        problem = f"[{file}] cannot be read: {error.strerror}"
    bad_request(problem, "illegal_argument_exception")


def pruning_of(text: str | None) -> "Pruning | None":
    """The pruning that `--pruning` asks for.

    Raises:
        PipelineError: it is not understood.
    """
    from pipeline.search.pruning import Pruning

    if text is None or text == "elasticsearch":
        return None if text is None else Pruning()
    try:
        ratio, weight = map(float, text.split(","))
    except ValueError:
        raise PipelineError(
            f"--pruning [{text}] is neither [elasticsearch] nor of the form RATIO,WEIGHT, for example 5,0.4"
        ) from None
    try:
        return Pruning(ratio, weight)
    except ValueError as error:
        raise PipelineError(f"--pruning [{text}]: {error}") from None
