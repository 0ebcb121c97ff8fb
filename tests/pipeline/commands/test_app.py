"""The application: its help is quick, its tables are safe to print."""

import subprocess
import sys

import pytest
from rich.text import Text
from support.fresh_process import run_in_fresh_process
from support.paths import ROOT
from support.small_run import SmallRun, document

from pipeline.__main__ import main
from pipeline.terminal.output import print_json, print_table

HEAVY = ["numpy", "pyarrow", "torch", "transformers", "tantivy", "apache_beam", "deltalake", "rich.table"]

# What takes long to import, and belongs to engines, models and formats that these commands do not use.
NOT_FOR_QUICK_COMMANDS = [
    *("apache_beam", "pandas", "torch", "transformers", "tokenizers", "httpx", "regex"),
    *("asyncio", "markdown_it", "nltk", "ir_measures", "starlette", "rich.markdown"),
]


@pytest.mark.parametrize("command", ["", "run", "search", "endpoints"])
def test_help_imports_nothing_heavy(command: str) -> None:
    run_in_fresh_process(
        "import sys; from pipeline.__main__ import main\n"
        f"assert main({[*command.split(), '--help']}) == 0\n"
        f"found = set({HEAVY}) & sys.modules.keys()\n"
        "assert not found, found"
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """A run that is done, so that the next one changes nothing."""
    run = SmallRun(tmp_path_factory.mktemp("finished"))
    run.write([document(number) for number in range(3)])
    assert run.run("--quiet") == 0
    return run


@pytest.mark.parametrize(
    "command",
    [
        "check CONFIG",
        "check CONFIG --print",
        "history CONFIG",
        "verify CONFIG",
        "endpoints list",
        "search CONFIG fox --mode bm25",
        "search CONFIG fox --mode bm25 --format json",
        "run CONFIG --quiet",
    ],
)
def test_a_quick_command_imports_only_what_it_uses(finished: SmallRun, command: str) -> None:
    arguments = [str(finished.config_path) if word == "CONFIG" else word for word in command.split()]
    run_in_fresh_process(
        "import sys; from pipeline.__main__ import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        f"found = set({NOT_FOR_QUICK_COMMANDS}) & sys.modules.keys()\n"
        "assert not found, found",
        *arguments,
    )


@pytest.mark.parametrize("group", ["", "endpoints", "export", "load", "import"])
def test_help_says_in_whole_sentences_what_commands_do(
    group: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*group.split(), "--help"]) == 0
    assert "..." not in capsys.readouterr().out.replace("[ARGS]...", "")


def test_help_lists_commands_as_they_are_needed() -> None:
    """In a process of its own: here a test may have imported one of the commands before the others."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    listed = [line.split()[0] for line in done.stdout.partition("Commands:")[2].splitlines() if line]
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


def test_wrong_arguments_are_told_in_plain_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "x", "y", "--mode", "fast"]) == 2
    assert main(["endpoints", "list", "--format", "xml"]) == 2
    told = capsys.readouterr().err
    assert "'--mode': 'fast' is not one of 'bm25', 'sparse', 'dense', 'hybrid'" in told
    assert "'--format': 'xml' is not one of" in told
    assert "Value error" not in told
