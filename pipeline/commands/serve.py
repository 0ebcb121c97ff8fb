"""The commands `serve` and `explore`: models over HTTP, and a page to work with."""

from typing import Annotated

import typer

from pipeline.commands.app import app
from pipeline.commands.arguments import Index, Overrides
from pipeline.errors import PipelineError

Host = Annotated[str, typer.Option(help="Address to listen on; beyond this machine only with --api-key.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key", metavar="env:NAME", help="Requests must bring this key: env:NAME or file:PATH."
    ),
]


@app.command(epilog="Example: semantic-ingest serve run_configs/quickstart.yaml --port 8700")
def serve(
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="[CONFIG|INDEX]",
            help="Run config, or folder of an index; without it, the endpoints of run_configs/endpoints.",
        ),
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 8700,
    api_key: ApiKey = None,
    overrides: Overrides = None,
) -> None:
    """Serve models over HTTP, and a page. The APIs are Elasticsearch's inference and OpenAI's embeddings."""
    _serve(config, host, port, api_key, overrides)


@app.command(epilog="Example: semantic-ingest explore run_configs/quickstart.yaml")
def explore(
    config: Index,
    host: Host = "127.0.0.1",
    port: Port = 8700,
    api_key: ApiKey = None,
    overrides: Overrides = None,
) -> None:
    """Look at the index in a browser: the page of `serve`."""
    _serve(config, host, port, api_key, overrides)


def _serve(
    config: str | None, host: str, port: int, api_key: str | None, overrides: list[str] | None
) -> None:
    try:
        from pipeline.serve.server import serve as serve_corpus
    except ModuleNotFoundError as error:
        missing = error.name
    else:
        from pipeline.serve.corpus import open_corpus

        serve_corpus(open_corpus(config, overrides), host, port, api_key)
        return
    raise PipelineError(
        f"[{missing}] is not installed; it comes with an extra: pip install 'semantic-ingest[serve]'"
    )
