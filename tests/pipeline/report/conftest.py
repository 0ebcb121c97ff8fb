"""A small run to report on."""

import pytest
from support.nights import NightRun, document


@pytest.fixture
def job(tmp_path):
    job = NightRun(tmp_path)
    job.write([document(number) for number in range(12)])
    return job
