"""How commands print: a table for people, JSON for programs, errors as Elasticsearch answers them."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec

from pipeline.terminal.text import one_line, printable_json, show_error

Parameters = ParamSpec("Parameters")


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print a value as JSON.

    Args:
        value: what `json` can write.
        indent: spaces a level; None prints one line.
    """
    try:
        print(printable_json(json.dumps(value, indent=indent, ensure_ascii=False)))
    except UnicodeEncodeError:  # half a surrogate pair, or a terminal of another encoding
        print(json.dumps(value, indent=indent))


def print_table(
    names: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None, lines: bool = False
) -> None:
    """Print rows below their names.

    Args:
        names: headings. Without any, the first column names the rows.
        rows: cells: None prints nothing, whole numbers get separators, truths are yes and no, rich texts keep their
            styles.
        title: a line above the table.
        lines: draw a line between rows, for cells that take several lines.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(
        box=box.HORIZONTALS if lines else None,
        show_lines=lines,
        show_header=bool(names),
        padding=(0, 2, 0, 0),
    )
    for name in names:
        table.add_column(_cell(name), overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    # Piped into a file or a pager a line is never folded.
    console = Console()
    if title is not None:  # beside the table it would be folded to the table's width
        print(one_line(title))
    if console.is_terminal:
        console.print(table)
        return
    wide = Console(width=200)
    with wide.capture() as captured:
        wide.print(table)
    print("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")))


def counted(counts: Mapping[str, int]) -> str:
    """Counts by name as a person reads them: ``12 read: BadDocumentError, 3 embed: InferenceError``."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _cell(value: Any) -> Any:
    """A table's cell; a string is shown as it stands, square brackets and all."""
    from rich.text import Text

    if isinstance(value, Text):
        return value
    if isinstance(value, bool):
        value = "yes" if value else "no"
    shown = "" if value is None else f"{value:,}" if type(value) is int else str(value)
    return Text(one_line(shown))


def extraction_rows(extraction: Mapping[str, Any] | None) -> dict[str, str]:
    """What a person wants to know of an extraction: heading -> value; nothing where nothing was extracted."""
    if extraction is None:
        return {}
    rows = {}
    for name, counts in (("files", extraction["types"]), ("skipped", extraction["skipped"])):
        if counts:
            rows[name] = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    if extraction["documents"]:
        rows["extracted"] = (
            f"{extraction['documents']:,} documents, {extraction['pages']:,} pages, "
            f"{extraction['seconds']:,.1f} s of processor time by {extraction['library']}"
        )
        slowest = extraction["slowest"][0]
        if slowest["seconds"] >= 1:
            rows["slowest"] = f"{slowest['path']}, {slowest['seconds']:,.1f} s"
    if extraction["earlier_library"]:
        rows["library"] = (
            f"was {extraction['earlier_library']}: its documents are extracted again; where a chunk's text is "
            "the same, its embedding stays"
        )
    return rows


def answers_in_json(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Let a command that fails print the error body that Elasticsearch would answer, and exit with 1."""

    @wraps(command)
    def answer(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        from models.errors import InferenceError

        try:
            command(*args, **kwargs)
        except InferenceError as error:
            print_json(error.to_json())
            show_error(error.reason)
            raise SystemExit(1) from None

    return answer


def skipped_files(skipped: Mapping[str, int]) -> str:
    """What a source did not read, by ending, as the end of a line."""
    return "skipped " + ", ".join(f"{count:,} {ending}" for ending, count in skipped.items())


@contextmanager
def counting(what: str, total: int | None, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Show on stderr how many are done, on a terminal only; yields what is told of more that are.

    Args:
        what: what is counted, in the plural.
        total: how many there are; None where that is not known.
        quiet: show nothing.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)
