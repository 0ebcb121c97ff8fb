"""The application: its help is quick, its tables are safe to print."""

import pytest
from rich.text import Text
from support.fresh_process import run_in_fresh_process

from pipeline.__main__ import main
from pipeline.terminal.output import print_json, print_table

HEAVY = ["numpy", "pyarrow", "torch", "transformers", "tantivy", "apache_beam", "deltalake", "rich.table"]


@pytest.mark.parametrize("command", ["", "run", "search", "endpoints"])
def test_help_imports_nothing_heavy(command: str) -> None:
    run_in_fresh_process(
        "import sys; from pipeline.__main__ import main\n"
        f"assert main({[*command.split(), '--help']}) == 0\n"
        f"found = set({HEAVY}) & sys.modules.keys()\n"
        "assert not found, found"
    )


def test_help_lists_commands_as_they_are_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = [
        line.split()[0] for line in capsys.readouterr().out.partition("Commands:")[2].splitlines() if line
    ]
    assert listed[:5] == ["init", "schema", "run", "plan", "check"]
    assert listed[-4:] == ["endpoints", "export", "load", "import"]


def test_a_table_shows_text_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("_[b]name", "n"), [("[bold]\x1b[31m", 1234), (Text("own"), None)])
    heading, first, second = capsys.readouterr().out.splitlines()
    assert heading.split() == ["_[b]name", "n"]
    assert first.split() == ["[bold]␛[31m", "1,234"]
    assert second.split() == ["own"]


def test_json_that_no_terminal_can_show_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"é": 1}, indent=None)
    print_json("\ud800")
    assert capsys.readouterr().out == '{"é": 1}\n"\\ud800"\n'
