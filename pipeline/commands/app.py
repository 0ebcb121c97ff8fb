"""The command line's application, which every module of commands adds to."""

import typer

app = typer.Typer(
    help="Chunk, embed and publish documents in batch, with the same chunks as Elasticsearch's semantic_text.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich help would double the start-up time
    add_completion=False,
)
