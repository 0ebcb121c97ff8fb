"""The commands of `endpoints`, and `infer`: each calls a function of `pipeline.endpoints_command`."""

from typing import Annotated

import typer

from pipeline.arguments import FormatOption

app = typer.Typer(
    help="Inference endpoints, defined as in Elasticsearch.",
    epilog="Example: python -m pipeline endpoints test .minilm-l6-v2",
    no_args_is_help=True,
)
Folder = Annotated[str, typer.Option("--path", metavar="FOLDER", help="Folder of the definitions.")]
Target = Annotated[
    str, typer.Argument(metavar="[TASK/]ID", help="The endpoint's id, with or without its task type.")
]
ModelsFrom = Annotated[
    str | None,
    typer.Option("--config", metavar="CONFIG", help="Run config whose endpoints and models sections hold."),
]
Timeout = Annotated[
    float | None, typer.Option("--timeout", min=0.1, help="Seconds that a service may take for one attempt.")
]


@app.command("list", epilog="Example: python -m pipeline endpoints list --format json")
def endpoints_list(
    task_type: Annotated[
        str | None, typer.Argument(metavar="[TASK]", help="Only endpoints of this task.")
    ] = None,
    path: Folder = "run_configs/endpoints",
    output: FormatOption = "table",
) -> None:
    """List the preconfigured endpoints and those of a folder."""
    from pipeline.endpoints_command import list_endpoints

    list_endpoints(path, task_type, output)


@app.command("get", epilog="Example: python -m pipeline endpoints get .minilm-l6-v2")
def endpoints_get(target: Target, path: Folder = "run_configs/endpoints") -> None:
    """Print an endpoint as GET _inference does; `_all` and `TASK/_all` print many."""
    from pipeline.endpoints_command import get_endpoint

    get_endpoint(target, path)


@app.command(
    "put",
    epilog="Example: python -m pipeline endpoints put text_embedding/my-endpoint --file body.json --dry-run",
)
def endpoints_put(
    target: Target,
    file: Annotated[
        str | None, typer.Option("--file", help="Request body in JSON; without it, stdin.")
    ] = None,
    path: Folder = "run_configs/endpoints",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, and store nothing.")] = False,
) -> None:
    """Define an endpoint with the body of PUT _inference; literal secrets move to files of their own."""
    from pipeline.endpoints_command import put_endpoint

    put_endpoint(target, path, file, dry_run=dry_run)


@app.command("delete", epilog="Example: python -m pipeline endpoints delete my-endpoint --dry-run")
def endpoints_delete(
    target: Target,
    path: Folder = "run_configs/endpoints",
    configs: Annotated[
        list[str] | None,
        typer.Option("--config", metavar="CONFIG", help="A run config to look into as well."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing, print what uses it.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Delete it although something uses it.")] = False,
) -> None:
    """Delete an endpoint, unless a run config or a table uses it."""
    from pipeline.endpoints_command import delete_endpoint

    delete_endpoint(target, path, configs or [], dry_run=dry_run, force=force)


@app.command("test", epilog="Example: python -m pipeline endpoints test .minilm-l6-v2")
def endpoints_test(
    target: Target, path: Folder = "run_configs/endpoints", config: ModelsFrom = None, timeout: Timeout = None
) -> None:
    """Embed one short text: does the endpoint work, how long are its embeddings, how fast is it?"""
    from pipeline.endpoints_command import try_endpoint

    try_endpoint(target, path, config, timeout)


def infer(
    target: Target,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts; without any, stdin.")
    ] = None,
    file: Annotated[str | None, typer.Option("--file", help="File of texts, one a line.")] = None,
    body: Annotated[str | None, typer.Option("--body", help="File of a whole request body in JSON.")] = None,
    input_type: Annotated[
        str | None, typer.Option("--input-type", help="ingest, search, classification or clustering.")
    ] = None,
    path: Folder = "run_configs/endpoints",
    config: ModelsFrom = None,
    timeout: Timeout = None,
) -> None:
    """Embed texts and print Elasticsearch's response, or its error body and exit code 1."""
    from pipeline.endpoints_command import infer as infer_command

    infer_command(
        target, texts or [], path, file=file, body=body, input_type=input_type, config=config, timeout=timeout
    )
