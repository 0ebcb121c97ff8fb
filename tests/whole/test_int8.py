"""A model in int8 from the config to a search: its embeddings are never mixed with those of float32."""

import numpy as np
import pytest
from support.small_run import SmallRun, document

from models.local.architectures.native import DISABLING_VARIABLE
from pipeline.__main__ import main

pytestmark = pytest.mark.kernels


def vectors(job):
    return np.array([chunk["embeddings"] for row in job.rows().values() for chunk in row["dense"]["chunks"]])


def test_int8_is_chosen_in_the_config_and_kept_apart(tmp_path, capsys, monkeypatch):
    job = SmallRun(tmp_path)
    del job.config["mappings"]["properties"]["sparse"]
    job.config["mappings"]["properties"]["text"]["copy_to"] = ["dense"]
    job.config["mappings"]["properties"]["dense"]["inference_id"] = ".minilm-l6-v2"
    job.write([document(number) for number in range(3)])
    assert job.run() == 0
    float32 = vectors(job)

    job.config["models"] = {"all-minilm-l6-v2": {"dtype": "int8"}}
    capsys.readouterr()
    assert job.run(command="check") == 0
    assert "; int8 by A" in capsys.readouterr().out
    assert job.run() == 0
    assert job.summary["documents"]["changed"] == 3
    int8 = vectors(job)
    assert 0.99 < (int8 * float32).sum(axis=1).min() < 0.99999
    assert job.run() == 0
    assert job.summary["documents"]["unchanged"] == 3

    # A search asks the model that embedded the index, whatever else is there.
    capsys.readouterr()
    question = document(1)["text"].split(". ")[0]
    assert main(["search", str(job.config_path), question, "--mode", "dense", "--k", "1"]) == 0
    assert " d1\n" in capsys.readouterr().out
    job.write([document(number) for number in range(4)])
    monkeypatch.setenv(DISABLING_VARIABLE, "off")
    for command in ("check", "run"):
        assert job.run(command=command) == 1
        assert "[dtype: int8] needs the compiled kernels" in capsys.readouterr().err


def test_a_model_that_the_kernels_do_not_know_is_refused_before_a_run(tmp_path, capsys):
    job = SmallRun(tmp_path)
    job.config["mappings"]["properties"]["dense"]["inference_id"] = ".minilm-l6-v2"
    job.config["models"] = {"all-minilm-l6-v2": {"dtype": "int8", "backend": "torch"}}
    job.write([document(1)])
    for command in ("check", "run"):
        assert job.run(command=command) == 2
        assert "[all-minilm-l6-v2] has [backend: torch]: leave [dtype] out" in capsys.readouterr().err
    assert not (tmp_path / "table").exists()
