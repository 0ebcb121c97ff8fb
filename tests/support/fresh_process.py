"""Python code in a process of its own, for what other tests in the same process would disturb."""

import subprocess
import sys

from support.paths import ROOT


def run_in_fresh_process(code: str, *arguments: str) -> None:
    """Run `code` in the repository's root and assert that it ends well; it sees `arguments` in sys.argv."""
    root = ROOT
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=root, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
