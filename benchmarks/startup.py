"""What it costs to start: processor time of quick commands from the start of the process to its end.

Each command runs several times, in turn with the others, beside ``python -c pass``; the least time is told, since all
that a busy machine can do is add to it. Commands that need none of them must not import Beam, pandas, PyTorch or
transformers; the last column names what they did import of these. Python keeps the bytecode of what it has imported
once, also where PYTHONDONTWRITEBYTECODE is set around this program: without it a start compiles some 700 modules.
"""

import argparse
import json
import os
import resource
import subprocess
import sys

CONFIG = "run_configs/quickstart.yaml"
COMMANDS = {
    "--help": ["--help"],
    "check": ["check", CONFIG],
    "history": ["history", CONFIG],
    "verify": ["verify", CONFIG],
    "endpoints list": ["endpoints", "list"],
    "run, nothing changed": ["run", CONFIG, "--quiet"],
    "search, bm25": ["search", CONFIG, "career sacks", "--mode", "bm25"],
    "search, dense": ["search", CONFIG, "career sacks", "--mode", "dense"],
}
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
HEAVY = ("apache_beam", "pandas", "torch", "transformers")
TELL = f"""
import sys
from pipeline.__main__ import main
code = main(sys.argv[1:])
print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
sys.exit(code)
"""


def processor_seconds(command: list[str]) -> float:
    """User and system time of one process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    processor_seconds([sys.executable, "-m", "pipeline", "run", CONFIG, "--quiet"])
    commands = {"python -c pass": [sys.executable, "-c", "pass"]}
    commands |= {name: [sys.executable, "-m", "pipeline", *rest] for name, rest in COMMANDS.items()}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(options.repeats):
        for name, command in commands.items():
            times[name].append(processor_seconds(command))
    heavy = {}
    for name, rest in COMMANDS.items():
        done = subprocess.run([sys.executable, "-c", TELL, *rest], check=True, capture_output=True, text=True)
        heavy[name] = done.stderr.splitlines()[-1]
    found = {
        name: {"seconds": round(min(seconds), 3), "imports": heavy.get(name)}
        for name, seconds in times.items()
    }
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for name, one in found.items():
        print(f"{name:<22}{one['seconds']:>8.2f} s  {one['imports'] or ''}")


if __name__ == "__main__":
    main()
