"""The command line: ``semantic-ingest COMMAND``, or ``python -m pipeline COMMAND``.

Each command is one function in a module of `pipeline.commands`.

Results go to stdout, progress and logs to stderr. Exit codes: 0 done, 1 error, 2 bad config, 3 a gate failed,
4 more failures than allowed, 130 and 143 stopped.
"""

import sys
from importlib import import_module
from typing import NoReturn

from pipeline.commands.app import app

# Each module adds its commands to the application; in this order `--help` lists them.
MODULES = (
    *("init", "run", "plan", "check", "chunk", "search", "evaluate", "index", "serve", "infer"),
    *("table.versions", "table.migrate", "endpoints", "exchange.export", "exchange.load", "exchange.imports"),
)
STOPPED = (130, 143)
"""Exit codes of what was stopped by Ctrl-C and by SIGTERM."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code instead of leaving the process.

    Args:
        argv: arguments without the program's name; those of the process by default.
    """
    from pipeline.errors import ConfigError, PipelineError
    from pipeline.logs import configure_logging
    from pipeline.memory import START_MEBIBYTES, is_out_of_memory, require_address_space
    from pipeline.terminal.text import show_error

    configure_logging()
    try:
        require_address_space(START_MEBIBYTES)
        for module in MODULES:
            import_module(f"pipeline.commands.{module}")
        app(args=argv, prog_name="semantic-ingest", standalone_mode=True)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except PipelineError as error:
        show_error(str(error), lines=isinstance(error, ConfigError))
        return error.exit_code
    except OSError as error:
        # A full disk, a missing right, a mount that went away: the system's own words say it best.
        where = f" [{error.filename}]" if error.filename else ""
        show_error(f"{error.strerror or error}{where}")
        return 1
    except Exception as error:
        from models.errors import InferenceError

        if isinstance(error, InferenceError):
            show_error(error.reason)
        elif is_out_of_memory(error):
            show_error(
                "there is not enough memory; smaller parts, batches or fewer workers need less, or raise ulimit -v"
            )
        else:
            raise
        return 1
    return 0


def command() -> NoReturn:
    """Run the command line as the process that it is; one that is stopped does not wait for its threads."""
    from pipeline.stop import answer_signals, end

    answer_signals()
    code = main()
    if code in STOPPED:
        end(code)
    sys.exit(code)


if __name__ == "__main__":
    command()
