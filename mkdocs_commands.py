"""A hook of MkDocs: the page of commands holds what ``--help`` prints of each."""

from typing import Any


def on_page_markdown(markdown: str, page: Any, **others: Any) -> str:
    """Put the commands, with their arguments and options, where the page says so."""
    if page.file.src_uri != "reference/commands.md":
        return markdown
    import click
    import typer
    from typer.cli import get_docs_for_click

    from pipeline.__main__ import app

    command = typer.main.get_command(app)
    written = get_docs_for_click(obj=command, ctx=click.Context(command), name="semantic-ingest")
    return markdown.replace("<!-- commands -->", written[written.index("\n## ") :])
