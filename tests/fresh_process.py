"""Python code in a process of its own, for what other tests in the same process would disturb."""

import subprocess
import sys
from pathlib import Path


def run_in_fresh_process(code: str, *arguments: str) -> None:
    """Run `code` in the repository's root and assert that it ends well; it sees `arguments` in sys.argv."""
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=root, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
