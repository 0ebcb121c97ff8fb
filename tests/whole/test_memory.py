"""Under `ulimit -v` a command ends in a sentence, not in a traceback or in the crash of a library."""

import resource
import subprocess
import sys

import pytest
import yaml
from support.paths import ROOT
from support.small_run import SmallRun, document

from pipeline.errors import PipelineError
from pipeline.memory import GRAPH_MEBIBYTES, START_MEBIBYTES, is_out_of_memory, require_address_space


def under_limit(mebibytes, *arguments):
    limit = mebibytes << 20
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )


# Too little for numpy, for OpenBLAS, for Delta Lake's threads, for Beam's.
@pytest.mark.parametrize("mebibytes", [100, 400, 900, 1300, 2000, 2860])
def test_a_run_ends_in_a_sentence(mebibytes, tmp_path):
    job = SmallRun(tmp_path)
    job.write([document(number) for number in range(4)])
    job.config_path.write_text(yaml.safe_dump(job.config))
    done = under_limit(mebibytes, "run", str(job.config_path), "--quiet")
    assert done.returncode == 1, done
    assert done.stderr.splitlines()[-1].startswith("error: there is not enough memory")
    assert "raise it to" in done.stderr or "raise ulimit -v" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_left_is_looked_at(monkeypatch):
    monkeypatch.setattr("pipeline.memory._address_space", lambda: 3 << 30)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (4 << 30, 4 << 30))
    require_address_space(GRAPH_MEBIBYTES)
    with pytest.raises(PipelineError, match=r"leaves 1,024 MiB .* 2,800 MiB .* raise it to 6012928 or more"):
        require_address_space(START_MEBIBYTES)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY,) * 2)
    require_address_space(START_MEBIBYTES)


def test_errors_that_mean_too_little_memory():
    behind = ValueError("x")
    behind.__cause__ = MemoryError()
    assert is_out_of_memory(behind)
    assert is_out_of_memory(RuntimeError("can't start new thread"))
    assert not is_out_of_memory(RuntimeError("can't"))
