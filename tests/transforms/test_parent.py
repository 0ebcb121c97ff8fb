"""A process that works for another one ends with it, also when that is gone before it has begun."""

import os
import signal
import subprocess
import sys

from support.paths import ROOT

CODE = """
import sys, threading
from transforms.parent import end_with_parent
end_with_parent(int(sys.argv[1]))
threading.Event().wait(float(sys.argv[2]))
"""


def child(parent, seconds):
    done = subprocess.run([sys.executable, "-c", CODE, str(parent), str(seconds)], cwd=ROOT, timeout=120)
    return done.returncode


def test_a_process_whose_launcher_is_gone_by_the_time_it_asks_ends():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert child(gone.pid, 100) == -signal.SIGKILL


def test_a_process_whose_launcher_lives_goes_on():
    assert child(os.getpid(), 0.1) == 0
