"""A hook of MkDocs: the page of commands holds what ``--help`` prints of each."""

from importlib import import_module
from typing import Any


def on_page_markdown(markdown: str, page: Any, **others: Any) -> str:
    """Put the commands, with their arguments and options, where the page says so."""
    if page.file.src_uri != "reference/commands.md":
        return markdown
    import click
    import typer
    from typer.cli import get_docs_for_click

    from pipeline.__main__ import MODULES
    from pipeline.commands.app import app

    for module in MODULES:
        import_module(f"pipeline.commands.{module}")
    command = typer.main.get_command(app)
    written = get_docs_for_click(obj=command, ctx=click.Context(command), name="semantic-ingest")
    return markdown.replace("<!-- commands -->", written[written.index("\n## ") :])
