"""A run that ends between the table's description and its rows."""

from pathlib import Path

import pytest
from deltalake import DeltaTable
from support.small_run import SmallRun, document


def test_a_first_run_that_was_killed_before_its_rows_is_simply_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = SmallRun(tmp_path)
    job.write([document(number) for number in range(5)])

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(DeltaTable, "create_write_transaction", dies)
        assert job.run() != 0
    assert (job.version(), len(DeltaTable(job.table_path).file_uris())) == (0, 0)
    assert job.run(command="verify") == 1, "the index is not there yet"
    assert job.run() == 0
    assert (job.version(), len(job.rows())) == (1, 5)
    assert job.run(command="verify") == 0
