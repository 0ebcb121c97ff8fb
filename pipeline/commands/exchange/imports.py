"""The commands of `import`: mappings and endpoints of a cluster for run configs."""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated

import typer

from pipeline.commands.app import app
from pipeline.commands.arguments import Folder, Format
from pipeline.config.defaults import DEFAULT_ENDPOINTS
from pipeline.terminal.output import print_json, print_table
from pipeline.terminal.text import printable

imports = typer.Typer(
    help="Take over mappings and inference endpoints of a cluster.",
    epilog="Example: semantic-ingest import mapping http://127.0.0.1:9200/docs > mappings.yaml",
    no_args_is_help=True,
)
app.add_typer(imports, name="import")

ApiKey = Annotated[
    str | None, typer.Option("--api-key", metavar="env:NAME|file:PATH", help="Where the API key stands.")
]


@imports.command(
    "mapping", epilog="Example: semantic-ingest import mapping http://127.0.0.1:9200/docs > mappings.yaml"
)
def import_mapping(
    source: Annotated[
        str, typer.Argument(metavar="FILE|URL/INDEX", help="JSON of GET INDEX/_mapping, or where to ask.")
    ],
    api_key: ApiKey = None,
) -> None:
    """Print an index's mapping as that of a run config. What has no place there is named on stderr."""
    import yaml

    from pipeline.exchange.import_mapping import import_mapping as take
    from pipeline.exchange.import_mapping import read_answer

    url, _, index = source.rpartition("/") if "://" in source else (source, "", "")
    imported = take(read_answer(url, f"/{index}/_mapping", api_key))
    print(yaml.safe_dump({"mappings": imported.mappings}, sort_keys=False, allow_unicode=True), end="")
    _tell("left out", imported.left_out)
    if not imported.embeds:
        print("note: nothing is embedded yet; add a semantic_text field, and copy_to it", file=sys.stderr)


@imports.command(
    "endpoints",
    epilog="Example: semantic-ingest import endpoints http://127.0.0.1:9200 --path run_configs/endpoints",
)
def import_endpoints(
    source: Annotated[
        str, typer.Argument(metavar="FILE|URL", help="JSON of GET _inference/_all, or where to ask.")
    ],
    path: Folder = None,
    api_key: ApiKey = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing.")] = False,
    output: Format = "table",
) -> None:
    """Define a cluster's endpoints here. Secrets are never told by it, so they come from the environment."""
    from pipeline.exchange.import_endpoints import import_endpoints as take
    from pipeline.exchange.import_mapping import read_answer

    imported = take(
        read_answer(source, "/_inference/_all", api_key), path or DEFAULT_ENDPOINTS, dry_run=dry_run
    )
    if output == "json":
        print_json(asdict(imported))
        return
    rows = [(name, "known already" if name in imported.known else "defined") for name in imported.known]
    rows += [
        (name, f"defined; set {', '.join(imported.secrets[name])}" if name in imported.secrets else "defined")
        for name in imported.defined
    ]
    print_table((), rows)
    _tell("left out", imported.left_out)


def _tell(what: str, reasons: Mapping[str, str]) -> None:
    for name, reason in sorted(reasons.items()):
        print(printable(f"{what}: {name}: {reason}"), file=sys.stderr)
