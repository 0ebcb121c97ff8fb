"""Check a published table against itself, its log and its index; nothing is taken on trust from the run that wrote it.

The log is held against the digest in its last commit, every byte of a part file against the hash in its name, and the
index against its manifest and the rows.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from pipeline.config.run_config import RunConfig
from pipeline.errors import PipelineError
from pipeline.table.delta import describe_table, require_table
from pipeline.table.embedding_check import mixed_models
from pipeline.table.log import TableLog, read_log
from pipeline.table.open_runs import open_runs
from pipeline.table.part_check import PART_DAMAGE, PartCheck, Problem
from pipeline.table.parts import list_parts
from transforms.table.description import DESCRIPTION
from transforms.table.log_digest import log_problem, parse_logged
from transforms.table.parts import is_made_by


@dataclass
class Verification:
    """What a check found.

    Attributes:
        table_version: the version that was checked.
        parts: part files read.
        rows: documents in them.
        chunks: chunks in them.
        other_fingerprints: rows of an older mapping or model; the next run writes them again.
        orphans: part files that no version names and no open run owns; `vacuum` removes them.
        open_runs: runs that are going on or were killed.
        index_version: the version that the index shows; None without an index.
        problems: what is wrong.
    """

    table_version: int
    parts: int = 0
    rows: int = 0
    chunks: int = 0
    other_fingerprints: int = 0
    orphans: int = 0
    open_runs: int = 0
    index_version: int | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """All of it, with `ok`."""
        return {"ok": self.ok, **asdict(self)}


def verify(config: RunConfig, *, rows: bool = False) -> Verification:
    """Check the newest version of a table, and its index where there is one.

    Every byte of a part file is held against the hash in its name. Rows of a part that is damaged, or that another
    program rewrote, are derived again one by one.

    Args:
        config: the run config.
        rows: derive the rows of all parts again.
    """
    path = config.table.path
    table = require_table(config, check=False)
    found = Verification(table.version())
    damage = log_problem(table)
    if damage:
        found.problems.append(Problem("log", "_delta_log", damage))
    log = read_log(path)
    found.problems += [Problem("log", name, "this file of the log is damaged") for name in log.damaged]
    check = PartCheck(path, _description(path, table), found.problems, all_rows=rows)
    ids = [check.part(name, log.parts[name]) for name in sorted(log.active)]
    found.parts, found.rows, found.chunks = check.parts, check.fingerprints.total(), check.chunks
    found.problems += [
        Problem("models", "table", f"{told}; run once with source.sync=full over the whole source")
        for told in mixed_models(check.fingerprints, check.description)
    ]
    _find_duplicates(pa.chunked_array(ids, pa.string()), found)
    _count_leftovers(path, log, found)
    newest = _newest_fingerprint(config)
    found.other_fingerprints = found.rows - (check.fingerprints[newest] if newest else found.rows)
    # The index is held against the rows, so it has to wait until they can all be read.
    if config.index is not None and not (PART_DAMAGE | {"log"}) & {one.kind for one in found.problems}:
        _verify_index(config, found)
    return found


def _description(path: str, table: DeltaTable) -> dict[str, Any]:
    """What the table says about its rows; the newest word where the rows that would tell cannot be read."""
    try:
        return describe_table(path, table)
    except PipelineError:
        return dict(
            parse_logged("description", table.metadata().configuration.get(DESCRIPTION, '{"fields": {}}'))
        )


def _find_duplicates(ids: pa.ChunkedArray, found: Verification) -> None:
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    for entry in twice[:100].to_pylist():
        found.problems.append(
            Problem("duplicate", "table", f"{entry['counts']} rows have the _id [{entry['values']}]")
        )


def _count_leftovers(path: str, log: TableLog, found: Verification) -> None:
    runs = open_runs(path)
    owners = [run.run_id for run in runs]
    found.open_runs = len(runs)
    found.orphans = sum(name not in log.parts and not is_made_by(name, owners) for name in list_parts(path))


def _newest_fingerprint(config: RunConfig) -> str | None:
    """The fingerprint that a run of this config would write; None where its models cannot be described here."""
    from pipeline.errors import ConfigError
    from pipeline.table.migrations import resolve_for_table

    try:
        return resolve_for_table(config).layout.fingerprint
    except ConfigError:
        return None


def _verify_index(config: RunConfig, found: Verification) -> None:
    """Hold the index against the table, document by document."""
    from transforms.index.state import IndexState, IndexUnusable
    from transforms.index.verify import verify_index

    assert config.index is not None
    where = config.index.path
    found.problems += [
        Problem("index", where, sentence) for sentence in verify_index(config.table.path, where)
    ]
    try:
        state = IndexState.load(Path(where))
    except IndexUnusable:
        return
    found.index_version = None if state is None else int(state.table["version"])
