"""Why a command stops, with the exit code that it stops with.

PipelineError        1  the run could not be done
├── ConfigError      2  the run config is wrong; every problem at once
├── GateFailed       3  a quality gate refused the new snapshot
└── TooManyFailures  4  more documents failed than `failures.max_ratio` allows
"""

from collections.abc import Iterable
from difflib import get_close_matches

from pipeline.terminal.text import one_line


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The known word most like `word`, as the end of a message; empty where none is like it.

    Where up to three known words have `word` in them, it means those: ``minilm`` is ``.minilm-l6-v2``.
    """
    words = list(known)
    inside = [one for one in words if len(word) > 2 and word.lower() in one.lower()]
    close = get_close_matches(word, words, 1, cutoff=0.85)  # a slip of the finger
    close = close or (inside if 0 < len(inside) <= 3 else get_close_matches(word, words, 1))
    return f"; did you mean {' or '.join(f'[{one}]' for one in close)}?" if close else ""


class PipelineError(Exception):
    """The command could not do its job; the message says why and what to do."""

    exit_code = 1


class ConfigError(PipelineError):
    """The run config is wrong.

    Attributes:
        problems: every problem found, each with its place and the fix.
    """

    exit_code = 2

    def __init__(self, where: str, problems: list[str]) -> None:
        self.problems = sorted(problems, key=_line_of)
        lines = "".join(f"\n  - {one_line(problem)}" for problem in self.problems)
        where = one_line(where)
        several = f"{where}: {len(problems)} problems{lines}"
        super().__init__(f"{where}: {one_line(problems[0])}" if len(problems) == 1 else several)


def _line_of(problem: str) -> int:
    """The line of a file that a problem names; those that name none come last, as they stand."""
    number = problem.removeprefix("line ").partition(":")[0]
    return int(number) if problem.startswith("line ") and number.isdigit() else 1 << 30


class GateFailed(PipelineError):
    """A quality gate refused the new snapshot; the published table and index are as they were."""

    exit_code = 3


class TooManyFailures(PipelineError):
    """More documents failed than `failures.max_ratio` allows; nothing was committed."""

    exit_code = 4


def original_error(error: BaseException) -> BaseException:
    """Find the stop signal, system error or service error that another error was raised on account of.

    Returns:
        The first such error behind `error`; `error` itself where there is none.
    """
    told: BaseException | None = error
    while told is not None:
        if is_explained(told):
            return told
        told = told.__cause__ or told.__context__
    return error


def is_explained(error: BaseException) -> bool:
    """Whether the command line says in a sentence what an error means, so that nobody needs its traceback."""
    from models.errors import InferenceError

    return isinstance(error, KeyboardInterrupt | SystemExit | OSError | InferenceError | PipelineError)
