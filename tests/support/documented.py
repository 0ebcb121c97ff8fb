"""The commands that README and docs show, as a reader would type them.

A fence of `console`, `bash` or `python` is run, unless the comment ``<!-- not run: REASON -->`` stands before it;
``<!-- exit code 1 -->`` says how its commands end. In a `console` fence a command begins with ``$ ``, and what follows
it is its output, where ``…`` stands for anything.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(
    r"(?:<!-- (?:not run: (?P<why>[^\n]*)|exit code (?P<code>\d+)) -->\n+)?^```(?P<kind>\w*)[^\n]*\n(?P<body>.*?)^```$",
    re.M | re.S,
)


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Attributes:
        line: where its fence begins.
        text: the command.
        shown: the output that stands below it.
        why: the reason for which it is not run.
        code: the exit code with which it ends.
    """

    line: int
    text: str
    shown: str
    why: str | None
    code: int


def commands(page: Path) -> list[Command]:
    """All commands of a page, in its order."""
    text = page.read_text()
    found = []
    for fence in _FENCE.finditer(text):
        line = text.count("\n", 0, fence.start("body")) + 1
        body, kind = fence["body"], fence["kind"]
        assert kind, f"{page.name}, line {line}: a fence without a language"
        pairs = {
            "console": lambda body: _typed(body),
            "bash": lambda body: [(body, "")],
            "python": lambda body: [(f"python - <<'END_OF_PYTHON'\n{body}END_OF_PYTHON", "")],
        }.get(kind, lambda _: [])(body)
        found += [Command(line, *pair, fence["why"], int(fence["code"] or 0)) for pair in pairs]
    return found


def _typed(body: str) -> list[tuple[str, str]]:
    """The commands of a `console` fence, each with its output. A command ends where bash finds it whole."""
    pairs = []
    for part in re.split(r"^\$ ", body, flags=re.M)[1:]:
        lines = part.splitlines(keepends=True)
        count = next(n for n in range(1, len(lines) + 1) if _is_whole("".join(lines[:n])))
        pairs.append(("".join(lines[:count]), "".join(lines[count:])))
    return pairs


def _is_whole(command: str) -> bool:
    checked = subprocess.run(["bash", "-n"], input=command, text=True, capture_output=True)
    return checked.returncode == 0 and not checked.stderr and not command.endswith("\\\n")


def is_shown(output: str, shown: str) -> bool:
    """Whether an output is what a page shows, where ``…`` stands for any text."""
    pattern = ".*".join(re.escape(part) for part in shown.strip().split("…"))
    return not shown or re.fullmatch(pattern, output.strip(), re.S) is not None
